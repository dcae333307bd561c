"""The region files that ship: they are valid, say what they should, and give what the shared data hold."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import DataError
from deepbedmap_tf.grid import ELLIPSOID

FILES = sorted((Path(__file__).resolve().parents[1] / "configs/regions").glob("*.yml"))
Find = Callable[[str], Path]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_region_file_is_valid(file: Path, root: Path) -> None:
    region = load_region(file, root)
    assert region.name == file.stem
    assert region.citations
    assert {"bed_lowres", "surface", "velocity", "accumulation"} <= set(region.settings.inputs)
    assert all(region.settings.inputs[name].vertical_datum for name in ("bed_lowres", "surface"))


def block_means(values: np.ndarray) -> np.ndarray:
    rows, columns = values.shape[0] // 4, values.shape[1] // 4
    blocks = values[: rows * 4, : columns * 4].reshape(rows, 4, columns, 4).swapaxes(1, 2).reshape(rows, columns, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        means = np.nanmean(blocks.astype(np.float64), axis=-1)
    return np.where(np.isfinite(blocks).sum(axis=-1) >= 8, means, np.nan)


@pytest.fixture(scope="module")
def thwaites(root: Path, shared: Find) -> tuple[Region, xr.Dataset]:
    folder = shared("data/thwaites").parent
    with xr.open_dataset(folder / "thwaites/thwaites_1500m.nc", decode_times=False) as dataset:
        return load_region(root / "configs/regions/thwaites_1500m.yml", folder), dataset.isel(
            y=slice(None, None, -1)
        ).load()


def test_thwaites_gets_block_means_of_its_own_bed(thwaites: tuple[Region, xr.Dataset]) -> None:
    region, file = thwaites
    assert region.grid.shape == (292, 252)
    np.testing.assert_array_equal(region.grid.x, file["x"][:252])
    np.testing.assert_array_equal(region.grid.y, file["y"])
    bed = region.inputs()["bed_lowres"].to_numpy()[1:-1, 1:-1]
    np.testing.assert_allclose(bed, block_means(file["bed_msl"].to_numpy()), atol=0.01)


def test_thwaites_has_no_radar_and_says_so(thwaites: tuple[Region, xr.Dataset]) -> None:
    region, file = thwaites
    cells = region.transect("thwaites")
    assert "not radar" in cells.attrs["label"]
    assert len(cells) == int((file["hmask"] == 1).sum())
    at = file["bed_msl"].sel(x=cells["x"].to_xarray(), y=cells["y"].to_xarray())
    np.testing.assert_array_equal(at, cells["bed"])


def test_thwaites_surface_is_that_of_grounded_ice(thwaites: tuple[Region, xr.Dataset]) -> None:
    region, file = thwaites
    inputs = region.inputs()
    surface = inputs["surface"]
    assert np.isfinite(surface).all() and float(surface.min()) > -60 and float(surface.max()) < 3000
    # The field's own thickness would give surfaces far below the bed.
    assert float(file["thickness"].where(file["hmask"] == 1).min()) < -900
    assert 0.3 < float(surface["valid"].mean()) < 0.75
    assert np.isfinite(inputs["velocity"]).all()
    # Metres of ice a year times 917 kg m-3.
    assert float(inputs["accumulation"].min()) > 200 and float(inputs["accumulation"].max()) < 2000


@pytest.fixture(scope="module")
def pine_island(root: Path, shared: Find) -> tuple[Region, xr.Dataset]:
    folder = shared("data/pine_island").parent
    region = load_region(root / "configs/regions/pine_island_500m.yml", folder)
    xmin, ymin, xmax, ymax = region.bounds
    with xr.open_dataset(folder / "pine_island/pine_island_500m.nc", decode_times=False) as dataset:
        return region, dataset.sel(x=slice(xmin, xmax), y=slice(ymax, ymin)).load()


def test_pine_island_gets_block_means_of_surface_minus_thickness(pine_island: tuple[Region, xr.Dataset]) -> None:
    region, file = pine_island
    assert region.grid.shape == (172, 284)
    bed = (file["surface_msl"] - file["thickness"]).to_numpy()
    lowres = region.inputs()["bed_lowres"].to_numpy()[1:-1, 1:-1]
    np.testing.assert_allclose(lowres, block_means(bed), atol=0.01)
    # Half of a cell or more is in the trunk; no bed is made up beyond it.
    assert 0.7 < np.isfinite(lowres).mean() < 0.95
    np.testing.assert_allclose(region.target(), bed, atol=1e-3)


def test_pine_island_picks_are_its_radar_cells(pine_island: tuple[Region, xr.Dataset]) -> None:
    region, file = pine_island
    cells = region.transect("pine_island")
    assert cells.attrs["label"] == "radar"
    radar = file["radar_bed_msl"]
    assert len(cells) == int(np.isfinite(radar).sum())
    np.testing.assert_array_equal(radar.sel(x=cells["x"].to_xarray(), y=cells["y"].to_xarray()), cells["bed"])
    bed = region.reference("mesh").sel(x=cells["x"].to_xarray(), y=cells["y"].to_xarray())
    difference = (bed - cells["bed"]).dropna("index")
    assert difference.size == 9165
    assert float(np.sqrt((difference**2).mean())) == pytest.approx(108.5, abs=0.1)
    assert float(difference.mean()) == pytest.approx(1.6, abs=0.1)


def test_antarctica_covers_the_published_extent(root: Path) -> None:
    region = load_region(root / "configs/regions/antarctica.yml", root)
    assert region.grid.shape == (18_000, 22_000) and region.resolution == 250
    assert all(edge % 1000 == 0 for edge in region.bounds)
    assert region.vertical_datum == ELLIPSOID
    settings = region.settings
    assert settings.inputs["bed_lowres"].vertical_datum == "geoid:EIGEN-GL04C"
    assert {"geoid:EIGEN-GL04C", "geoid:EIGEN-6C4"} == set(settings.geoids)
    assert settings.inputs["surface"].fallback is not None
    assert settings.inputs["velocity"].variables == ("VX", "VY")


def test_every_product_of_antarctica_is_in_the_catalogue(root: Path) -> None:
    from deepbedmap_tf.data.catalog import product_path

    settings = load_region(root / "configs/regions/antarctica.yml", root).settings
    surface = settings.inputs["surface"]
    layers = [*settings.inputs.values(), surface.fallback, *settings.geoids.values(), *settings.references.values()]
    paths = [each.path for each in [*layers, *settings.picks] if each is not None]
    for path in paths:
        product, _, file = path.removeprefix("catalogue:").partition("/")
        assert path.startswith("catalogue:") and product_path(product, file).name == Path(file).name


def test_without_the_products_there_is_one_line(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPBEDMAP_DATA_DIR", str(tmp_path))
    region = load_region(root / "configs/regions/antarctica.yml")
    for ask in (
        lambda: region.inputs((-1500000, -500000, -1460000, -460000)),
        lambda: region.picks("target"),
        lambda: region.transect("thwaites"),
        lambda: region.input_sources,
    ):
        with pytest.raises(DataError, match=r"^catalogue:\S+ is not there: run `deepbedmap fetch \S+`") as error:
            ask()
        assert "\n" not in str(error.value)
