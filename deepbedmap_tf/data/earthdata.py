"""Opening addresses, following their redirections, and logging in to NASA Earthdata on the way.

A password goes to the login host and to no other. A token goes to the login host and to the product's own host, which
is where NASA's servers take it; never to a host that either of them redirects to. Nothing of both is stored or logged.
"""

from __future__ import annotations

import netrc
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from deepbedmap_tf.errors import DataError

if TYPE_CHECKING:
    import requests

LOGIN_URL = "https://urs.earthdata.nasa.gov"
_MAXIMUM_REDIRECTIONS = 20
_TIMEOUT = (20, 120)

Ask = Callable[[str], tuple[str, str]]
"""Asks a person for user name and password of a host."""


@dataclass(frozen=True)
class Credentials:
    """A user's login; never shown.

    Attributes
    ----------
    source
        Where it was found, for messages.
    username, password
        For the login host alone.
    token
        Instead of these, or besides.
    """

    source: str
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


def login_url() -> str:
    """Address of the login host: ``$DEEPBEDMAP_EARTHDATA_URL``, or NASA's."""
    return os.environ.get("DEEPBEDMAP_EARTHDATA_URL") or LOGIN_URL


def find_credentials(ask: Ask | None = None) -> Credentials | None:
    """Look for a login in the environment, then in .netrc, then ask.

    Parameters
    ----------
    ask
        Called last; None where nobody can answer.

    Raises
    ------
    DataError
        When only half of a login is set, or .netrc can't be read.
    """
    username, password, token = (os.environ.get(f"EARTHDATA_{key}") for key in ("USERNAME", "PASSWORD", "TOKEN"))
    if bool(username) != bool(password):
        there, absent = ("USERNAME", "PASSWORD") if username else ("PASSWORD", "USERNAME")
        raise DataError(f"EARTHDATA_{there} is set but EARTHDATA_{absent} is not; set both, or EARTHDATA_TOKEN")
    if username or token:
        return Credentials("the environment", username, password, token)
    host = urlsplit(login_url()).hostname or ""
    path = Path(os.environ.get("NETRC") or Path.home() / ".netrc").expanduser()
    try:
        entry = netrc.netrc(str(path)).authenticators(host) if path.is_file() else None
    except netrc.NetrcParseError as error:
        # Its message quotes the file, which holds passwords.
        raise DataError(f"{path}, line {error.lineno}, is no valid .netrc; mend it or set EARTHDATA_TOKEN") from None
    except (OSError, UnicodeDecodeError):
        raise DataError(f"cannot read {path}; mend it or set EARTHDATA_TOKEN") from None
    if entry is not None:
        return Credentials(str(path), entry[0], entry[2])
    return Credentials("the prompt", *ask(host)) if ask is not None else None


class Opener:
    """Opens addresses; keeps cookies, so that one login serves many files.

    Parameters
    ----------
    ask
        See `find_credentials`; called at most once, and only when a server asks for a login.
    """

    def __init__(self, ask: Ask | None = None) -> None:
        import requests

        self._session = requests.Session()
        # Otherwise requests adds what .netrc has on any host, also on one that a redirection leads to.
        self._session.auth = lambda request: request
        self._ask = ask
        self._found: Credentials | None = None
        self._asked = False

    def open(self, url: str, headers: dict[str, str], login: bool, advice: str) -> requests.Response:
        """Request an address and follow it to its end, streaming.

        Parameters
        ----------
        url
            http or https.
        headers
            Sent to every host on the way.
        login
            Whether the product lies behind the Earthdata login.
        advice
            What to do when the login fails.

        Raises
        ------
        DataError
            When there is no login, it is refused, or redirections lead astray.
        requests.RequestException
            When the connection fails.
        """
        target = url
        for _ in range(_MAXIMUM_REDIRECTIONS):
            at_login = _origin(target) == _origin(login_url())
            if at_login and not login:
                raise DataError(f"{url} unexpectedly asks for a login; {advice}")
            if at_login and self._credentials() is None:
                raise DataError(
                    f"{url} needs a NASA Earthdata login (free, {login_url()}): set EARTHDATA_USERNAME and "
                    f"EARTHDATA_PASSWORD, or EARTHDATA_TOKEN, or write it in ~/.netrc; or {advice}"
                )
            authorised = headers | self._authorisation(target, url, login, at_login)
            response = self._session.get(
                target, headers=authorised, stream=True, allow_redirects=False, timeout=_TIMEOUT
            )
            if at_login and not response.is_redirect:
                response.close()
                source = self._found.source if self._found else "nowhere"
                raise DataError(
                    f"the Earthdata login from {source} was refused (status {response.status_code}); check at "
                    f"{login_url()} that it is right and has approved the data centre's application, or {advice}"
                )
            if not response.is_redirect:
                return response
            response.close()
            target = self._next(target, response.headers["location"], url)
        raise DataError(f"{url} redirects in a circle; check the login at {login_url()}, or {advice}")

    def close(self) -> None:
        """Close the connections and forget the login."""
        self._session.close()
        self._found = None

    def _credentials(self) -> Credentials | None:
        if not self._asked:
            self._found, self._asked = find_credentials(self._ask), True
        return self._found

    def _authorisation(self, target: str, url: str, login: bool, at_login: bool) -> dict[str, str]:
        from requests.auth import _basic_auth_str

        if at_login and self._found is not None and self._found.username and self._found.password:
            return {"Authorization": _basic_auth_str(self._found.username, self._found.password)}
        token = os.environ.get("EARTHDATA_TOKEN")
        # In plain text only where the login itself is, which is a server under test.
        safe = urlsplit(target).scheme in ("https", urlsplit(login_url()).scheme)
        if token and login and safe and (at_login or _origin(target) == _origin(url)):
            return {"Authorization": f"Bearer {token}"}
        return {}

    @staticmethod
    def _next(target: str, location: str, url: str) -> str:
        following = urljoin(target, location)
        if urlsplit(following).scheme not in ("http", "https"):
            raise DataError(f"{url} redirects to something else than http; its address may have changed")
        if urlsplit(target).scheme == "https" and urlsplit(following).scheme == "http":
            raise DataError(f"{url} redirects from https to plain http, which could be anyone's; download it by hand")
        return following


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}.get(parts.scheme)
