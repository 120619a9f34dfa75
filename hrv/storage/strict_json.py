"""JSON as files of the pack hold it: no NaN, no key twice, and an error that is a sentence."""

from __future__ import annotations

import json
from typing import Any

from ..errors import HRVError


def parse_json(text: str | bytes, what: str) -> Any:
    """The value of a JSON text in UTF-8. Raises HRVError, "its ``what`` is not valid JSON", for anything else."""
    try:
        # JSON can spell half a character, which is no UTF-8 and has no checksum.
        data = text.encode() if isinstance(text, str) else text
        return json.loads(data.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise HRVError(f"its {what} is not valid JSON ({error}).") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has the same key twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
