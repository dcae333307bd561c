"""Sizes of downloads as their servers state them, for what no page has on record."""

from __future__ import annotations

import logging

from deepbedmap_tf.data.catalog import Product, ProductFile, by_hand
from deepbedmap_tf.data.download import is_page
from deepbedmap_tf.data.earthdata import Opener
from deepbedmap_tf.errors import DataError

_LOGGER = logging.getLogger(__name__)


class Sizes:
    """Asks servers how much a download would be; of the content only its beginning is looked at.

    A login is taken from the environment or .netrc, never asked for.
    """

    def __init__(self) -> None:
        self._opener = Opener()

    def of(self, product: Product, file: ProductFile) -> int | None:
        """Bytes of a file's download; None where the server does not say, refuses or is out of reach."""
        import requests

        if file.url is None or not file.url.startswith(("http://", "https://")):
            return None
        headers = {"Accept-Encoding": "identity"}
        try:
            opened = self._opener.open(file.url, headers, product.login is not None, by_hand(product, file))
            with opened as response:
                length = response.headers.get("Content-Length", "")
                if response.status_code != 200 or not length.isdigit():
                    return None
                page = is_page(next(response.iter_content(256), b""), response.headers.get("Content-Type", ""))
                return None if page else int(length)
        except (DataError, requests.RequestException, OSError) as error:
            _LOGGER.info("%s/%s: no size, %s", product.key, file.name, error)
            return None

    def close(self) -> None:
        """Close the connections."""
        self._opener.close()
