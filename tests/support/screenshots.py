"""Where the front-end tests keep what they saw."""

from __future__ import annotations

from launcher.paths import PACK_ROOT

SCREENSHOTS = PACK_ROOT / ".hrv" / "screenshots"
"""Git ignores it; the next run of these tests empties it."""
