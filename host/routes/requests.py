"""Requests of the page, read with limits: they come from any program on this machine, so nothing in them is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...hrv.errors import HRVError, require_encodable

LARGEST = 1 << 20
"""Bytes of a request: a long vocabulary many times over."""

_LETTERS = 100_000
_ENTRIES = 1000
# Seeds go up to 2**64 - 1, which a page rounds up.
_LARGEST_NUMBER = 2**64 + 2**11

Request = Mapping[str, Any]


def text_of(request: Request, key: str) -> str:
    """A text of a request; HRVError if it has none under this key, one that is too long, and one of half characters."""
    value = request.get(key)
    if not isinstance(value, str) or len(value) > _LETTERS:
        raise HRVError(f"A request needs '{key}': a text of at most {_LETTERS} characters.")
    require_encodable(key, value)
    return value


def texts_of(request: Request, key: str) -> list[str]:
    """A list of texts of a request; HRVError likewise."""
    return [text_of({key: value}, key) for value in list_of(request, key)]


def list_of(request: Request, key: str) -> list[Any]:
    """A list of a request; HRVError likewise."""
    value = request.get(key)
    if not isinstance(value, list) or len(value) > _ENTRIES:
        raise HRVError(f"A request needs '{key}': a list of at most {_ENTRIES} entries.")
    return value


def object_of(request: Request, key: str) -> Request:
    """A JSON object of a request; HRVError likewise."""
    value = request.get(key)
    if not isinstance(value, dict):
        raise HRVError(f"A request needs '{key}': a JSON object.")
    return value


def number_of(request: Request, key: str) -> float:
    """A finite number of a request; HRVError likewise."""
    value = request.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= _LARGEST_NUMBER:
        raise HRVError(f"A request needs '{key}': a number.")
    return value


def whole_number_of(request: Request, key: str) -> int:
    """A whole number of a request, from 0; HRVError likewise."""
    value = number_of(request, key)
    if not isinstance(value, int) or value < 0:
        raise HRVError(f"A request needs '{key}': a whole number, 0 or more.")
    return value
