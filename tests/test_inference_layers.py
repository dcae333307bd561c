"""What stands beside the bed: each variable against numbers known from the region, and blocks against the whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from data_files import ramp, write_netcdf
from map_files import blocks, make_region, make_store, predicted
from scipy.spatial import cKDTree

from deepbedmap_tf.data.region import Region, load_region
from deepbedmap_tf.errors import ConfigError
from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.layers import (
    COARSE_BED,
    FILLED_INPUTS,
    LIMITED,
    NETWORK,
    NO_BED,
    RADAR,
    block_layers,
    variables,
)
from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.pick_index import PickIndex

ALWAYS = ["bed", "surface", "thickness", "source", "coarse_residual"]


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Region:
    return make_region(tmp_path_factory.mktemp("region"))


def layers_of(region: Region, bed: np.ndarray | None = None, **options: object) -> dict[str, np.ndarray]:
    bed = predicted(region) if bed is None else bed
    return block_layers(region, region.grid, bed, MapOptions(**options), PickIndex.of_region(region))


def test_variables_follow_what_the_region_names(region: Region, tmp_path: Path) -> None:
    names = [each.name for each in variables(region, MapOptions())]
    assert names == [
        "bed", "surface", "thickness", "mask", "source", "pick_count", "distance_to_pick", "coarse_residual", "geoid"
    ]  # fmt: skip
    bare = make_region(tmp_path, mask=None, geoids=None, picks=None)
    assert [each.name for each in variables(bare, MapOptions())] == ALWAYS
    assert list(block_layers(bare, bare.grid, predicted(bare), MapOptions(), None)) == ALWAYS
    realised = {each.name: each for each in variables(region, MapOptions(realisations=3))}
    assert realised["bed_realization"].per_realisation and not realised["bed_uncertainty"].per_realisation
    assert realised["bed"].attributes["ancillary_variables"].split() == [
        "bed_uncertainty", "source", "distance_to_pick", "pick_count"
    ]  # fmt: skip


@pytest.mark.parametrize("options", [MapOptions(), MapOptions(limit_to_surface=True, realisations=2)])
def test_blocks_and_the_whole_are_the_same(region: Region, tmp_path: Path, options: MapOptions) -> None:
    import zarr

    store, made, whole = make_store(tmp_path, region, options)
    group = zarr.open_group(str(store), mode="r")
    assert len(blocks(region.grid)) == 9
    for each in made:
        assert whole[each.name].dtype == each.dtype
        stored = np.moveaxis(group[each.name][:], -1, 0) if each.per_realisation else group[each.name][:]
        if each.dtype == "float32":
            # Resampling takes off the mean of a window, so that the last digit of a surface can differ.
            np.testing.assert_allclose(stored, whole[each.name], rtol=0, atol=0.02, err_msg=each.name)
        else:
            np.testing.assert_array_equal(stored, whole[each.name], err_msg=each.name)


def test_surface_and_thickness_follow_the_mask(region: Region) -> None:
    bed = ramp(region.grid, -500)
    layers = layers_of(region, bed)
    np.testing.assert_allclose(layers["surface"], ramp(region.grid, 900), atol=0.02)
    thickness, mask = layers["thickness"], layers["mask"]
    assert sorted(np.unique(mask)) == [0, 1, 2, 3]
    # Eight cells of the file lie west of the region.
    assert (mask[:, :72] == 2).all() and (mask[:, 72:92] == 3).all() and (mask[:, 92:112] == 0).all()
    np.testing.assert_allclose(thickness[mask == 2], 1400, atol=0.02)
    assert np.isnan(thickness[mask == 3]).all()
    assert (thickness[(mask == 0) | (mask == 1)] == 0).all()
    np.testing.assert_allclose(layers["geoid"], -40)


def test_the_bed_is_limited_where_asked_and_grounded(region: Region) -> None:
    bed = predicted(region)
    bed[60:64, 100:104] = 30000
    free = layers_of(region, bed)
    np.testing.assert_array_equal(free["bed"], bed)
    assert (free["thickness"][40:44, 40:48] < -20000).all() and (free["source"][40:44, 40:48] == NETWORK).all()
    options = MapOptions(limit_to_surface=True, realisations=2)
    picks = PickIndex.of_region(region)
    members = np.stack([bed, bed - 60000])
    limited = block_layers(
        region, region.grid, bed, options, picks, realisations=members, uncertainty=np.zeros_like(bed)
    )
    changed = limited["source"] == LIMITED
    assert changed.sum() == 32 and changed[40:44, 40:48].all()
    np.testing.assert_array_equal(limited["bed"][changed], limited["surface"][changed])
    assert (limited["thickness"][changed] == 0).all()
    np.testing.assert_array_equal(limited["bed"][~changed], bed[~changed])
    # Over the ocean there is no ice to be above.
    assert (limited["bed"][60:64, 100:104] == 30000).all()
    np.testing.assert_array_equal(limited["bed_realization"][0][changed], limited["surface"][changed])
    np.testing.assert_array_equal(limited["bed_realization"][1], members[1])
    assert (bed[40:44, 40:48] == 30000).all(), "the array that came in is not touched"


def test_residual_against_the_low_resolution_bed(region: Region) -> None:
    bed = ramp(region.grid, -500)
    bed[8:12, 20:24] += np.arange(16, dtype=np.float32).reshape(4, 4)
    bed[0, 0] = np.nan
    residual = layers_of(region, bed)["coarse_residual"]
    # The mean of a plane over a cell is the plane at its centre, which the low-resolution bed is.
    np.testing.assert_allclose(residual[8:12, 20:24], 7.5, atol=2e-3)
    assert np.isnan(residual[:4, :4]).all()
    residual[:4, :4], residual[8:12, 20:24] = 0, 0
    np.testing.assert_allclose(residual, 0, atol=2e-3)


def test_picks_are_counted_and_measured_to(region: Region) -> None:
    layers = layers_of(region)
    picks = region.picks()
    count = layers["pick_count"]
    assert count.sum() == len(picks) and count.max() == 2
    row, column = np.nonzero(count)
    x, y = np.meshgrid(region.grid.x, region.grid.y)
    expected, _ = cKDTree(np.stack([x[row, column], y[row, column]], -1)).query(np.stack([x, y], -1))
    np.testing.assert_allclose(layers["distance_to_pick"], expected, rtol=1e-6)


def test_source_tells_radar_gaps_and_what_is_not_there(region: Region, tmp_path: Path) -> None:
    honoured = np.zeros(region.grid.shape, bool)
    honoured[0:12, 0:16] = True
    layers = block_layers(
        region, region.grid, predicted(region), MapOptions(), PickIndex.of_region(region), honoured=honoured
    )
    source = layers["source"]
    assert (source[5:9, 9:13] == NO_BED).all() and source[0, 0] == RADAR and source[50, 50] == NETWORK
    other = make_region(tmp_path)
    fine = other.coarse_grid.pad(2).refine(2)
    east = ramp(fine, 10)
    # One velocity cell with no value, in the low-resolution cell of row 10 and column 6.
    east[(10 + 2) * 2, (6 + 2) * 2] = np.nan
    write_netcdf(tmp_path / "velocity.nc", fine, VX=east, VY=ramp(fine, -10))
    filled = other.settings.inputs["velocity"].model_copy(update={"fill": "nearest"})
    other.settings.inputs["velocity"] = filled
    source = layers_of(other, ramp(other.grid, -500))["source"]
    assert (source[40:44, 24:28] == FILLED_INPUTS).all() and (source == FILLED_INPUTS).sum() == 16


def test_the_low_resolution_bed_fills_what_the_network_left_out(region: Region) -> None:
    bed = predicted(region)
    left_out = np.isnan(bed)
    assert left_out.sum() == 16
    layers = layers_of(region, bed, fill_with_coarse_bed=True)
    np.testing.assert_allclose(layers["bed"][left_out], ramp(region.grid, -500)[left_out], atol=0.02)
    np.testing.assert_array_equal(layers["source"] == COARSE_BED, left_out)
    np.testing.assert_array_equal(layers["bed"][~left_out], bed[~left_out])


@pytest.mark.parametrize(
    ("values", "message"), [({"honour_picks": -1.0}, "range above 0 m"), ({"realisations": -2}, "-2 realisations")]
)
def test_options_that_mean_nothing(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MapOptions(**values)


def test_byrd_carries_what_its_files_hold(root: Path, shared: Callable[[str], Path]) -> None:
    folder = shared("data/byrd").parent
    region = load_region(root / "configs/regions/byrd.yml", folder)
    bounds = (349750, -900250, 449750, -800250)
    grid = region.grid.window(bounds)
    with xr.open_dataset(folder / "byrd/BedMachineAntarctica_v3.4_byrd.nc") as file:
        file = file.isel(y=slice(0, 200), x=slice(0, 200)).load()
    bed = region.reference("bedmachine", bounds).to_numpy()
    picks = PickIndex.of_region(region)
    layers = block_layers(region, grid, bed, MapOptions(), picks)
    np.testing.assert_array_equal(layers["mask"], file["mask"])
    np.testing.assert_allclose(layers["geoid"], file["geoid"])
    # The surface is the snow's; the file's is of ice alone.
    np.testing.assert_allclose(layers["surface"], file["surface"] + file["firn"], atol=100)
    assert abs(float((layers["surface"] - file["surface"] - file["firn"]).mean())) < 0.1
    inside = region.picks()
    inside = inside[inside["x"].between(bounds[0], bounds[2]) & inside["y"].between(bounds[1], bounds[3])]
    assert layers["pick_count"].sum() == inside["pick_count"].sum() > 1000
    assert Grid.of(region.mask(bounds)).same_cells(grid)
