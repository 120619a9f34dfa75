"""Import the pack under one fixed name, ``hrv_pack``, whatever its folder is called and without a host.

The host imports the repository root under its path, so nothing outside the host can rely on a name. Tests, benchmarks
and command-line tools call :func:`import_pack` first and then import ``hrv_pack.hrv...`` as usual.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

PACK_NAME = "hrv_pack"
PACK_ROOT = Path(__file__).resolve().parent.parent


def import_pack(name: str = PACK_NAME) -> ModuleType:
    """Return the root package, loaded once under ``name``, which a worker of a cluster takes from its sender."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, PACK_ROOT / "__init__.py", submodule_search_locations=[str(PACK_ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
