"""Head Relevance Vectors for ComfyUI: control how a text-to-image model reads a word, head by head."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Return the pack's ``ComfyExtension``; everything heavy is imported only when the host asks for it."""
    from .nodes import HRVExtension

    return HRVExtension()


__all__ = ["WEB_DIRECTORY", "comfy_entrypoint"]
