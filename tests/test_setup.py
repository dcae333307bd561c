"""scripts/setup.sh with stand-ins for uv, GMT and Python: what it does once, what it says when it can't."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = "awk bash cat chmod cksum df dirname env flock grep head id mkdir rm sed sort tail uname"

UV = """#!/usr/bin/env bash
echo "$*" >>calls
[[ $1 == --version ]] && exit 0
[[ -n ${FAILURE:-} && $1 == pip ]] && { echo "error: $FAILURE" >&2; exit 2; }
if [[ $1 == venv ]]; then
    mkdir -p .venv/bin
    for name in python deepbedmap; do echo '#!/usr/bin/env bash' >.venv/bin/$name; chmod +x .venv/bin/$name; done
fi
exit 0
"""


class Machine:
    """A folder with the set-up script and a PATH that holds only what a test puts there."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.bin = folder / "checkout", folder / "bin"
        (self.folder / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("scripts/setup.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(root / name, self.folder / name)
        for tool in TOOLS.split():
            if place := shutil.which(tool):
                (self.bin / tool).symlink_to(place)

    def install(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def set_up(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "scripts/setup.sh")],
            env={"PATH": str(self.bin), "HOME": str(self.folder), "CI": "true", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def calls(self) -> list[str]:
        """Every use of uv since the last question, apart from asking for its version."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if line != "--version"]


@pytest.fixture
def machine(tmp_path: Path, root: Path) -> Machine:
    if os.name != "posix" or not shutil.which("bash"):
        pytest.skip("the set-up script wants bash")
    result = Machine(tmp_path, root)
    result.install("uv", UV)
    result.install("gmt", "#!/usr/bin/env bash\necho 6.5.0\n")
    result.install("gs", "#!/usr/bin/env bash\n")
    # The disk of the machine that runs the tests is not what they are about.
    result.install("df", "#!/usr/bin/env bash\nprintf 'head\\nd 1 1 99999 1%% /\\n'\n")
    return result


def test_installs_the_lock_then_the_project_and_only_once(machine: Machine) -> None:
    first = machine.set_up()
    assert first.returncode == 0, first.stderr
    steps = [call.split(" -q")[0] for call in machine.calls()]
    assert steps == ["venv", "pip sync", "pip install"]

    second = machine.set_up()
    assert (second.returncode, second.stdout, second.stderr, machine.calls()) == (0, "", "", [])


@pytest.mark.parametrize("changed", ["requirements.txt", "pyproject.toml", "scripts/setup.sh"])
def test_a_change_installs_again_into_the_same_environment(machine: Machine, changed: str) -> None:
    machine.set_up()
    machine.calls()
    with (machine.folder / changed).open("a") as file:
        file.write("\n# changed\n")
    assert machine.set_up().returncode == 0
    assert [call.split(" -q")[0] for call in machine.calls()] == ["pip sync", "pip install"]


@pytest.mark.parametrize(
    ("failure", "cause", "remedy"),
    [
        ("No space left on device (os error 28)", "the disk is full", "Free 3000 MB"),
        ("tcp connect error: Connection refused (os error 111)", "can't be reached", "HTTPS_PROXY"),
        ("invalid peer certificate: UnknownIssuer", "certificate is not trusted", "SSL_CERT_FILE"),
        ("Permission denied (os error 13)", "can't be written", "writable"),
        ("something new", "could not be installed", ".tools/setup.log"),
    ],
)
def test_a_failure_gives_cause_and_remedy_and_is_tried_again(
    machine: Machine, failure: str, cause: str, remedy: str
) -> None:
    failed = machine.set_up(FAILURE=failure)
    assert failed.returncode == 1
    assert cause in failed.stderr
    assert remedy in failed.stderr
    assert machine.set_up().returncode == 0


def test_a_disk_too_small_is_said_before_anything_is_fetched(machine: Machine) -> None:
    machine.install("df", "#!/usr/bin/env bash\nprintf 'head\\nd 1 1 120 99%% /\\n'\n")
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "120 MB are free" in failed.stderr
    assert machine.calls() == []


def test_without_gmt_and_apt_it_names_the_other_ways(machine: Machine) -> None:
    (machine.bin / "gmt").unlink()
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "brew install gmt ghostscript" in failed.stderr
    assert "conda install" in failed.stderr


def test_an_old_gmt_is_refused(machine: Machine) -> None:
    machine.install("gmt", "#!/usr/bin/env bash\necho 6.3.0\n")
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "GMT 6.3.0 is on PATH, 6.4 or later is needed" in failed.stderr


def test_missing_packages_come_from_apt_or_an_administrator(machine: Machine) -> None:
    (machine.bin / "gs").unlink()
    (machine.bin / "id").unlink()
    machine.install("apt-get", '#!/usr/bin/env bash\necho "$*" >>asked\n')
    machine.install("id", "#!/usr/bin/env bash\necho 1000\n")
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "As administrator: apt-get install ghostscript" in failed.stderr

    machine.install("id", "#!/usr/bin/env bash\necho 0\n")
    assert machine.set_up().returncode == 0
    assert (machine.folder / "asked").read_text().splitlines()[-1].endswith("--no-install-recommends ghostscript")


def test_without_uv_venv_and_pip_it_says_which_package_is_missing(machine: Machine) -> None:
    (machine.bin / "uv").unlink()
    machine.install("python3", "#!/usr/bin/env bash\nexit 1\n")
    failed = machine.set_up()
    assert failed.returncode == 1
    assert "python3-venv" in failed.stderr
    assert "install uv by hand" in failed.stderr
