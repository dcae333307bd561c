"""What a map is being made of and which of its tasks are done, in a file that a killed run leaves readable."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deepbedmap_tf.data.cache import written_beside
from deepbedmap_tf.errors import DataError

FORMAT = 1


@dataclass
class Manifest:
    """Record of a run.

    A line of JSON each: first what the map is made of, then one for every task that is done, on disk before the next
    is taken for done. A line that a kill cut off counts for nothing.

    Attributes
    ----------
    path
        The file.
    content
        What the map is made of: whatever would change a single cell of it.
    done
        Numbers of the tasks that are done.
    empty
        What was said of blocks without data.
    skipped
        Blocks without grounded ice.
    """

    path: Path
    content: dict[str, Any]
    done: set[int] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)
    skipped: int = 0

    @classmethod
    def begin(cls, path: Path, content: Mapping[str, Any]) -> Manifest:
        """Write the first line of a new file.

        Raises
        ------
        DataError
            When the disk refuses.
        """
        plain = json.loads(json.dumps(content, sort_keys=True))
        with written_beside(path) as beside, beside.open("w", encoding="utf-8") as stream:
            stream.write(json.dumps({"format": FORMAT, "map": plain}, sort_keys=True) + "\n")
            _to_disk(stream.fileno())
        return cls(path, plain)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read what an earlier run left.

        Raises
        ------
        DataError
            When it can't be read or is none of ours.
        """
        try:
            raw = path.read_bytes()
            # What follows the last newline was cut off in the middle.
            lines = raw[: raw.rfind(b"\n") + 1].decode().splitlines()
            head = json.loads(lines[0])
            made = cls(path, dict(head["map"]))
            if head["format"] != FORMAT:
                raise ValueError(f"format {head['format']}, expected {FORMAT}")
            for line in lines[1:]:
                made._take(json.loads(line))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path} is no readable record of a map ({error}); start anew with --restart") from error
        return made

    def record(self, number: int, empty: tuple[str, ...] = (), skipped: int = 0) -> None:
        """Append that a task is done; it is on disk on return.

        Raises
        ------
        OSError
            When the disk refuses.
        """
        line: dict[str, Any] = {"done": number}
        line |= {"empty": list(empty)} if empty else {}
        line |= {"skipped": skipped} if skipped else {}
        with self.path.open("r+b") as stream:
            # An earlier kill may have left half a line.
            end = stream.seek(0, os.SEEK_END)
            start = max(0, end - 1)
            stream.seek(start)
            if stream.read(1) != b"\n":
                stream.seek(0)
                end = stream.read().rfind(b"\n") + 1
                stream.truncate(end)
            stream.seek(end)
            stream.write(json.dumps(line).encode() + b"\n")
            stream.flush()
            _to_disk(stream.fileno())
        self._take(line)

    def differences(self, content: Mapping[str, Any]) -> list[str]:
        """Say what another map would be made of: ``halo 20, now 16``; empty for the same map."""
        old, new = _flat(self.content), _flat(json.loads(json.dumps(content)))
        return [
            f"{key} {_short(old.get(key))}, now {_short(new.get(key))}"
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        ]

    def _take(self, line: Mapping[str, Any]) -> None:
        self.done.add(int(line["done"]))
        self.empty += list(line.get("empty", ()))
        self.skipped += int(line.get("skipped", 0))


def _to_disk(descriptor: int) -> None:
    os.fsync(descriptor)


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    # The first digits of a hash tell it from another.
    return f"{text[:12]}..." if len(text) == 64 and " " not in text else text if len(text) < 100 else f"{text[:97]}..."
