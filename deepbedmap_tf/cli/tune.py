"""``deepbedmap tune``: a search for better settings, by one process or many, on one machine or several."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepbedmap_tf.cli.base import EXIT_INTERRUPTED, command, data_dir_option, main, overrides_option
from deepbedmap_tf.errors import DeepBedMapError, TrainingError

if TYPE_CHECKING:
    import optuna

    from deepbedmap_tf.config import Config
    from deepbedmap_tf.training.loop import TrainingData
    from deepbedmap_tf.training.search_space import SearchConfig

LOGGER = logging.getLogger(__name__)

DEFAULT_STORAGE = "sqlite:///tuning.db"
SPACES = Path("configs/tuning")


@dataclass(frozen=True)
class Plan:
    """What every worker of a search is told, in a form that can be sent to another process."""

    content: dict[str, Any]
    search: SearchConfig
    data_dir: Path | None
    trials: int
    storage: str
    study: str
    out: Path
    heartbeat: int

    @property
    def config(self) -> Config:
        """Settings that the search starts from, with what is fixed for it."""
        from deepbedmap_tf.training.search_space import apply

        return apply(self.search, self.content, {}, "configuration")


@command(main)
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), default=Path("configs/default.yml"), show_default=True
)
@click.option("--space", type=click.Path(path_type=Path), help="Search space; by default configs/tuning/CONFIG.yml.")
@click.option(
    "--region", "regions", multiple=True, type=click.Path(path_type=Path), help="Region file; may be repeated."
)
@data_dir_option
@click.option("--trials", type=click.IntRange(min=1), help="Trials of the study as a whole; by default the space's.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Processes on this machine.")
@click.option(
    "--storage", default=DEFAULT_STORAGE, show_default=True, help="sqlite:///FILE or postgresql://USER@HOST/DATABASE"
)
@click.option("--study", help="Name of the study, which goes on if it is there; by default the configuration's.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for figures and tables; outputs/tuning/STUDY.")
@click.option(
    "--tuned",
    type=click.Path(path_type=Path),
    default=Path("configs/tuned.yml"),
    show_default=True,
    help="Configuration to write.",
)
@click.option(
    "--heartbeat",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="Seconds; a worker silent for three times as long is taken for dead.",
)
@overrides_option
def tune(
    config_file: Path,
    space: Path | None,
    regions: tuple[Path, ...],
    data_dir: Path | None,
    trials: int | None,
    jobs: int,
    storage: str,
    study: str | None,
    out: Path | None,
    tuned: Path,
    heartbeat: int,
    overrides: tuple[str, ...],
) -> None:
    """Search for better settings; stop it with Ctrl-C, the same command goes on. Every trial is in `mlflow ui`.

    Workers on other machines join with the same command and one --storage on PostgreSQL, whose password comes from
    PGPASSWORD or ~/.pgpass.
    """
    from deepbedmap_tf.config import load_config
    from deepbedmap_tf.training.search_space import check_space, load_search
    from deepbedmap_tf.training.storage import parse_address, with_driver
    from deepbedmap_tf.training.study_results import refuse_foreign

    parse_address(storage)
    if os.environ.get("MLFLOW_TRACKING_URI"):
        os.environ["MLFLOW_TRACKING_URI"] = with_driver(os.environ["MLFLOW_TRACKING_URI"])
    config = load_config(config_file, overrides)
    content = config.model_dump(mode="json", exclude_unset=True)
    if regions:
        content.setdefault("data", {})["regions"] = [str(each) for each in regions]
    space_file = space or _space_of(config_file)
    search = load_search(space_file)
    check_space(search, content, str(space_file))
    refuse_foreign(tuned)
    name = study or config_file.stem
    plan = Plan(
        content,
        search,
        data_dir,
        trials or search.trials,
        storage,
        name,
        out or Path("outputs/tuning") / name,
        heartbeat,
    )
    click.echo(f"study {name}: {search.title} ({space_file}), {plan.trials} trials", err=True)
    try:
        if jobs == 1:
            work(plan)
        else:
            _work_in_processes(plan, jobs)
    except KeyboardInterrupt:
        _close(plan)
        click.echo("interrupted; the same command goes on with the study", err=True)
        sys.exit(EXIT_INTERRUPTED)
    _report(plan, tuned)


def _space_of(config_file: Path) -> Path:
    own = SPACES / config_file.name
    return own if own.exists() else SPACES / "default.yml"


def work(plan: Plan) -> None:
    """Be one worker: join the study and run trials until none is left."""
    import tensorflow as tf

    from deepbedmap_tf.figures.training import training_curves
    from deepbedmap_tf.inference.tuned import log_trial_model
    from deepbedmap_tf.training.storage import reached
    from deepbedmap_tf.training.study import Claims
    from deepbedmap_tf.training.tuning import Objective, load_checked_data

    data = load_checked_data(plan.config, plan.data_dir, sys.stderr.isatty())
    with reached(plan.storage):
        turnstile, study, run_id = _join(plan, data)
        objective = Objective(
            study, run_id, plan.content, plan.search, data, plan.out / "trials", training_curves, log_trial_model
        )
        tolerated = (tf.errors.ResourceExhaustedError, MemoryError)
        Claims(study, turnstile, plan.trials, plan.search.retries, tolerated).work(objective)


def _join(plan: Plan, data: TrainingData) -> tuple[Any, optuna.Study, str]:
    """Open the study and its run in MLflow, making what is not there yet."""
    from deepbedmap_tf.data.cache import digest
    from deepbedmap_tf.training.storage import Turnstile, parse_address
    from deepbedmap_tf.training.study import open_study
    from deepbedmap_tf.training.study_run import mark_lost, open_study_run

    url = parse_address(plan.storage)
    space = plan.search.model_dump(mode="json", exclude={"trials"})
    settings = {key: value for key, value in plan.content.items() if key != "name"}
    searched = {"configuration": digest(settings), "search space": digest(space), "data": data.data_hash}
    with Turnstile(url, plan.study) as turnstile:
        most = plan.search.most_epochs(plan.content)
        study = open_study(url, plan.study, plan.search, most, plan.config.seed, searched, plan.heartbeat, mark_lost)
        parameters = {f"space.{name}": json.dumps(each) for name, each in space["parameters"].items()}
        parameters |= {"search": plan.search.title, "trials": str(plan.trials)}
        files = {"space.json": json.dumps(space, indent=1), "config.json": json.dumps(settings, indent=1)}
        run_id = open_study_run(study, parameters, files)
    return turnstile, study, run_id


def _work_in_processes(plan: Plan, jobs: int) -> None:
    from deepbedmap_tf.training.storage import reached
    from deepbedmap_tf.training.tuning import load_checked_data

    # Tiles, tables and runs are made once, before the workers look for them.
    data = load_checked_data(plan.config, plan.data_dir, sys.stderr.isatty())
    with reached(plan.storage):
        _, study, _ = _join(plan, data)
    del data
    cores = max(1, (os.cpu_count() or 1) // jobs)
    for variable in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, str(cores))
    debug = LOGGER.getEffectiveLevel() <= logging.DEBUG
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_worker, args=(plan, debug)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join()
        raise
    failed = [worker.exitcode for worker in workers if worker.exitcode]
    if failed and _left(plan, study):
        raise TrainingError(
            f"{len(failed)} of {jobs} workers ended before the study was complete (exit codes "
            f"{', '.join(map(str, failed))}, see above); start the same command again: it goes on"
        )


def _worker(plan: Plan, debug: bool) -> None:
    """Be a worker in a process of its own, which its parent stops with SIGTERM."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    # Ctrl-C in a terminal reaches all processes: the parent passes it on, once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, stop)
    guarded = command(name="worker")(work)
    guarded.callback(plan, debug=debug)


def _left(plan: Plan, study: optuna.Study) -> bool:
    from deepbedmap_tf.training.study import effective

    trials = effective(study.get_trials(deepcopy=False))
    return len([trial for trial in trials if trial.state.is_finished()]) < plan.trials


def _opened(plan: Plan) -> optuna.Study:
    import optuna

    from deepbedmap_tf.training.storage import open_storage, parse_address

    storage = open_storage(parse_address(plan.storage), plan.heartbeat, None)
    return optuna.load_study(study_name=plan.study, storage=storage)


def _close(plan: Plan) -> None:
    """End the study's run, unless others are still at work."""
    from optuna.trial import TrialState

    from deepbedmap_tf.training.study_run import close_study_run

    try:
        study = _opened(plan)
    except KeyError:
        # Interrupted before there was one.
        return
    if not study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        close_study_run(study, [], "KILLED")


def _report(plan: Plan, tuned: Path) -> None:
    from deepbedmap_tf.data.cache import written_beside
    from deepbedmap_tf.data.region import load_region
    from deepbedmap_tf.figures.tuning import parameter_importances, search_history
    from deepbedmap_tf.inference.tuned import register_best
    from deepbedmap_tf.training import study_results as results
    from deepbedmap_tf.training.storage import Turnstile, parse_address, reached
    from deepbedmap_tf.training.study import RUN
    from deepbedmap_tf.training.study_run import close_study_run
    from deepbedmap_tf.training.tracking import forgiven
    from deepbedmap_tf.training.tuning import MODEL

    synthetic = load_region(Path(plan.config.data.regions[0]), plan.data_dir).synthetic
    with reached(plan.storage), Turnstile(parse_address(plan.storage), plan.study):
        study = _opened(plan)
        if not results.ranked(study):
            close_study_run(study, [], "FINISHED")
            raise DeepBedMapError(
                f"none of the trials was completed ({results.counts(study)}): widen the search space, or raise --trials"
            )
        plan.out.mkdir(parents=True, exist_ok=True)
        title = f"Study {plan.study}{' on SYNTHETIC tiles' if synthetic else ''}"
        files = [search_history(*results.progress_of(study), plan.out / "history.png", title)]
        shares = results.importances(study)
        if shares:
            files.append(parameter_importances(shares, plan.out / "importances.png", title))
        table = results.best_table(study, plan.search)
        texts = {"trials.csv": results.trials_csv(study, plan.search), "best.txt": f"{title}\n{table}\n"}
        for file, text in {**texts, "importances.json": json.dumps(shares, indent=1) + "\n"}.items():
            with written_beside(plan.out / file) as beside:
                beside.write_text(text, encoding="utf-8")
            files.append(plan.out / file)
        results.refuse_foreign(tuned)
        tuned.parent.mkdir(parents=True, exist_ok=True)
        results.write_tuned(tuned, study, plan.search, plan.content, synthetic)
        best = results.ranked(study)[0]
        registered = "not in MLflow"
        if MODEL in best.user_attrs:
            with forgiven("the best model"):
                tags = {"study": plan.study, "trial": str(best.number), "synthetic": str(synthetic)}
                registered = register_best(best.user_attrs[RUN], best.user_attrs[MODEL], tags)
        close_study_run(study, [*files, tuned], "FINISHED")
        # A worker that was killed left its checkpoints.
        for trial in study.get_trials(deepcopy=False):
            if trial.state.is_finished():
                shutil.rmtree(plan.out / "trials" / f"{trial.number:04d}", ignore_errors=True)
        counts = results.counts(study)
    click.echo(f"{title}: {counts}\n{table}")
    if shares:
        click.echo("importance: " + ", ".join(f"{name} {share:.2f}" for name, share in shares.items()))
    click.echo(f"best model: {registered}")
    click.echo("\n".join(str(path) for path in (*files, tuned)))
