"""The one family of errors that users of the pack meet."""

from __future__ import annotations


class HRVError(ValueError):
    """Something a user gave cannot be used; the message says what, why and what to do instead."""
