"""What an embedded world is made of: the numbers that, with the generator's version, decide every byte of it."""

from __future__ import annotations

import hashlib
from typing import Annotated, Self

from pydantic import Field, model_validator

from deepbedmap_tf.config import Settings

Bounds = tuple[float, float, float, float]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]

# Raised whenever a world of the same parameters comes out differently, so that no cache serves an old one.
GENERATOR_VERSION = 5


class SurveyBox(Settings):
    """A rectangle flown on a dense grid of lines.

    Attributes
    ----------
    bounds
        Edges (xmin, ymin, xmax, ymax), m in EPSG:3031.
    azimuth
        Direction of the lines, degrees anticlockwise from the x axis: 0 is about along the trunk.
    """

    bounds: Bounds
    azimuth: float = 0.0


class WorldParameters(Settings):
    """Parameters of an embedded world; the defaults are a sector over Thwaites Glacier.

    Attributes
    ----------
    seed
        Seed of everything random.
    bounds
        Edges (xmin, ymin, xmax, ymax) of the sector, m in EPSG:3031, multiples of 1000. Ice flows towards low x.
    bed_coast
        Large-scale bed at the low-x edge, m above the ellipsoid.
    bed_retrograde
        By how much the bed deepens from there inland (retrograde slope), m.
    retrograde_length
        Distance over which it deepens, m; it rises again beyond.
    bed_inland_rise
        Rise from the deepest point to the high-x edge, m.
    highland_height, highland_fraction
        Height of the uplands beside the trunk, m, and the share of the sector they cover.
    trough_depth, trough_width
        Depth, m, and half-width, m, of the main trough; tributaries have 0.6 of both.
    trough_steepness
        Exponent of the trough's cross-section ``exp(-|d / width|**p)``: 2 is rounded, 6 has side walls.
    trough_meander
        Amplitude of the trough's bends, m.
    bed_rms, highland_rms
        Standard deviation of the von Karman relief in the lowland and in the highland, m.
    hurst, highland_hurst
        Hurst exponents of the two reliefs; their spectra fall as ``k**(-2 (hurst + 1))``.
    correlation_length
        Correlation length of the relief, m.
    bedform_rms
        Standard deviation of flow-aligned bedforms where ice slides fast, m.
    bedform_spacing, bedform_length
        Their distance across the flow and correlation length along it, m.
    surface_coast
        Ice thickness above the large-scale bed at the low-x edge, m.
    minimum_thickness
        The bed stays at least so far below the ice surface, m.
    stress_slow, stress_fast
        Driving stress of the plastic profile in the uplands and in the trough, Pa.
    rate_factor
        Rate factor of Glen's law (n = 3) that splits speed into deformation and sliding, Pa-3 yr-1.
    slip_minimum, slip_maximum
        Range of the slip ratio (sliding over deformational surface speed).
    accumulation_coast, accumulation_inland
        Accumulation at both ends of the sector, kg m-2 yr-1.
    inflow
        Ice that enters from the catchment beyond the high-x edge, km3 of ice a year.
    flux_smoothing
        Standard deviation of the Gaussian over which routed flux is spread, m.
    surface_noise, surface_noise_length
        Standard deviation, m, and correlation length, m, of the surface model's error.
    dune_height, crevasse_height
        Standard deviations of surface features that the bed does not cause, m: dunes inland, crevasses in fast flow.
    velocity_noise
        Standard deviation of the error of each velocity component, m yr-1.
    pick_error
        Standard deviation of a pick's error as a share of ice thickness, and ...
    pick_error_line_share
        ... the share of its variance that is correlated along the line (over 3 km); the rest is white.
    old_spacing, old_gaps
        Distance between the lines of the old survey, m, and the share of them that is missing.
    recent_spacing
        Distance between the further lines that only the BedMachine-like product knows, m.
    pick_spacing
        Distance between the picks of the modern surveys, m; four times that in the old one.
    dense_spacing
        Distance between the lines in the dense boxes, m; ten times that between cross lines.
    dense_boxes
        Where the dense surveys are.
    transect
        Corners (x, y) of the flight line to evaluate on; no line if empty.
    """

    seed: int = 1
    bounds: Bounds = (-1_600_000.0, -600_000.0, -1_280_000.0, -400_000.0)
    bed_coast: float = -550.0
    bed_retrograde: NonNegative = 650.0
    retrograde_length: Positive = 150_000.0
    bed_inland_rise: float = 450.0
    highland_height: NonNegative = 700.0
    highland_fraction: Fraction = 0.4
    trough_depth: NonNegative = 450.0
    trough_width: Positive = 34_000.0
    trough_steepness: Annotated[float, Field(ge=1.5, le=10)] = 2.0
    trough_meander: NonNegative = 15_000.0
    bed_rms: NonNegative = 140.0
    highland_rms: NonNegative = 190.0
    hurst: Annotated[float, Field(gt=0, lt=1.5)] = 0.85
    highland_hurst: Annotated[float, Field(gt=0, lt=1.5)] = 0.75
    correlation_length: Positive = 6_000.0
    bedform_rms: NonNegative = 12.0
    bedform_spacing: Positive = 2_500.0
    bedform_length: Positive = 6_000.0
    surface_coast: Positive = 900.0
    minimum_thickness: Positive = 150.0
    stress_slow: Positive = 90_000.0
    stress_fast: Positive = 45_000.0
    rate_factor: Positive = 1.5e-17
    slip_minimum: Positive = 1.0
    slip_maximum: Positive = 300.0
    accumulation_coast: Positive = 900.0
    accumulation_inland: Positive = 350.0
    inflow: NonNegative = 30.0
    flux_smoothing: Positive = 8_000.0
    surface_noise: NonNegative = 0.5
    surface_noise_length: Positive = 300.0
    dune_height: NonNegative = 0.8
    crevasse_height: NonNegative = 0.6
    velocity_noise: NonNegative = 3.0
    pick_error: NonNegative = 0.01
    pick_error_line_share: Fraction = 0.25
    old_spacing: Positive = 4_000.0
    old_gaps: Annotated[float, Field(ge=0, lt=0.9)] = 0.1
    recent_spacing: Positive = 4_500.0
    pick_spacing: Positive = 30.0
    dense_spacing: Positive = 500.0
    dense_boxes: tuple[SurveyBox, ...] = ()
    transect: tuple[tuple[float, float], ...] = ()

    @model_validator(mode="after")
    def _bounds_hold_cells(self) -> Self:
        xmin, ymin, xmax, ymax = self.bounds
        if not (xmin < xmax and ymin < ymax) or any(edge % 1000 for edge in self.bounds):
            raise ValueError("bounds must be xmin < xmax, ymin < ymax, in multiples of 1000 m")
        if min(xmax - xmin, ymax - ymin) < 20_000:
            raise ValueError("a world must be at least 20 km wide and high")
        for box in self.dense_boxes:
            left, bottom, right, top = box.bounds
            if not (xmin <= left < right <= xmax and ymin <= bottom < top <= ymax):
                raise ValueError(f"dense box {list(box.bounds)} does not lie inside the bounds")
        if any(not (xmin < x < xmax and ymin < y < ymax) for x, y in self.transect) or len(self.transect) == 1:
            raise ValueError("the transect needs two or more corners inside the bounds")
        return self

    def digest(self) -> str:
        """Hash of the parameters and the generator's version: the name of the world's folder in the cache."""
        return hashlib.sha256(f"{GENERATOR_VERSION} {self.model_dump_json()}".encode()).hexdigest()[:16]
