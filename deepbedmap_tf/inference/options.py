"""What a map is made with beside the model and the region, chosen on the command line."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from deepbedmap_tf.errors import ConfigError


@dataclass(frozen=True)
class MapOptions:
    """Options of a map; all that they do is off by default.

    Attributes
    ----------
    limit_to_surface
        Lower the bed to the ice surface where it came out above it on grounded ice; `source` says where.
    honour_picks
        Range in metres over which the residual at radar cells is spread, so that the map meets the picks; None for
        no spreading.
    realisations
        Number of realisations in the dimension ``realization``; 0 for a single bed.
    consistent
        Make the mean of every 4 x 4 output cells equal to their low-resolution cell.
    fill_with_coarse_bed
        Where the network gave no bed, for example in blocks with no grounded ice, write the low-resolution bed
        interpolated by cubics; `source` says where.
    seed
        Of everything drawn.

    Raises
    ------
    ConfigError
        For a value that means nothing.
    """

    limit_to_surface: bool = False
    honour_picks: float | None = None
    realisations: int = 0
    consistent: bool = False
    fill_with_coarse_bed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.honour_picks is not None and not (math.isfinite(self.honour_picks) and self.honour_picks > 0):
            raise ConfigError(f"picks are honoured over {self.honour_picks:g} m; expected a range above 0 m")
        if self.realisations < 0:
            raise ConfigError(f"{self.realisations} realisations; expected 0, for a single bed, or more")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the manifest of a run and the metadata of its products."""
        return asdict(self)
