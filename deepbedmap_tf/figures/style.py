"""What all figures share: fonts, colour maps, ranges of colour, and how a figure is written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import DataError

if TYPE_CHECKING:
    import pygmt

BED_COLOURS = "batlow"
ROUGHNESS_COLOURS = "magma"
DIFFERENCE_COLOURS = "vik"

MARGIN = "+m0.1c"
"""White space around a figure, in GMT's words: cropped to the last letter, the letter looks cut."""
FORMATS = ("png", "pdf")
"""A PNG of 300 dpi to look at and a PDF to print."""

CONFIGURATION = {
    "FONT_ANNOT_PRIMARY": "8p,Helvetica,black",
    "FONT_LABEL": "9p,Helvetica,black",
    "FONT_TITLE": "9p,Helvetica-Bold,black",
    "FONT_ANNOT_SECONDARY": "8p,Helvetica,black",
    "MAP_FRAME_TYPE": "plain",
    "MAP_FRAME_PEN": "0.6p,gray20",
    "MAP_TICK_PEN_PRIMARY": "0.5p,gray20",
    "MAP_TICK_LENGTH_PRIMARY": "2.5p",
    "MAP_LABEL_OFFSET": "4p",
    "MAP_TITLE_OFFSET": "4p",
    "MAP_ANNOT_OFFSET_PRIMARY": "3p",
    "MAP_GRID_PEN_PRIMARY": "0.25p,gray85",
    "FORMAT_FLOAT_OUT": "%.12lg",
    "COLOR_NAN": "gray85",
}
"""GMT settings of every figure."""


def colour_range(arrays: Iterable[ArrayLike], low: float = 1.0, high: float = 99.0) -> tuple[float, float, float]:
    """Range of colour that the bulk of several maps shares, on round numbers.

    Parameters
    ----------
    arrays
        Maps that one colour scale serves; NaN is left out.
    low, high
        Percentiles at the ends.

    Returns
    -------
    tuple
        Start, end and the round step they are multiples of (about a tenth of the range).

    Examples
    --------
    >>> colour_range([[-1480.0, 510.0]], 0, 100)
    (-1600.0, 600.0, 200.0)
    """
    values = np.concatenate([np.ravel(np.asarray(array, dtype=np.float64)) for array in arrays])
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0, 0.1
    start, end = np.percentile(values, [low, high])
    step = round_step(max(end - start, 1e-6 * max(abs(start), 1.0)) / 10)
    first, last = np.floor(start / step) * step, np.ceil(end / step) * step
    return float(first), float(max(last, first + step)), float(step)


def round_step(rough: float) -> float:
    """Next larger number of 1, 2 or 5 times a power of ten."""
    power = 10 ** np.floor(np.log10(rough))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9)))


def save(figure: pygmt.Figure, path: Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write a figure beside its place and rename it.

    Parameters
    ----------
    path
        File without its ending; one file a format is made.

    Raises
    ------
    DataError
        When the disk refuses or GMT fails.
    """
    from pygmt.exceptions import GMTCLibError

    written = []
    for ending in formats:
        target = path.with_name(f"{path.name}.{ending}")
        with written_beside(target) as beside:
            # GMT goes by the ending of the name.
            drawn = beside.with_name(f"{beside.name}.{ending}")
            try:
                figure.savefig(str(drawn), dpi=300, resize=MARGIN, verbose="error")
                drawn.replace(beside)
            except GMTCLibError as error:
                reason = " ".join(str(error).split())[:160]
                raise DataError(
                    f"GMT cannot write {target}: {reason}; see that the disk has room and that Ghostscript is installed"
                ) from error
            finally:
                drawn.unlink(missing_ok=True)
        written.append(target)
    return written
