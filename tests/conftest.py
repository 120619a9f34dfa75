"""Make the pack importable as ``hrv_pack`` in every test, with no host needed."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
if str(SCRIPTS) not in sys.path:
    sys.path.append(str(SCRIPTS))

from pack_import import import_pack  # noqa: E402

import_pack()
