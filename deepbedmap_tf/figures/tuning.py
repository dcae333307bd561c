"""How a search went: its trials one by one, and what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deepbedmap_tf.figures.style import CONFIGURATION, colour_range, round_step, save
from deepbedmap_tf.figures.training import COLOURS


def search_history(
    trials: Sequence[tuple[int, float, str]], best: Sequence[tuple[int, float]], path: Path, title: str
) -> Path:
    """Draw the validation RMSE of every trial and the best so far.

    Parameters
    ----------
    trials
        Number, last validation RMSE (m) and state, ``complete`` or ``pruned``.
    best
        Number and the lowest RMSE (m) of a complete trial until then.
    path
        PNG file to write.
    title
        Says SYNTHETIC where the tiles are.
    """
    import pygmt

    values = [value for _, value, _ in trials]
    # A trial that went far astray must not press all others to the bottom.
    low, high, _ = colour_range([values], 0, 95)
    # Room for the legend.
    margin = 0.05 * (high - low)
    last = max(number for number, _, _ in trials)
    every = max(1.0, round_step(max(last, 1) / 8))
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        figure.basemap(
            region=[-0.5, last + 0.5, low - margin, high + 6 * margin],
            projection="X12c/7c",
            frame=[f"xa{every:g}+lTrial", "yaf+lRMSE on validation blocks (m)", f"WSne+t{title}"],
        )
        for state, colour, symbol in (("pruned", "gray60", "x0.2c"), ("complete", COLOURS[0], "c0.18c")):
            chosen = [(number, min(value, high)) for number, value, each in trials if each == state]
            if chosen:
                x, y = np.array(chosen, float).T
                figure.plot(
                    x=x, y=y, style=symbol, fill=colour, pen=f"0.8p,{colour}", label=state.capitalize(), no_clip=True
                )
        if best:
            # A step where a better one came.
            x, y = np.repeat(np.array(best, float).T, 2, axis=1)
            figure.plot(x=x[1:], y=np.minimum(y[:-1], high), pen=f"1.2p,{COLOURS[1]}", label="Best so far")
        figure.legend(position="JTR+jTR+o0.2c", box="+gwhite+p0.4p,gray60")
    return save(figure, path.with_suffix(""), formats=("png",))[0]


def parameter_importances(shares: Mapping[str, float], path: Path, title: str) -> Path:
    """Draw each parameter's share in how the trials differ.

    Parameters
    ----------
    shares
        By parameter, in all 1.
    path
        PNG file to write.
    title
        Says SYNTHETIC where the tiles are.
    """
    import pygmt

    names = sorted(shares, key=lambda name: shares[name])
    figure = pygmt.Figure()
    with pygmt.config(**CONFIGURATION):
        figure.basemap(
            region=[0, 1.05 * max([*shares.values(), 0.01]), -0.6, len(names) - 0.4],
            projection=f"X10c/{0.7 * len(names) + 0.6}c",
            frame=["xaf+lShare in the differences of validation RMSE", f"wSne+t{title}"],
        )
        for height, name in enumerate(names):
            share = shares[name]
            box = [[0, share, share, 0], [height - 0.35, height - 0.35, height + 0.35, height + 0.35]]
            figure.plot(x=box[0], y=box[1], fill=COLOURS[0], pen="0.4p,gray20", close=True)
            label = {"text": name.replace("_", " "), "font": "8p,Helvetica,black", "no_clip": True}
            figure.text(x=0, y=height, justify="MR", offset="-0.15c/0c", **label)
    return save(figure, path.with_suffix(""), formats=("png",))[0]
