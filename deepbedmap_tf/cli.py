"""The command line: errors as one line, and the commands of ``deepbedmap`` and ``train.py``."""

from __future__ import annotations

import errno
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from deepbedmap_tf import __version__
from deepbedmap_tf.errors import DeepBedMapError

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
REFUSED_BY_THE_SYSTEM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
)


def command(
    group: click.Group | None = None, name: str | None = None, **settings: Any
) -> Callable[[Callable[..., Any]], Any]:
    """Make a click command that adds ``--debug`` and turns errors of the input into one line and exit code 2.

    Parameters
    ----------
    group
        Add the command to this group; a command of its own by default.
    name
        Of the command; the function's by default.
    **settings
        Passed to click.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        @click.option("--debug", is_flag=True, help="Show the traceback of an error and TensorFlow's own messages.")
        @functools.wraps(function)
        def guarded(*arguments: Any, debug: bool, **options: Any) -> Any:
            _prepare_process(debug)
            try:
                return function(*arguments, **options)
            except KeyboardInterrupt:
                click.echo("interrupted", err=True)
                sys.exit(EXIT_INTERRUPTED)
            except DeepBedMapError as error:
                _fail(str(error), error, debug)
            except OSError as error:
                if error.errno not in REFUSED_BY_THE_SYSTEM:
                    raise
                where = f" {error.filename}" if error.filename else ""
                _fail(f"cannot write{where}: {error.strerror}; free some space or choose another folder", error, debug)
            except MemoryError as error:
                _fail("out of memory; choose smaller --bounds or training.batch_size", error, debug)

        made = click.command(name, **settings)(guarded)
        if group is not None:
            group.add_command(made)
        return made

    return decorate


def _fail(message: str, error: BaseException, debug: bool) -> None:
    if debug:
        traceback.print_exception(error)
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(EXIT_BAD_INPUT)


def _prepare_process(debug: bool) -> None:
    """Quieten libraries before they are imported, and show the package's own messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "3")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("deepbedmap_tf").setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)


@click.group()
@click.version_option(__version__, prog_name="deepbedmap")
def main() -> None:
    """Antarctic bed elevation by conditional super-resolution."""


@command(main)
@click.option("--region", required=True, type=click.Path(path_type=Path), help="Region file, configs/regions/*.yml.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Tile store to write, *.zarr.")
@click.option("--config", type=click.Path(path_type=Path), default=Path("configs/default.yml"), show_default=True)
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that the region's paths start from.")
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY.SUB=VALUE", help="Change a setting of the configuration."
)
def prepare(region: Path, out: Path, config: Path, data_dir: Path | None, overrides: tuple[str, ...]) -> None:
    """Cut a region into training, validation and test tiles."""
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.data.tiles import open_tiles, prepare_tiles

    settings = load_config(config, overrides)
    store = prepare_tiles(
        load_region(region, data_dir), settings.data, out, settings.seed, inputs=settings.generator.inputs
    )
    tiles = open_tiles(store)
    counts = ", ".join(f"{len(tiles.select(split))} {split}" for split in ("train", "validation", "test"))
    click.echo(f"{store}: {counts} tiles, leak fraction {tiles.attrs['leak_fraction']}")


@command(main)
@click.argument("products", nargs=-1, metavar="[PRODUCT]...")
@click.option("--list", "listing", is_flag=True, help="Show products with state, size, licence and citation.")
@click.option("--verify", is_flag=True, help="With --list: compare the checksums of what is there.")
def fetch(products: tuple[str, ...], listing: bool, verify: bool) -> None:
    """Download public products, or single files of them (PRODUCT/FILE), into $DEEPBEDMAP_DATA_DIR.

    A download that was cut off goes on where it ended.
    """
    from deepbedmap_tf.data.fetching import fetch as fetch_products
    from deepbedmap_tf.data.product_states import product_states, product_table

    if listing or verify or not products:
        click.echo(product_table(product_states(products, verify), files=bool(products)))
        if not products:
            click.echo("fetch some with: deepbedmap fetch PRODUCT...", err=True)
        return
    ask = _ask_for_login if sys.stdin.isatty() else None
    for each in fetch_products(products, sys.stderr.isatty(), ask):
        done = "downloaded" if each.downloaded else "was there"
        click.echo(f"{each.path}: {done}, {each.checksum or 'not compared with a checksum'}")


def _ask_for_login(host: str) -> tuple[str, str]:
    click.echo(f"{host} wants a login (it is not stored)", err=True)
    return click.prompt("user name", err=True), click.prompt("password", hide_input=True, err=True)


@command(main)
@click.option("--model", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
@click.option("--region", required=True, type=click.Path(path_type=Path), help="Region file, configs/regions/*.yml.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that the region's paths start from.")
@click.option("--bounds", nargs=4, type=float, metavar="XMIN YMIN XMAX YMAX", help="Edges in metres; the whole region.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write, *.nc.")
def predict(
    model: Path, region: Path, data_dir: Path | None, bounds: tuple[float, float, float, float] | None, out: Path
) -> None:
    """Map the bed of a region, or of a part of it, to a NetCDF file."""
    from deepbedmap_tf.inference.predict import predict_to_file

    click.echo(predict_to_file(model, region, data_dir, bounds, out))


@command(main, "cross-validate")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), default=Path("configs/byrd.yml"), show_default=True
)
@click.option("--region", required=True, type=click.Path(path_type=Path), help="Region file, configs/regions/*.yml.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder that the region's paths start from.")
@click.option("--initial", type=click.Path(path_type=Path), help="Exported model that every fold starts from.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for the folds; goes on where it ended."
)
@click.option("--fold", "only", multiple=True, type=int, help="Only this fold, counted from 0; may be repeated.")
@click.option("--set", "overrides", multiple=True, metavar="KEY.SUB=VALUE", help="Change a setting.")
def cross_validate(
    config_file: Path,
    region: Path,
    data_dir: Path | None,
    initial: Path | None,
    out: Path,
    only: tuple[int, ...],
    overrides: tuple[str, ...],
) -> None:
    """Train a network a fold and score it, beside baselines, at radar cells that its training never saw."""
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.evaluation.crossvalidation import cross_validate as run
    from deepbedmap_tf.evaluation.crossvalidation import table

    result = run(load_config(config_file, overrides), region, out, data_dir, initial, only or None, sys.stderr.isatty())
    for number, scores in enumerate(result["folds"]):
        click.echo(
            f"\nfold {only[number] if only else number}: {scores['bicubic']['count']:.0f} radar cells\n{table(scores)}"
        )
    click.echo(f"\nmean and standard deviation over the folds\n{table(result['mean'], result['spread'])}")
    click.echo(f"\n{out / 'metrics.json'}")


@command(main, "import-chainer")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
@click.option("--residual-scaling", default=0.2, show_default=True, help="The weight file does not hold it.")
def import_chainer_command(weights: Path, out: Path, residual_scaling: float) -> None:
    """Turn the published network's WEIGHTS.npz into a SavedModel."""
    from deepbedmap_tf.inference.export import import_chainer, load_model

    model = load_model(import_chainer(weights, out, residual_scaling))
    click.echo(f"{out}: {model.config.num_residual_blocks} blocks, {model.config.input_filters} filters an input")


@command(main)
@click.option("--model", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
@click.option("--keras", "keras_file", required=True, type=click.Path(path_type=Path), help="generator.keras to write.")
def export(model: Path, keras_file: Path) -> None:
    """Make a Keras file, for further training or study, from an exported model."""
    from deepbedmap_tf.data.cache import written_beside
    from deepbedmap_tf.inference.export import load_model

    generator = load_model(model).generator()
    with written_beside(keras_file) as beside:
        # Keras goes by the ending of the name.
        named = beside.with_name(f"{beside.name}.keras")
        try:
            generator.save(named)
            named.replace(beside)
        finally:
            named.unlink(missing_ok=True)
    click.echo(f"{keras_file}: {generator.count_params():,} parameters")


@command(main)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the numbers to this file as well.")
@click.option("--repeats", default=5, show_default=True, help="Timings of each case; the best counts.")
def bench(json_file: Path | None, repeats: int) -> None:
    """Measure this machine's arithmetic, inference, training and the deformable layers."""
    import json

    from deepbedmap_tf.data.cache import written_beside
    from deepbedmap_tf.inference.bench import measure, table

    results = measure(repeats, lambda line: click.echo(line, err=True))
    click.echo(table(results))
    if json_file is not None:
        with written_beside(json_file) as beside:
            beside.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def train_and_export(
    config_file: Path,
    regions: tuple[Path, ...],
    data_dir: Path | None,
    out: Path,
    resume: bool,
    overrides: tuple[str, ...],
    initial: Path | None = None,
) -> Path:
    """Run what ``train.py`` offers: tiles, training, export, figures and tracking.

    Parameters
    ----------
    config_file, overrides
        As for `config.load_config`.
    regions
        Region files; those of the configuration when empty.
    data_dir
        Folder that the region files' paths start from.
    out
        Folder of the model; checkpoints lie in its ``training``.
    resume
        Go on with the run that lies there.
    initial
        Exported model whose weights to start from.
    """
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.figures.training import training_curves
    from deepbedmap_tf.inference.export import export_model, load_model
    from deepbedmap_tf.inference.serving import log_model
    from deepbedmap_tf.training.loop import load_training_data, train
    from deepbedmap_tf.training.tracking import forgiven, git_revision, tracked

    config = load_config(config_file, overrides)
    if regions:
        data_config = config.data.model_copy(update={"regions": tuple(str(each) for each in regions)})
        config = config.model_copy(update={"data": data_config})
    files = tuple(Path(each) for each in config.data.regions)
    weights, ancestry = None, None
    if initial is not None:
        model = load_model(initial)
        if model.config != config.generator:
            raise DeepBedMapError(
                f"{initial} has another architecture than {config_file}; start from a model of the same settings"
            )
        weights = model.weights()
        ancestry = model.ancestry
    data = load_training_data(config, files, data_dir)
    synthetic = all(part["synthetic"] for part in data.provenance)
    leaks = [part["leak_fraction"] for part in data.provenance]
    click.echo(
        f"{len(data.train)} training and {len(data.validation)} validation tiles, leak fraction {max(leaks)}"
        f"{', SYNTHETIC' if synthetic else ''}"
    )
    tags = {"tile_store_hash": data.data_hash, "synthetic": str(synthetic), "out": str(out)}
    with tracked(config, tags) as tracker:
        run = train(
            config,
            data,
            out / "training",
            resume,
            # A bar that redraws itself is noise in a log file, where one line an epoch says all.
            progress=sys.stderr.isatty(),
            on_epoch=tracker.epoch,
            on_start=tracker.start,
            initial_weights=weights,
        )
        metadata = {
            "name": out.name,
            "title": f"DeepBedMap, {config.name} configuration{', SYNTHETIC training data' if synthetic else ''}",
            "synthetic": synthetic,
            "citations": sorted(
                {citation for part in data.provenance for citation in part["citations"]}
                | set((ancestry or {}).get("citations", ()))
            ),
            "config": config.model_dump(mode="json"),
            "resolution": data.provenance[0]["resolution"],
            "training_data": {"hash": data.data_hash, "stores": data.provenance},
            "training": {
                "steps": run.steps,
                "minutes": round(run.minutes, 1),
                "precision": run.precision,
                "tiles": len(data.train),
                "git_revision": git_revision(),
                "initial": ancestry,
            },
            "metrics": run.history[-1] if run.history else {},
        }
        export_model(run.gan.averaged_generator, config.generator, out, metadata)
        if run.history:
            tracker.figures([training_curves(run.history, out / "training" / "curves.png", metadata["title"])])
        with forgiven("the model"):
            log_model(tracker.mlflow, out, config.generator)
    final = metadata["metrics"]
    if final:
        click.echo(
            f"validation RMSE {final['val_rmse']:.1f} m, bicubic {final['val_bicubic_rmse']:.1f} m, "
            f"skill {100 * final['val_skill']:.1f} %, SSIM {final['val_ssim']:.3f}"
        )
    click.echo(f"model: {out}")
    return out
