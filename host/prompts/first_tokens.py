"""CLIP text encoders for the first tokens of a text alone, in a fraction of the time (``comfy/clip_model.py``).

The host pads every text to 77 tokens, and an encoder takes all of them through its layers. A token of CLIP sees only
those before it, so what comes behind a word, padding above all, changes nothing in it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from comfy.clip_model import CLIPTextModel_


@contextmanager
def only_first(clip: Any, length: int) -> Iterator[None]:
    """Have the CLIP text encoders of ``clip`` compute the first ``length`` tokens of every row and no others.

    ``length`` includes the start. The encodings keep their shape, but what they have behind ``length`` means nothing,
    and the pooled one only means something if a text's end is among these tokens. Encoders of other kinds, T5 for
    instance, compute everything.
    """

    whole: list[int] = []  # how many tokens the call in progress was given

    def cut(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        (x,), mask = args, kwargs["mask"]
        whole.append(x.shape[1])
        return (x[:, :length],), {**kwargs, "mask": mask[..., :length, :length]}

    def fill_up(_: Any, args: tuple[Any, ...], made: tuple[Any, Any]) -> tuple[Any, Any]:
        missing = max(0, whole.pop() - length)
        last, intermediate = (None if one is None else F.pad(one, (0, 0, 0, missing)) for one in made)
        return last, intermediate

    with ExitStack() as hooks:
        for module in clip.cond_stage_model.modules():
            if isinstance(module, CLIPTextModel_):
                encoder: torch.nn.Module = module.encoder
                hooks.enter_context(_removed(encoder.register_forward_pre_hook(cut, with_kwargs=True)))
                hooks.enter_context(_removed(encoder.register_forward_hook(fill_up)))
        yield


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
