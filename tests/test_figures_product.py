import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from deepbedmap_tf.cli import main
from deepbedmap_tf.figures import product as module
from deepbedmap_tf.figures.product import draw_product, product_fields
from deepbedmap_tf.scoring.roughness import roughness


@pytest.fixture
def fine():
    """A map whose low-resolution bed is known."""
    rng = np.random.default_rng(0)
    rows, columns, cell = 48, 64, 250.0
    lowres = rng.normal(-500, 200, (rows // 4, columns // 4)).astype(np.float32)
    bed = lowres.repeat(4, 0).repeat(4, 1) + rng.normal(0, 30, (rows, columns)).astype(np.float32)
    means = bed.reshape(rows // 4, 4, columns // 4, 4).mean(axis=(1, 3))
    residual = (means - lowres).repeat(4, 0).repeat(4, 1)
    axes = {"y": 1000 - cell * (np.arange(rows) + 0.5), "x": cell * (np.arange(columns) + 0.5)}
    layers = {"bed": bed, "coarse_residual": residual, "distance_to_pick": np.hypot(*np.indices(bed.shape)) * cell}
    dataset = xr.Dataset({name: (("y", "x"), values) for name, values in layers.items()}, axes, {"title": "A map"})
    dataset["bed"].attrs["vertical_datum"] = "geoid:EIGEN-6C4"
    return dataset, lowres


def test_the_low_resolution_bed_is_found_again_on_its_own_cells(fine, tmp_path):
    dataset, lowres = fine
    fields = product_fields(dataset.chunk({"y": 20, "x": 20}), tmp_path)
    np.testing.assert_allclose(fields["bed_lowres"], lowres, atol=1e-3)
    assert fields["bed_lowres"]["x"].values[0] == 500
    np.testing.assert_array_equal(fields["bed"], dataset["bed"])


def test_roughness_does_not_depend_on_the_chunks(fine, tmp_path):
    dataset, _ = fine
    fields = product_fields(dataset.chunk({"y": 7, "x": 11}), tmp_path)
    np.testing.assert_allclose(fields["roughness"], roughness(dataset["bed"].to_numpy()), rtol=1e-5)


def test_a_large_map_is_drawn_as_means(fine, tmp_path, monkeypatch):
    dataset, lowres = fine
    monkeypatch.setattr(module, "MOST_CELLS", 20)
    fields = product_fields(dataset.chunk({"y": 16, "x": 16}), tmp_path)
    assert fields["bed"].shape == fields["roughness"].shape == fields["bed_lowres"].shape == (12, 16)
    np.testing.assert_allclose(fields["bed_lowres"], lowres, atol=1e-3)
    np.testing.assert_allclose(fields["bed"][0, 0], dataset["bed"][:4, :4].mean(), rtol=1e-5)


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_the_command_draws_both_formats_beside_the_map(fine, tmp_path, ending):
    dataset, _ = fine
    path = tmp_path / f"bed.{ending}"
    if ending == "nc":
        dataset.to_netcdf(path)
    else:
        dataset.to_zarr(path, zarr_format=2, consolidated=True)
    result = CliRunner().invoke(main, ["draw", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output.strip() == str(tmp_path / "bed.png")
    assert (tmp_path / "bed.png").read_bytes().startswith(b"\x89PNG")


def test_the_spread_of_the_error_goes_before_the_distance(fine, tmp_path):
    dataset, _ = fine
    dataset["bed_uncertainty"] = dataset["bed"] * 0 + 20
    dataset.to_netcdf(tmp_path / "bed.nc")
    assert [path.name for path in draw_product(tmp_path / "bed.nc", tmp_path / "figure", ("png", "pdf"))] == [
        "figure.png",
        "figure.pdf",
    ]


def test_what_is_no_map_is_refused_in_one_line(fine, tmp_path):
    dataset, _ = fine
    dataset[["bed"]].to_netcdf(tmp_path / "bed_alone.nc")
    (dataset * np.nan).to_netcdf(tmp_path / "empty.nc")
    (tmp_path / "text.nc").write_text("no map")
    for name, words in {
        "bed_alone.nc": "has no variable 'coarse_residual'",
        "empty.nc": "unknown throughout",
        "text.nc": "can't be read as NetCDF or Zarr",
        "none.nc": "does not exist",
    }.items():
        result = CliRunner().invoke(main, ["draw", str(tmp_path / name)])
        assert result.exit_code == 2
        assert words in result.output and len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.glob("*.png"))
