"""Radar picks gridded as in Leong & Horgan (2020): block median, splines in tension, a mask, pixel registration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import ndimage

from deepbedmap_tf.data.resampling import sample
from deepbedmap_tf.errors import DataError, GridError
from deepbedmap_tf.grid import Grid


def block_median(picks: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """Reduce picks to the median place and median bed of each cell of a grid.

    Parameters
    ----------
    picks
        Table with ``x``, ``y`` and ``bed``.
    grid
        Its cells are the blocks; picks outside are left out.

    Returns
    -------
    pandas.DataFrame
        Columns x, y, bed, float64.
    """
    import pygmt

    inside = _inside(picks, grid)
    if not len(inside):
        raise DataError(
            f"none of {len(picks)} picks lies within {[round(edge) for edge in grid.bounds]}; "
            "check the bounds of the region and the picks' coordinates"
        )
    reduced: pd.DataFrame = pygmt.blockmedian(
        data=inside[["x", "y", "bed"]].astype(np.float64),
        spacing=grid.resolution,
        region=_gmt_region(grid),
        registration="p",
    )
    reduced.columns = ["x", "y", "bed"]
    return reduced


def grid_picks(
    picks: pd.DataFrame, grid: Grid, *, tension: float = 0.35, mask_cells: float = 3.0, label: str = "radar"
) -> xr.DataArray:
    """Grid the bed of picks.

    Parameters
    ----------
    picks
        Table with ``x``, ``y`` and ``bed`` in metres, on the datum of `grid`.
    grid
        Cells of the result.
    tension
        Tension of the splines (Smith & Wessel 1990) within and at the edges.
    mask_cells
        Cells further than so many cell sides from the nearest cell with a pick are NaN.
    label
        What the result is, kept in its attributes.

    Returns
    -------
    xarray.DataArray
        float32, pixel registration; coordinate ``measured`` (rows, columns) is True where a cell holds a pick.

    Raises
    ------
    DataError
        When no pick lies within the grid.
    GridError
        When GMT's grid is not the one asked for, or is shifted against the picks.
    """
    import pygmt

    medians = block_median(picks, grid)
    gridded = pygmt.surface(
        data=medians,
        spacing=grid.resolution,
        region=_gmt_region(grid),
        registration="p",
        tension=tension,
        verbose="q",
        # On its own GMT widens a region whose sides have few common factors, and its pixels come back half a cell off.
        Q="r",
    )
    surface = _as_north_up(gridded, grid)
    measured = np.zeros(grid.shape, bool)
    row, column = cells_of(medians, grid)
    measured[row, column] = True
    near = ndimage.distance_transform_edt(~measured) <= mask_cells + 1e-9
    check_registration(surface, medians)
    values = np.where(near, np.asarray(surface), np.nan).astype(np.float32)
    result = grid.dataarray(values, "bed", "m", label=label)
    return result.assign_coords(measured=(("y", "x"), measured))


def count_picks(picks: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Count the picks of every cell; a table of cell means brings its own counts as ``pick_count``.

    Returns
    -------
    numpy.ndarray
        Shape of the grid, float64.
    """
    inside = _inside(picks, grid)
    weights = inside["pick_count"].fillna(1.0).to_numpy() if "pick_count" in inside else None
    return _sums(inside, grid, weights)


def mean_of_cells(picks: pd.DataFrame, grid: Grid) -> np.ndarray:
    """Mean bed of the picks of every cell, metres, NaN where there is none."""
    inside = _inside(picks, grid)
    counts = _sums(inside, grid, None)
    means: np.ndarray = np.full(grid.shape, np.nan)
    np.divide(_sums(inside, grid, inside["bed"].to_numpy()), counts, out=means, where=counts > 0)
    return means


def _sums(points: pd.DataFrame, grid: Grid, weights: np.ndarray | None) -> np.ndarray:
    cell = np.ravel_multi_index(cells_of(points, grid), grid.shape)
    total: np.ndarray = np.bincount(cell, weights, minlength=grid.shape[0] * grid.shape[1]).astype(np.float64)
    return total.reshape(grid.shape)


def check_registration(surface: xr.DataArray, medians: pd.DataFrame) -> None:
    """Refuse a gridded surface that fits its own data better after a shift by half a cell.

    A grid taken for pixel registered while its values stand on the corners of the cells is off by half a cell in x
    and y. Interpolated linearly (without GMT) to the places of the data, the surface must fit best unshifted.

    Raises
    ------
    GridError
        When a shift of half a cell makes the misfit more than a tenth smaller.
    """
    half = Grid.of(surface).resolution / 2
    x, y, bed = (medians[name].to_numpy() for name in ("x", "y", "bed"))

    def misfit(east: float, north: float) -> float:
        difference = sample(surface, x + east, y + north) - bed
        return float(np.sqrt(np.nanmean(difference**2))) if np.isfinite(difference).any() else np.inf

    unshifted = misfit(0, 0)
    for east in (-half, half):
        for north in (-half, half):
            # Millimetres are the rounding of float32, not a shift.
            if misfit(east, north) < 0.9 * unshifted - 1e-3:
                raise GridError(
                    f"the gridded surface fits its picks better when moved by ({east:g}, {north:g}) m: "
                    "it is not pixel registered; check the registration handed to GMT"
                )


def _gmt_region(grid: Grid) -> list[float]:
    xmin, ymin, xmax, ymax = grid.bounds
    return [xmin, xmax, ymin, ymax]


def cells_of(points: pd.DataFrame, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the cell of each point; points on the far edges count to the last cells."""
    xmin, _, _, ymax = grid.bounds
    column = np.floor((points["x"].to_numpy() - xmin) / grid.resolution).astype(int)
    row = np.floor((ymax - points["y"].to_numpy()) / grid.resolution).astype(int)
    return np.clip(row, 0, grid.shape[0] - 1), np.clip(column, 0, grid.shape[1] - 1)


def _inside(picks: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    xmin, ymin, xmax, ymax = grid.bounds
    return picks.loc[picks["x"].between(xmin, xmax) & picks["y"].between(ymin, ymax) & picks["bed"].notna()]


def _as_north_up(gridded: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Check that GMT's cells are those asked for and turn them into rows from north to south."""
    if gridded.gmt.registration != 1:
        raise GridError("GMT returned a gridline-registered grid, expected pixel registration")
    surface = gridded.sortby("y", ascending=False)
    surface.attrs = {"crs": grid.crs}
    if not Grid.of(surface).same_cells(grid):
        raise GridError(
            f"GMT returned a grid of {surface.shape} within {Grid.of(surface).bounds}, "
            f"expected {grid.shape} within {grid.bounds}"
        )
    return surface
