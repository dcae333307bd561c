"""What every command has: the group, ``--debug``, and errors of the input as one line with exit code 2."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from deepbedmap_tf import __version__
from deepbedmap_tf.errors import DeepBedMapError, without_passwords

EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
REFUSED_BY_THE_SYSTEM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EISDIR}
)

model_option = click.option("--model", required=True, type=click.Path(path_type=Path), help="saved_models/NAME")
region_option = click.option(
    "--region", required=True, type=click.Path(path_type=Path), help="Region file, configs/regions/*.yml."
)
data_dir_option = click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Folder that a region's paths start from."
)
overrides_option = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.SUB=VALUE", help="Change a setting of the configuration."
)
json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the numbers to this file as well."
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


def write_numbers(numbers: dict[str, Any], file: Path | None) -> None:
    """Write what was measured where `json_option` says, if it says so."""
    from deepbedmap_tf.data.cache import written_beside

    if file is not None:
        with written_beside(file) as beside:
            beside.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def _fail(message: str, error: BaseException, debug: bool) -> None:
    if debug:
        _show_traceback(type(error), error, error.__traceback__)
    click.echo(f"error: {without_passwords(' '.join(message.split()))}", err=True)
    sys.exit(EXIT_BAD_INPUT)


def _show_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    click.echo(without_passwords("".join(traceback.format_exception(kind, error, trace))), err=True, nl=False)


class _Formatter(logging.Formatter):
    """Shows messages of any package without the passwords that an address in them may have."""

    def format(self, record: logging.LogRecord) -> str:
        return without_passwords(super().format(record))


def _prepare_process(debug: bool) -> None:
    """Quieten libraries before they are imported, and show the package's own messages."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "0" if debug else "3")
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    # What is no error of the input ends in Python's own traceback.
    sys.excepthook = _show_traceback
    logging.getLogger("deepbedmap_tf").setLevel(logging.DEBUG if debug else logging.INFO)
    if not debug:
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        logging.getLogger("absl").setLevel(logging.ERROR)


@click.group()
@click.version_option(__version__, prog_name="deepbedmap")
def main() -> None:
    """Antarctic bed elevation by conditional super-resolution."""
