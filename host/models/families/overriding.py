"""The slot of a call's options through which transformers pass their attention, and ours around what is in it.

``optimized_attention_override`` is called as override(attention, q, k, v, heads, ...), q and k after norm and rotation,
wherever a model's attention gets the call's options (``comfy/ldm/modules/attention.py``, wrap_attn). There is one slot:
what another pack has put there (such as another backend for attention) gets every call of ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch

from ....hrv.heads.layout import AttentionLayer, LayerKey
from .attention_call import WHOLE, Attend, AttentionCall

SLOT = "optimized_attention_override"

REFERENCES_KEY = "hrv_reference_images"
"""Where a call's options say whether its model gets reference images."""

_PART_KEY = "hrv_part_of_a_call"
"""Where the options of an attention say which of a call's queries it has, WHOLE by default, or None: some heads only.

One of our overrides may stand behind another that asks for parts.
"""

Override = Callable[..., torch.Tensor]
"""(attention, q, k, v, heads, ...) to the result of the attention."""

# Arguments behind q, k, v that the host's attentions take, in their order.
_NAMES = ("heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape")


class Place(NamedTuple):
    """Where an attention stands: its layer, its keys of the text, its queries of the image, and the text's padding."""

    layer: AttentionLayer
    text: slice = WHOLE
    image: slice = WHOLE
    padding: int = 0


Locate = Callable[[dict[str, Any], torch.Tensor, int], "Place | None"]
"""(options of a call, its keys, their axis of tokens) to where it stands; None if it is no layer of the layout."""

Prepare = Callable[[dict[str, Any], "torch.Tensor | None"], dict[str, Any]]
"""(transformer options, context [B, T, C]) to a copy that has all that a :data:`Locate` looks for."""


class OverrideWrapping:
    """Puts what to do at layers around whatever is in the slot.

    What is there is wrapped once, so that a compiled model meets the same objects at every call.
    """

    def __init__(self, attends: Mapping[LayerKey, Attend], prepare: Prepare, locate: Locate):
        self._attends, self._prepare, self._locate = attends, prepare, locate
        # By identity of what is wrapped, which is kept so that no other object can take its identity.
        self._wrapped: dict[int, tuple[Override | None, Override]] = {}

    def into(self, transformer_options: dict[str, Any], context: torch.Tensor | None = None) -> dict[str, Any]:
        """A copy of the transformer options of a call with the override in it."""
        previous = transformer_options.get(SLOT)
        if id(previous) not in self._wrapped:
            self._wrapped[id(previous)] = previous, self._override(previous or _attention)
        return {**self._prepare(transformer_options, context), SLOT: self._wrapped[id(previous)][1]}

    def _override(self, previous: Override) -> Override:
        def override(
            attention: Callable[..., torch.Tensor],
            q: torch.Tensor,
            k: torch.Tensor,
            v: torch.Tensor,
            *args: Any,
            **kwargs: Any,
        ) -> torch.Tensor:
            extra = kwargs["transformer_options"]
            named = {**dict(zip(_NAMES, args, strict=False)), **kwargs}
            by_head = bool(named.get("skip_reshape"))
            place = None if named.get("skip_output_reshape") else self._located(extra, k, 2 if by_head else 1)
            attend = None if place is None else self._attends.get(place.layer.key)
            # Fewer heads of keys than of queries have no rows of their own for each head.
            if place is None or attend is None or (by_head and k.shape[1] != place.layer.heads):
                return previous(attention, q, k, v, *args, **kwargs)

            def run(
                q: torch.Tensor,
                k: torch.Tensor,
                v: torch.Tensor,
                queries: slice = WHOLE,
                heads: int | None = None,
                mask: torch.Tensor | None = None,
            ) -> torch.Tensor:
                if heads is None and queries == WHOLE:
                    return previous(attention, q, k, v, *args, **kwargs)
                part: dict[str, Any] = {"transformer_options": {**extra, _PART_KEY: queries if heads is None else None}}
                if heads is not None:
                    part.update(heads=heads, mask=mask)
                elif (of_call := named.get("mask")) is not None and of_call.shape[-2] > 1:
                    part["mask"] = of_call[..., queries, :]
                # By place what came by place: other packs read it there.
                by_place = [part.pop(name, arg) for name, arg in zip(_NAMES, args, strict=False)]
                return previous(attention, q, k, v, *by_place, **{**kwargs, **part})

            layer, text, image, padding = place
            call = AttentionCall(layer, q, k, v, extra, run, text, image, by_head, padding, named.get("mask"))
            return attend(call)

        return override

    def _located(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        """Where an attention stands, of whose queries only the image's may be there."""
        part = options.get(_PART_KEY, WHOLE)
        if part is None:
            return None
        place = self._locate(options, keys, axis)
        if place is None or part == WHOLE:
            return place
        return place._replace(image=WHOLE) if part == place.image else None


def _attention(attention: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    """What the host does where the slot is empty."""
    return attention(*args, **kwargs)
