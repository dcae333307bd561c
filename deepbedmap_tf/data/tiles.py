"""Co-located windows of inputs and bed, kept in a Zarr store that says what it was made from."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from deepbedmap_tf import __version__
from deepbedmap_tf.config import DEFAULT_INPUTS, DataConfig, InputConfig
from deepbedmap_tf.data.cache import digest, written_beside
from deepbedmap_tf.data.consistency import require_surface_above_bed
from deepbedmap_tf.data.cutting import TilePlan, cut_tiles, phases, plan_tiles, shifted, with_data
from deepbedmap_tf.data.region import MARGIN, SCALE, Region
from deepbedmap_tf.data.split import DROPPED, SPLITS
from deepbedmap_tf.errors import ConfigError, DataError

_LOGGER = logging.getLogger(__name__)

# Raised whenever the same region and settings give other tiles, so that no old store is taken for a new one.
STORE_VERSION = 3
_CHUNK = 64
_SOFTWARE = ("numpy", "scipy", "xarray", "rasterio", "pygmt", "zarr")


@dataclass(frozen=True)
class Tiles:
    """Tiles in memory, float32, channels last.

    Attributes
    ----------
    inputs
        By name: shape (tiles, rows, columns, bands), with the margin of one low-resolution cell; NaN where invalid.
    bed
        Shape (tiles, 4 h, 4 w, 1), without margin.
    split
        0 training, 1 validation, 2 test.
    x, y
        Upper-left corner of the bed window, metres, float64.
    attrs
        Where the tiles come from.
    valid
        By name: shape (tiles, rows, columns), True where the input was valid before any filling.
    weight
        For sparse supervision: shape (tiles, 4 h, 4 w, 2), what each cell counts, and the same for cells with radar
        alone; 0 where the bed is not to be measured on.
    """

    inputs: dict[str, np.ndarray]
    bed: np.ndarray
    split: np.ndarray
    x: np.ndarray
    y: np.ndarray
    attrs: dict[str, Any]
    valid: dict[str, np.ndarray] = field(default_factory=dict)
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.bed.shape[0])

    def take(self, index: np.ndarray | slice) -> Tiles:
        """Return the tiles of an index array, a mask or a slice."""
        return replace(
            self,
            inputs={name: values[index] for name, values in self.inputs.items()},
            valid={name: values[index] for name, values in self.valid.items()},
            weight=None if self.weight is None else self.weight[index],
            **{name: getattr(self, name)[index] for name in ("bed", "split", "x", "y")},
        )

    def select(self, split: str | int) -> Tiles:
        """Return the tiles of one split: ``train``, ``validation`` or ``test``, or its number."""
        return self.take(self.split == (SPLITS[split] if isinstance(split, str) else split))

    @staticmethod
    def concatenate(parts: Sequence[Tiles]) -> Tiles:
        """Join the tiles of several regions; ``attrs["parts"]`` keeps where each came from.

        Raises
        ------
        DataError
            When they have other inputs or another tile size.
        """
        if len(parts) == 1:
            return parts[0]
        shapes = [{"bed": p.bed.shape[1:], **{name: a.shape[1:] for name, a in p.inputs.items()}} for p in parts]
        if any(shape != shapes[0] for shape in shapes):
            raise DataError("tiles of other shapes or inputs can't be joined; prepare them with the same configuration")
        weights = [part.weight for part in parts if part.weight is not None]
        if weights and len(weights) < len(parts):
            raise DataError("tiles with and without weights can't be joined; prepare them with one data.supervision")
        names = ("bed", "split", "x", "y")
        joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        valid = [name for name in parts[0].valid if all(name in part.valid for part in parts)]
        return Tiles(
            inputs={name: np.concatenate([part.inputs[name] for part in parts]) for name in parts[0].inputs},
            valid={name: np.concatenate([part.valid[name] for part in parts]) for name in valid},
            attrs={
                "synthetic": any(part.attrs.get("synthetic", False) for part in parts),
                "leak_fraction": max(part.attrs.get("leak_fraction", 0.0) for part in parts),
                "parts": [part.attrs for part in parts],
            },
            weight=np.concatenate(weights) if weights else None,
            **joined,
        )


def prepare_tiles(
    region: Region,
    data_config: DataConfig,
    out_path: Path | str,
    seed: int,
    progress: bool = True,
    inputs: Sequence[InputConfig] = DEFAULT_INPUTS,
    teach: Callable[[], np.ndarray] | None = None,
) -> Path:
    """Cut a region into tiles and store them; a store that is already there for the same data is kept.

    Parameters
    ----------
    region
        Where the data come from.
    data_config
        Tile size, stride, split.
    out_path
        Zarr store to write. It appears complete or not at all, and replaces another one of that name.
    seed
        Of the split and of the choice when `data_config.max_tiles` limits the tiles.
    progress
        Show a progress bar.
    inputs
        Inputs of the network.
    teach
        Makes the bed, shape of the region's grid, m, that is learned with `data_config.regression_weight` where the
        training cells have no radar (`training.teaching.teacher`); called only when the tiles are not there yet.

    Returns
    -------
    pathlib.Path
        The store.

    Raises
    ------
    ConfigError
        When `data_config` gives weight to a bed that nobody teaches.
    DataError
        When the region has no complete window, or the store can't be written.
    """
    if data_config.regression_weight and teach is None:
        raise ConfigError(
            f"data.regression_weight is {data_config.regression_weight:g} but there is no regression to learn from; "
            "set it to 0, or pass `teach`"
        )
    out_path = Path(out_path)
    provenance = region.provenance()
    data_config = region.tiling(data_config)
    made_from = {
        "version": STORE_VERSION,
        "provenance": provenance,
        # Which regions are listed and how tiles are augmented later doesn't change a tile.
        "data": data_config.model_dump(mode="json", exclude={"regions", "augment"}),
        "inputs": [each.model_dump(mode="json") for each in inputs],
        "seed": seed,
    }
    fingerprint = digest(made_from)
    stored = _stored_fingerprint(out_path)
    if out_path.exists() and stored is None:
        # Replacing means removing, so only what is known to be a tile store is replaced.
        raise DataError(f"{out_path} exists and is no tile store; choose another name, or remove it first")
    if stored == fingerprint:
        _LOGGER.info("%s holds these tiles already", out_path)
        return out_path
    target = region.weighted_target() if data_config.supervision == "sparse" else region.target()
    plan = plan_tiles(region, target, data_config, seed, teach() if teach else None)
    # The rules of the split leave no overlap; a score on overlapping windows would say nothing.
    assert plan.leak == 0.0, f"{plan.leak:.4f} of the held-out tiles overlap training tiles"
    attributes = {
        **{key: value for key, value in provenance.items() if key not in ("settings", "sources")},
        "title": region.title if not region.synthetic or "SYNTHETIC" in region.title else f"SYNTHETIC {region.title}",
        "label": target.attrs["label"],
        "leak_fraction": plan.leak,
        "made_from": made_from,
        "fingerprint": fingerprint,
        "software": _software(),
        "splits": SPLITS,
    }
    with written_beside(out_path) as beside:
        counts = _write(beside, region, target, plan, inputs, attributes, progress)
    _LOGGER.info(
        "region %s: %d tiles for training, %d for validation, %d for test (%d near another split dropped, "
        "%d without any valid cell of an input); leak fraction %.4f",
        *(region.name, counts["train"], counts["validation"], counts["test"], plan.dropped, counts["empty"], plan.leak),
    )
    return out_path


def open_tiles(path: Path | str, validity: bool = False) -> Tiles:
    """Load a tile store into memory.

    Parameters
    ----------
    path
        Store written by `prepare_tiles`.
    validity
        Load the validity masks too.

    Raises
    ------
    DataError
        When the store is missing or damaged.
    """
    import zarr

    path = Path(path)
    try:
        group: Any = zarr.open_group(path, mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        names = [str(each["name"]) for each in attributes["made_from"]["inputs"]]
        arrays = {name: np.asarray(group[name]) for name in ("bed", "split", "x", "y")}
        inputs = {name: np.asarray(group[f"inputs/{name}"]) for name in names}
        valid = {name: np.asarray(group[f"valid/{name}"]) for name in names} if validity else {}
        weight = np.asarray(group["weight"]) if "weight" in group else None
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} is no complete tile store; make it with `deepbedmap prepare`") from error
    return Tiles(inputs=inputs, valid=valid, attrs=attributes, weight=weight, **arrays)


def store_hash(path: Path | str) -> str:
    """Hash (sha256) of a tile store: of the names and contents of all its files."""
    path = Path(path)
    total = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file():
            with each.open("rb") as stream:
                total.update(f"{each.relative_to(path).as_posix()} ".encode())
                total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _write(
    path: Path,
    region: Region,
    target: xr.DataArray,
    plan: TilePlan,
    inputs: Sequence[InputConfig],
    attributes: dict[str, Any],
    progress: bool,
) -> dict[str, int]:
    import zarr
    from tqdm import tqdm
    from zarr.codecs import BloscCodec

    group: Any = zarr.open_group(path, mode="w", zarr_format=3)
    size = SCALE * plan.coarse_cells
    width = plan.coarse_cells + 2 * MARGIN

    def create(name: str, shape: tuple[int, ...], kind: str, **attrs: Any) -> Any:
        return group.create_array(
            name,
            shape=(plan.rows.size, *shape),
            chunks=(_CHUNK if shape else plan.rows.size, *shape),
            dtype=kind,
            compressors=BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"),
            attributes=attrs,
        )

    arrays = {
        "bed": create("bed", (size, size, 1), "float32", units="m", vertical_datum=region.vertical_datum),
        "split": create("split", (), "uint8"),
        "x": create("x", (), "float64", units="m"),
        "y": create("y", (), "float64", units="m"),
    }
    if plan.cells is not None:
        arrays["weight"] = create("weight", (size, size, 2), "float32")
    for each in inputs:
        side = width * each.ratio
        shape = (side, side, each.channels)
        arrays[f"inputs/{each.name}"] = create(f"inputs/{each.name}", shape, "float32", units=each.units)
        arrays[f"valid/{each.name}"] = create(f"valid/{each.name}", (side, side), "bool")
    fills: dict[str, str] = {}
    written = 0
    with tqdm(total=plan.rows.size, desc=f"tiles of {region.name}", unit="tile", disable=not progress) as bar:
        for phase in phases(plan):
            fields = region.inputs_on(shifted(region.coarse_grid, *phase.offset), inputs)
            require_surface_above_bed(fields, region.name)
            fills.update({name: str(array.attrs.get("fill", "none")) for name, array in fields.items()})
            index = with_data(phase, fields, inputs, width)
            bar.update(phase.index.size - index.size)
            for part in np.array_split(index, -(-index.size // (4 * _CHUNK))) if index.size else []:
                place = slice(written, written + part.size)
                for name, values in cut_tiles(part, phase, plan, region, target, fields, inputs).items():
                    arrays[name][place] = values
                written += part.size
                bar.update(part.size)
    if not written:
        raise DataError(f"every tile of region {region.name} lacks one input altogether; check the coverage of inputs")
    for array in arrays.values():
        array.resize((written, *array.shape[1:]))
    split = np.asarray(arrays["split"])
    counts = {name: int((split == number).sum()) for name, number in SPLITS.items() if number != DROPPED}
    counts["empty"] = plan.rows.size - written
    group.attrs.update({**attributes, "fill": fills, "counts": {**counts, "near_another_split": plan.dropped}})
    return counts


def _stored_fingerprint(path: Path) -> str | None:
    import zarr

    try:
        stored = zarr.open_group(path, mode="r").attrs.get("fingerprint")
    except (OSError, KeyError, ValueError, RuntimeError):
        return None
    return str(stored) if stored else None


def _software() -> dict[str, str]:
    found = {"deepbedmap-tf": __version__}
    for name in _SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
