"""The STAC item of a map: valid offline, and what it says of files and place is so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
from map_files import ABOUT, make_region, make_store
from pyproj import Transformer
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from shapely.geometry import Point, shape

from deepbedmap_tf.grid import Grid
from deepbedmap_tf.inference.products import write_map
from deepbedmap_tf.inference.stac import footprint


def numbers(size: int) -> dict[str, Any]:
    return {"type": "array", "minItems": size, "maxItems": size, "items": {"type": "number"}}


def extension(address: str, **fields: Any) -> dict[str, Any]:
    """What an extension asks of its fields, for the network is not asked in a test."""
    prefix = next(iter(fields)).partition("_")[0]
    known = {name.replace("_", ":", 1): content for name, content in fields.items()}
    allowed = {
        "type": "object", "properties": known, "patternProperties": {f"^(?!{prefix}:)": {}},
        "additionalProperties": False,
    }  # fmt: skip
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": address,
        "type": "object",
        "required": ["stac_extensions"],
        "properties": {
            "stac_extensions": {"type": "array", "contains": {"const": address}},
            "properties": allowed,
            "assets": {"type": "object", "additionalProperties": allowed},
        },
    }


PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
FILE = "https://stac-extensions.github.io/file/v2.1.0/schema.json"
SCHEMAS = {
    PROJECTION: extension(
        PROJECTION,
        proj_code={"type": "string", "pattern": "^[A-Z]+:[0-9]+$"},
        proj_bbox=numbers(4),
        proj_shape={**numbers(2), "items": {"type": "integer", "minimum": 1}},
        proj_transform=numbers(6),
    ),
    FILE: extension(
        FILE,
        file_size={"type": "integer", "minimum": 0},
        file_checksum={"type": "string", "pattern": "^[a-f0-9]+$"},
    ),
}


@pytest.fixture
def items(tmp_path: Path) -> dict[str, dict[str, Any]]:
    region = make_region(tmp_path)
    store, variables, _ = make_store(tmp_path, region)
    outs = [tmp_path / name for name in ("map.nc", "map.tif", "other.zarr")]
    written = write_map(store, region.grid, variables, outs, ABOUT)
    assert [path.name for path in written] == ["map.nc", "map.tif", "other.zarr", "map.json", "other.json"]
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in written[3:]}


def test_items_are_valid(items: dict[str, dict[str, Any]]) -> None:
    validator = JsonSchemaSTACValidator()
    validator.schema_cache.update(SCHEMAS)
    for content in items.values():
        assert set(content["stac_extensions"]) == {PROJECTION, FILE}
        pystac.validation.validate_dict(content, validator=validator)
        broken = {**content, "properties": {**content["properties"], "proj:shape": [1.5, 2]}}
        with pytest.raises(pystac.STACValidationError):
            pystac.validation.validate_dict(broken, validator=validator)


def test_items_tell_what_the_files_are(items: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    item = pystac.Item.from_dict(items["map"])
    assert item.id == "map" and set(item.assets) == {"netcdf", "cog"} and set(items["other"]["assets"]) == {"zarr"}
    for asset in item.assets.values():
        content = (tmp_path / asset.href).read_bytes()
        assert asset.extra_fields["file:size"] == len(content)
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
    region = make_region(tmp_path / "again")
    projection = ProjectionExtension.ext(item)
    assert projection.code == "EPSG:3031" and tuple(projection.shape or ()) == region.grid.shape
    assert projection.bbox == list(region.bounds)
    assert projection.transform == list(tuple(region.grid.transform)[:6])
    assert item.properties["deepbedmap:model"] == "tiny"


def corners(grid: Grid, share: float) -> list[Point]:
    """Points near the corners of a grid, inside for a share below 1 and outside for one above."""
    xmin, ymin, xmax, ymax = grid.bounds
    centre = np.array([(xmin + xmax) / 2, (ymin + ymax) / 2])
    points = [centre + share * (np.array(each) - centre) for each in ((xmin, ymin), (xmin, ymax), (xmax, ymin))]
    transformer = Transformer.from_crs(grid.crs, "EPSG:4326", always_xy=True)
    return [Point(*transformer.transform(*each)) for each in points]


@pytest.mark.parametrize(
    ("bounds", "kind"),
    [
        ((-1_600_000, -600_000, -1_280_000, -400_000), "Polygon"),
        ((-2_700_000, -2_200_000, 2_800_000, 2_300_000), "Polygon"),
        # Across the antimeridian, which runs along x = 0 south of the pole.
        ((-300_000, -900_000, 200_000, -500_000), "MultiPolygon"),
        ((349_750, -1_000_250, 549_750, -800_250), "Polygon"),
    ],
)
def test_footprints_hold_what_they_should(bounds: tuple[float, float, float, float], kind: str) -> None:
    grid = Grid.from_bounds(bounds, 250)
    geometry, box = footprint(grid)
    outline = shape(geometry)
    assert geometry["type"] == kind and outline.is_valid
    assert all(outline.contains(each) for each in corners(grid, 0.99))
    assert not any(outline.contains(each) for each in corners(grid, 1.01))
    west, south, east, north = box
    assert south < north and -180 <= west <= 180 and -180 <= east <= 180
    assert (west > east) == (kind == "MultiPolygon")
    # Of a map that holds the pole, everything down to the pole.
    assert (south == -90) == (bounds[0] < 0 < bounds[2] and bounds[1] < 0 < bounds[3])
