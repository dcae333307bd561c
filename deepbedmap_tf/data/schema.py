"""What a region file may hold (``configs/regions/*.yml``), checked key by key."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from deepbedmap_tf.config import Settings
from deepbedmap_tf.data.holdout import ALL, HoldoutSettings
from deepbedmap_tf.data.rasters import canonical_units
from deepbedmap_tf.data.resampling import FillRule, Method
from deepbedmap_tf.grid import VERTICAL_DATUMS

Box = tuple[float, float, float, float]
Positive = Annotated[float, Field(gt=0)]


class LayerSettings(Settings):
    """A raster that serves another one: a geoid, or a layer added to heights.

    Attributes
    ----------
    path
        File, relative to ``--data-dir``; ``{world}/...`` is a file of the embedded world.
    variable
        NetCDF variable, or band number of a GeoTIFF.
    nodata
        Values that mean "no data" and that the file does not name.
    crs
        CRS of a file that does not state it.
    model
        Geoid layers only: which geoid it is. By default the vertical datum of what it stands beside.
    """

    path: str
    variable: str | None = None
    nodata: tuple[float, ...] = ()
    crs: str | None = None
    model: str | None = None


class MaskSettings(Settings):
    """Which cells of a raster count, by a variable of the same file.

    Attributes
    ----------
    variable
        The variable, or band number.
    keep
        Its values where the raster is valid; it is invalid elsewhere.
    """

    variable: str
    keep: Annotated[tuple[float, ...], Field(min_length=1)]


class RasterSettings(Settings):
    """Where a field comes from and how it reaches the network's grid.

    Attributes
    ----------
    path, variable, variables, nodata, crs
        As in `LayerSettings`; several variables become bands.
    kind
        ``raster``; ``nodes``: values at scattered nodes, interpolated linearly inside their hull and taken from
        the nearest node outside; ``outline``: polygons of a shapefile, 1 in cells whose centre is inside, 0 outside.
    x, y
        Coordinate variables of the nodes.
    mean_over
        Dimensions of a NetCDF, such as time, that the values are averaged over.
    add
        Layers added to the variable, for example firn and geoid: names of variables of the same file, or layers
        of their own.
    subtract
        The same, taken off: a bed of which only surface and thickness are given.
    mask
        Cells that count, before anything is added or taken off.
    valid_range
        Lowest and highest value that is possible, after `add` and `subtract`; the rest is invalid.
    units
        Units of the result; `source_units` those of the file (by default the same), `scale` turns one into the other.
    vertical_datum
        Datum of the heights after `add`; left out for other fields.
    geoid
        Layer with the height of the geoid above the WGS84 ellipsoid, for the conversion to the region's datum.
    resampling
        nearest, bilinear, cubic or average.
    fill, fill_limit
        Rule for invalid cells (none, nearest, zero) and the distance in metres up to which it is used.
    fallback
        Raster that gaps are taken from before any filling.
    label
        What the field is, for tables and metadata.
    """

    path: str
    variable: str | None = None
    variables: tuple[str, ...] = ()
    nodata: tuple[float, ...] = ()
    crs: str | None = None
    kind: Literal["raster", "nodes", "outline"] = "raster"
    x: str = "x_ps"
    y: str = "y_ps"
    mean_over: tuple[str, ...] = ()
    add: tuple[str | LayerSettings, ...] = ()
    subtract: tuple[str | LayerSettings, ...] = ()
    mask: MaskSettings | None = None
    valid_range: tuple[float, float] | None = None
    units: str = "m"
    source_units: str | None = None
    scale: float = 1.0
    vertical_datum: str | None = None
    geoid: LayerSettings | None = None
    resampling: Method = "bilinear"
    fill: FillRule = "none"
    fill_limit: Positive | None = None
    fallback: RasterSettings | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> RasterSettings:
        if self.variable and self.variables:
            raise ValueError("give `variable` or `variables`, not both")
        if self.vertical_datum is not None and self.vertical_datum not in VERTICAL_DATUMS:
            raise ValueError(f"vertical_datum {self.vertical_datum!r} is not one of {', '.join(VERTICAL_DATUMS)}")
        other = self.source_units is not None and canonical_units(self.source_units) != canonical_units(self.units)
        if other and "scale" not in self.model_fields_set:
            raise ValueError(
                f"source_units {self.source_units!r} are not units {self.units!r}; state `scale`, the factor between "
                "them (1 if they are two words for the same)"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Variables to read."""
        return self.variables or ((self.variable,) if self.variable else ())


class FlagSettings(Settings):
    """Values of a raster that stand for one flag of the mask.

    Attributes
    ----------
    flag
        0 ocean, 1 ice-free land, 2 grounded ice, 3 floating ice, 4 Lake Vostok: the flags of BedMachine.
    low, high
        Values from `low` up to, but not including, `high`.
    """

    flag: Annotated[int, Field(ge=0, le=4)]
    low: float = float("-inf")
    high: float = float("inf")


class CoverSettings(RasterSettings):
    """What covers the bed: a raster of BedMachine's flags, or one whose values are turned into them.

    Attributes
    ----------
    flags
        Flags by value, the first that fits; a value that none fits is unknown. Left out where the raster holds the
        flags themselves.
    resampling
        Flags are taken from the nearest cell; nothing else makes sense.
    """

    flags: tuple[FlagSettings, ...] = ()
    units: str = "1"
    resampling: Literal["nearest"] = "nearest"


class PicksSettings(Settings):
    """A file of radar picks.

    Attributes
    ----------
    path, format
        File and its form: cresis, bedmap, rutford, wise_isodyn, pine_island, carlson, cells, xyz (see
        `deepbedmap_tf.data.picks`), or raster: every valid cell of a gridded file counts as a pick.
    crs
        For ``cells`` and ``xyz``: CRS of x and y, by default the region's. The other formats promise theirs.
    max_quality
        Leave out picks of a worse QUALITY (1 good, 2 moderate, 3 bad) or of none; by default all are used.
    variable, mask
        For ``raster``: as in `RasterSettings`.
    label
        What tables and figures call them; radar by default.
    name
        Name that transects refer to; by default the file's name without its ending.
    role
        What the picks are for: ``target`` (trained on), ``score`` (measured against), or any other word.
    vertical_datum, geoid
        Datum of the heights in the file and the layer that converts them. Formats that promise a datum need no
        `vertical_datum`, and files of ``cells`` hold no heights.
    surface
        For ``cells``: input that gives the snow surface, or a raster of its own.
    """

    path: str
    format: Literal["cresis", "bedmap", "rutford", "wise_isodyn", "pine_island", "carlson", "cells", "xyz", "raster"]
    crs: str | None = None
    max_quality: Annotated[int, Field(ge=1, le=3)] | None = None
    variable: str | None = None
    mask: MaskSettings | None = None
    label: str = "radar"
    name: str | None = None
    role: str = "target"
    vertical_datum: str | None = None
    geoid: LayerSettings | None = None
    surface: str | RasterSettings = "surface"


class TargetSettings(Settings):
    """The bed that is learned from.

    Attributes
    ----------
    kind
        ``picks``: the picks of role ``target``, gridded. ``raster``: a gridded product, said to be pseudo-truth.
    label
        What the target is called in metadata.
    tension, mask_cells
        Gridding of picks: tension of the splines, reach of a pick in cells.
    raster
        The product, for ``kind: raster``. Its keys may also stand directly under ``target``.
    radar
        For ``kind: raster`` and sparse supervision: name of the picks that are laid over the product.
    count_scale
        Sparse supervision weighs a cell with n picks by n / (n + count_scale), the inverse of an error of which one
        part is common to all picks of a cell and one part averages out.
    unmeasured_weight
        Weight, in sparse supervision, of the cells that have a bed but no pick: between flight lines, or of the
        product.
    """

    kind: Literal["picks", "raster"]
    label: str | None = None
    tension: Annotated[float, Field(ge=0, lt=1)] = 0.35
    mask_cells: Positive = 3.0
    raster: RasterSettings | None = None
    radar: str | None = None
    count_scale: Annotated[float, Field(ge=0)] = 2.0
    unmeasured_weight: Annotated[float, Field(ge=0, le=1)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _raster_keys_may_be_flat(cls, content: Any) -> Any:
        if not isinstance(content, dict) or content.get("kind") != "raster" or "raster" in content:
            return content
        own = {key: value for key, value in content.items() if key in cls.model_fields}
        return {**own, "raster": {key: value for key, value in content.items() if key not in own}}

    @model_validator(mode="after")
    def _raster_is_there(self) -> TargetSettings:
        if (self.kind == "raster") != (self.raster is not None):
            raise ValueError(f"kind {self.kind} {'needs' if self.kind == 'raster' else 'takes no'} raster")
        return self


class TransectSettings(Settings):
    """Picks along which maps are compared.

    Attributes
    ----------
    picks
        Name or path of a picks entry.
    bounds
        Only picks in this box.
    segment
        Only picks of this flight and segment.
    within
        ``holdout``: only picks in the areas held out for testing; or the name of one of these areas.
    order
        ``track``: in the order of the file; ``principal``: along the direction in which the picks extend most.
    title
        Name for figures.
    """

    picks: str
    bounds: Box | None = None
    segment: str | None = None
    within: str | None = None
    order: Literal["track", "principal"] = "track"
    title: str | None = None


class TilingSettings(Settings):
    """Complete tiles that suit a region; what is given here replaces the configuration's ``data``.

    Sparse supervision is a choice of the configuration and keeps what that says.

    Attributes
    ----------
    tile_size, stride, block_size, buffer, validation_fraction, max_tiles
        As in `deepbedmap_tf.config.DataConfig`.
    """

    tile_size: Annotated[int, Field(ge=9)] | None = None
    stride: Annotated[int, Field(ge=1)] | None = None
    block_size: Annotated[int, Field(ge=1)] | None = None
    buffer: Annotated[int, Field(ge=0)] | None = None
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    max_tiles: Annotated[int, Field(ge=1)] | None = None


class RegionSettings(Settings):
    """A region file.

    Attributes
    ----------
    name, title
        Short name for files, long one for figures and metadata.
    synthetic
        True for an embedded world: all that is made from it says SYNTHETIC.
    world
        Parameters of the embedded world.
    resolution
        Side of an output cell in metres; low-resolution cells are four times as large.
    crs
        Of the region and all its rasters.
    vertical_datum
        Datum of the bed and the surface that the network sees and predicts.
    bounds
        Edges of the region.
    citations
        Sources to name wherever results are shown.
    inputs
        One raster an input of the network.
    geoids
        Geoid layers by datum, for all that have none of their own.
    geoid
        Which of them a map carries beside the bed; by default that of `vertical_datum`, or else the first of
        geoid:EIGEN-6C4 and geoid:EIGEN-GL04C that is there.
    mask
        What covers the bed, a raster or several of which the first that knows a cell counts; left out: not known.
    picks, target, references, transects, holdout, tiling
        As the settings of those names.
    """

    name: Annotated[str, Field(pattern=r"^\w[\w .+-]*$")]
    title: str
    synthetic: bool = False
    world: dict[str, Any] | None = None
    resolution: Positive = 250.0
    crs: str = "EPSG:3031"
    vertical_datum: str = VERTICAL_DATUMS[0]
    bounds: Box
    citations: tuple[str, ...] = ()
    inputs: dict[str, RasterSettings]
    geoids: dict[str, LayerSettings] = Field(default_factory=dict)
    geoid: str | None = None
    mask: tuple[CoverSettings, ...] = ()
    picks: tuple[PicksSettings, ...] = ()
    target: TargetSettings
    references: dict[str, RasterSettings] = Field(default_factory=dict)
    transects: dict[str, TransectSettings] = Field(default_factory=dict)
    holdout: HoldoutSettings = HoldoutSettings()
    tiling: TilingSettings = TilingSettings()

    @field_validator("mask", mode="before")
    @classmethod
    def _one_raster_or_several(cls, content: Any) -> Any:
        return (content,) if isinstance(content, dict) else content

    @model_validator(mode="after")
    def _fits(self) -> RegionSettings:
        if self.vertical_datum not in VERTICAL_DATUMS:
            raise ValueError(f"vertical_datum {self.vertical_datum!r} is not one of {', '.join(VERTICAL_DATUMS)}")
        if self.geoid is not None and self.geoid not in self.geoids:
            raise ValueError(f"geoid {self.geoid!r} is none of `geoids`: {', '.join(self.geoids) or 'none'}")
        if self.synthetic != (self.world is not None):
            raise ValueError("an embedded world has both `synthetic: true` and `world`, any other region neither")
        if "bed_lowres" not in self.inputs:
            raise ValueError("`inputs` must name bed_lowres")
        xmin, ymin, xmax, ymax = self.bounds
        if xmin >= xmax or ymin >= ymax:
            raise ValueError(f"bounds {list(self.bounds)} are empty; expected [xmin, ymin, xmax, ymax]")
        components = [name.lower()[-1:] for name in self.inputs["velocity"].names] if "velocity" in self.inputs else []
        if components == ["y", "x"]:
            raise ValueError(f"velocity takes the component along x first, got {list(self.inputs['velocity'].names)}")
        self.holdout.require_within(self.bounds)
        for name, transect in self.transects.items():
            areas = (ALL, *self.holdout.extents)
            if transect.within is not None and transect.within not in areas:
                raise ValueError(f"transect {name!r} is within {transect.within!r}; areas are: {', '.join(areas)}")
        return self
