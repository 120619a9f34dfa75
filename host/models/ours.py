"""The names of what this pack puts on a model, by which a model's digest leaves it out.

What we attach does nothing to prompts without controls, so a model with it computes what the plain model does: a build
with either is the same build. The digest can know ours by their keys alone, so every wrapper and every attachment of
this pack has a key made here.
"""

from __future__ import annotations

_PREFIX = "hrv_"


def our_key(name: str) -> str:
    """The key of a wrapper or an attachment of this pack that is called ``name``."""
    return _PREFIX + name


def is_ours(key: object) -> bool:
    """Whether a key of a model's wrappers or attachments is one of this pack's."""
    return str(key).startswith(_PREFIX)
