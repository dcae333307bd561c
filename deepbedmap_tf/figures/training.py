"""How a run went: skill on the validation blocks and the terms of the loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deepbedmap_tf.figures.style import CONFIGURATION, round_step, save

COLOURS = ("0/114/178", "213/94/0", "0/158/115", "204/121/167")
"""Told apart by colour-blind readers too (Okabe & Ito)."""


def training_curves(history: Sequence[dict[str, float]], path: Path, title: str) -> Path:
    """Draw the validation RMSE beside bicubic's, and the four terms of the loss, against training steps.

    Parameters
    ----------
    history
        Metrics of every epoch with ``step``.
    path
        PNG file to write.
    title
        Says SYNTHETIC where the tiles are.

    Returns
    -------
    pathlib.Path
        The file.
    """
    import pygmt

    step = np.array([entry["step"] for entry in history], float)
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        rmse = np.array([entry["val_rmse"] for entry in history])
        bicubic = np.array([entry["val_bicubic_rmse"] for entry in history])
        top = 1.1 * max(rmse.max(), bicubic.max())
        end = step.max() * 1.02
        figure.basemap(
            region=[0, end, 0, top],
            projection="X12c/6c",
            frame=["xaf+lTraining step", "yaf+lRMSE on validation blocks (m)", f"WSne+t{title}"],
        )
        figure.plot(x=step, y=bicubic, pen="1p,gray40,4_2:0p", label="Bicubic")
        figure.plot(x=step, y=rmse, pen=f"1.2p,{COLOURS[0]}", label="DeepBedMap")
        figure.plot(x=step, y=rmse, style="c0.12c", fill=COLOURS[0])
        figure.legend(position="JTR+jTR+o0.2c", box="+gwhite+p0.4p,gray60")
        figure.shift_origin(yshift="-8c")
        names = [name for name in ("content", "adversarial", "topographic", "structural") if name in history[0]]
        scaled = {name: np.array([entry[name] for entry in history]) / history[0][name] for name in names}
        highest = max([1.0, *(float(values.max()) for values in scaled.values())])
        highest = np.ceil(1.1 * highest / round_step(highest / 10)) * round_step(highest / 10)
        figure.basemap(
            region=[0, end, 0, highest], projection="X12c/6c",
            frame=["xaf+lTraining step", "yaf+lLoss term / its value in the first epoch", "WSne"],
        )  # fmt: skip
        for colour, (name, values) in zip(COLOURS, scaled.items(), strict=False):
            figure.plot(x=step, y=values, pen=f"1.2p,{colour}", label=name.capitalize())
        figure.legend(position="JTR+jTR+o0.2c", box="+gwhite+p0.4p,gray60")
    return save(figure, path.with_suffix(""), formats=("png",))[0]
