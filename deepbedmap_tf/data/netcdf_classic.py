"""How long a NetCDF of the classic formats must be: its library reads zeros, in silence, where a file ends early."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

# Bytes of a value by its type; and of a count and of an offset by the format's version.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_VERSIONS = {1: (">i", ">i"), 2: (">i", ">q"), 5: (">q", ">q")}


def missing_bytes(path: Path) -> int:
    """Count the bytes that a classic NetCDF lacks at its end; 0 for a whole file and for any other format.

    Raises
    ------
    OSError
        When the header itself is cut off.
    """
    with path.open("rb") as stream:
        magic = stream.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\x01", b"\x02", b"\x05"):
            return 0
        try:
            needed = _Header(stream, *_VERSIONS[magic[3]]).needed()
        except (struct.error, KeyError, IndexError) as error:
            raise OSError(0, "its header is cut off") from error
    return max(0, needed - path.stat().st_size)


class _Header:
    def __init__(self, stream: BinaryIO, count: str, offset: str) -> None:
        self._stream, self._count, self._offset = stream, count, offset

    def needed(self) -> int:
        """Position behind the last value of the last variable."""
        records = self._number(self._count)
        lengths = []
        for _ in range(self._list()):
            self._skip_name()
            lengths.append(self._number(self._count))
        self._skip_attributes()
        ends, per_record = [0], []
        for _ in range(self._list()):
            self._skip_name()
            shape = [lengths[self._number(self._count)] for _ in range(self._number(self._count))]
            self._skip_attributes()
            size = _SIZES[self._number(">i")]
            self._number(self._count)
            begin = self._number(self._offset)
            # A dimension of length 0 is the one of the records.
            if shape and shape[0] == 0:
                per_record.append((begin, size * math.prod(shape[1:])))
            else:
                ends.append(begin + size * math.prod(shape))
        step = per_record[0][1] if len(per_record) == 1 else sum(_padded(size) for _, size in per_record)
        if records > 0:
            ends += [begin + (records - 1) * step + size for begin, size in per_record]
        return max(ends)

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._stream.read(struct.calcsize(form)))[0])

    def _list(self) -> int:
        self._number(">i")
        return self._number(self._count)

    def _skip_name(self) -> None:
        self._stream.seek(_padded(self._number(self._count)), 1)

    def _skip_attributes(self) -> None:
        for _ in range(self._list()):
            self._skip_name()
            size = _SIZES[self._number(">i")]
            self._stream.seek(_padded(size * self._number(self._count)), 1)


def _padded(size: int) -> int:
    return -(-size // 4) * 4
