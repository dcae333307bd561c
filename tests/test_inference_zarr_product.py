"""The Zarr of a map: one call opens it, with no warning, and everything is there with the types it was made with."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import xarray as xr
from map_files import ABOUT, make_region, make_store

from deepbedmap_tf.inference.options import MapOptions
from deepbedmap_tf.inference.products import write_map


def test_one_call_opens_it(tmp_path: Path) -> None:
    region = make_region(tmp_path)
    store, variables, whole = make_store(tmp_path, region, MapOptions(realisations=2))
    path, _ = write_map(store, region.grid, variables, [tmp_path / "product.zarr"], ABOUT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file = xr.open_zarr(path)
    assert set(file.data_vars) == {*whole, "crs"} and set(file.coords) == {"x", "y", "realization"}
    np.testing.assert_array_equal(file["x"], region.grid.x)
    np.testing.assert_array_equal(file["y"], region.grid.y)
    for name, values in whole.items():
        assert file[name].dtype == values.dtype, name
        np.testing.assert_allclose(file[name], values, rtol=0, atol=0.02, err_msg=name)
    assert file.attrs["Conventions"] == "CF-1.10" and file["bed"].attrs["units"] == "m"
    assert file["bed"].attrs["grid_mapping"] == "crs"
    assert file["crs"].attrs["grid_mapping_name"] == "polar_stereographic"
    assert file["mask"].attrs["flag_meanings"].split()[file["mask"].attrs["flag_values"].index(2)] == "grounded_ice"
    assert file["bed"].attrs["actual_range"][1] == 30000
    assert file["bed"].encoding["chunks"] == (48, 48)
    assert np.isnan(file["bed"].encoding["_FillValue"]) and "_FillValue" not in file["mask"].encoding


def test_metadata_are_consolidated(tmp_path: Path) -> None:
    region = make_region(tmp_path)
    store, variables, _ = make_store(tmp_path, region)
    path, _ = write_map(store, region.grid, variables, [tmp_path / "product.zarr"], ABOUT)
    content = json.loads((path / ".zmetadata").read_text(encoding="utf-8"))["metadata"]
    assert json.loads((path / ".zgroup").read_text(encoding="utf-8")) == {"zarr_format": 2}
    for each in variables:
        assert content[f"{each.name}/.zattrs"]["_ARRAY_DIMENSIONS"] == ["y", "x"]
        assert content[f"{each.name}/.zattrs"]["units" if each.dtype != "int8" else "flag_meanings"]
    # One chunk of the bed has no value in it only if the bed has none there.
    assert len([each for each in (path / "bed").iterdir() if not each.name.startswith(".")]) == 9
