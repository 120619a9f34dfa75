"""How much memory a process takes to read a file: run as a script, or call :func:`growth_of`, which does.

    python growth.py hrv|state FILE              # an HRV, the state of a small build
    python growth.py npy FILE FILE CONCEPTS      # vectors, names of heads, and how many concepts they are for

Prints, as JSON, by how many bytes the process grew at most, and what the reader said: "" for a file that was read.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


class Growth(NamedTuple):
    """Bytes at most beyond what the process had before, and the reader's sentence."""

    bytes: int
    said: str


def growth_of(reader: str, *arguments: object) -> Growth:
    """What reading files did to a process of its own."""
    command = [sys.executable, __file__, reader, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return Growth(*json.loads(done.stdout))


def sparse(path: Path, content: bytes, size: int) -> Path:
    """A file that begins with ``content`` and then has zeros up to ``size`` bytes, which need no disk."""
    with path.open("wb") as file:
        file.write(content)
        file.truncate(size)
    return path


def _peak() -> int:
    """Bytes in use at most so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # The operating system's own maximum of a child begins with that of its parent.
        return 1024 * int(status.read_text().partition("VmHWM:")[2].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _readers() -> dict[str, Callable[..., object]]:
    sys.path.insert(0, str(SCRIPTS))
    from pack_import import import_pack

    import_pack()
    import numpy as np
    from hrv_pack.hrv.building.state import BuildState
    from hrv_pack.hrv.relevance.files import load_hrv
    from hrv_pack.hrv.relevance.published import hrv_from_npy

    def npy(vectors: str, names: str, concepts: str) -> object:
        named = [f"c{number}" for number in range(int(concepts))]
        return hrv_from_npy(Path(vectors).read_bytes(), Path(names).read_bytes(), named)

    def state(path: str) -> object:
        return BuildState("a" * 64, np.zeros((2, 3, 5), dtype=np.int64), [3]).resumed(Path(path))

    return {"hrv": load_hrv, "npy": npy, "state": state}


def _main() -> None:
    readers = _readers()
    from hrv_pack.hrv.errors import HRVError

    before, said = _peak(), ""
    try:
        readers[sys.argv[1]](*sys.argv[2:])
    except HRVError as error:
        said = str(error)
    print(json.dumps([_peak() - before, said]))


if __name__ == "__main__":
    _main()
