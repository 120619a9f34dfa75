"""Where the launcher keeps what it makes; all of it is ignored by version control and may be deleted at any
time.
"""

from __future__ import annotations

from pathlib import Path

PACK_ROOT = Path(__file__).resolve().parents[2]
WORK_DIR = PACK_ROOT / ".hrv"
ENV_DIR = WORK_DIR / "env"
CACHE_DIR = WORK_DIR / "cache"
HOSTS_DIR = WORK_DIR / "host"
