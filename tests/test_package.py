"""The package as a whole: direction of its imports, what an import loads, and habits that no tool checks."""

import ast
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

import deepbedmap_tf

PACKAGE = "deepbedmap_tf"
ROOT = Path(__file__).resolve().parents[1]

# Each entry imports only from itself and from those before it.
ORDER = (
    {PACKAGE},
    {"errors", "config", "grid", "addons"},
    {"data"},
    {"models"},
    {"scoring"},
    {"training"},
    {"inference"},
    {"evaluation"},
    {"figures"},
    {"cli", "__main__", "train", "evaluate"},
)
HEAVY = ("tensorflow", "tensorflow_addons", "keras", "pygmt", "mlflow", "optuna", "dask", "distributed")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def source_files() -> list[Path]:
    scripts = [ROOT / name for name in ("train.py", "evaluate.py") if (ROOT / name).exists()]
    return sorted((ROOT / PACKAGE).rglob("*.py")) + scripts


FILES = {module_name(path): path for path in source_files()}
TREES = {name: ast.parse(path.read_text(encoding="utf-8"), str(path)) for name, path in FILES.items()}


def imported_names(name: str) -> Iterator[tuple[str, int]]:
    """Absolute dotted names a module imports, anywhere in it, with their lines."""
    is_package = FILES[name].name == "__init__.py"
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = name.split(".")[: len(name.split(".")) - node.level + is_package] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def modules_imported(name: str) -> Iterator[tuple[str, int]]:
    """The project's own modules that a module imports."""
    for imported, line in imported_names(name):
        candidate = imported
        while candidate and candidate not in FILES:
            candidate = candidate.rpartition(".")[0]
        if candidate and candidate != name:
            yield candidate, line


def rank(name: str) -> int:
    part = name.split(".")[1] if "." in name else name
    for position, group in enumerate(ORDER):
        if part in group:
            return position
    raise AssertionError(f"{name} has no place in ORDER of {Path(__file__).name}: add '{part}' where data flow puts it")


def top(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_imports_point_from_right_to_left() -> None:
    wrong = [
        f"{FILES[name].relative_to(ROOT)}:{line} imports {target}"
        for name in FILES
        for target, line in modules_imported(name)
        if rank(target) > rank(name)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    graph = {name: {target for target, _ in modules_imported(name)} for name in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_figures_are_called_from_the_edge_only() -> None:
    callers = {top(name) for name in FILES for target, _ in modules_imported(name) if top(target).endswith(".figures")}
    assert callers <= {f"{PACKAGE}.figures", f"{PACKAGE}.cli", "train", "evaluate"}


def test_tensorflow_addons_stay_behind_one_module() -> None:
    users = {
        name for name in FILES for target, _ in imported_names(name) if target.split(".")[0] == "tensorflow_addons"
    }
    assert users <= {f"{PACKAGE}.addons"}


def test_import_loads_no_heavy_package() -> None:
    command = f"import json, sys, {PACKAGE}; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not set(HEAVY) & set(json.loads(output))


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith(PACKAGE)])
def test_no_print_and_no_os_path(name: str) -> None:
    where = FILES[name].relative_to(ROOT)
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"{where}:{node.lineno} prints; log it, or leave it to the command line"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("os", "path"), f"{where}:{node.lineno} wants pathlib"
    imported = {target for target, _ in imported_names(name)}
    assert not {target for target in imported if target.startswith("os.path")}, f"{where} wants pathlib"


def test_every_version_is_the_same() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == deepbedmap_tf.__version__ == citation["version"]
