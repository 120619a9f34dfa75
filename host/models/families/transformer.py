"""Transformers: denoisers of blocks of one or two kinds, whose attention goes through the host's slot."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, ClassVar

import torch

from ....hrv.errors import HRVError
from ....hrv.heads.layout import AttentionLayer, HeadLayout
from ..capabilities import ALL, Capability
from .architecture import Architecture
from .attention_call import NOTHING, Wrap
from .overriding import Locate, OverrideWrapping, Place

_TOKENS_KEY = "hrv_text_tokens"
_READER_KEY = "hrv_reads_text"


class Transformer(Architecture):
    """A denoiser of numbered blocks.

    The host writes the number of a block, and its kind where there are two, into a call's options before it runs.
    Classes are told by name: older hosts lack some.
    """

    denoiser_class: ClassVar[str]
    """Module and name of the class of the family's denoisers."""

    family: ClassVar[str]
    """The family of the layout."""

    blocks: ClassVar[Mapping[str, str]]
    """The attribute of the denoiser that holds its blocks in forward order, by the block name of their section."""

    heads: ClassVar[str]
    """The attribute of a block, with dots, that is the number of heads of its attention to the text."""

    output: ClassVar[str]
    """The attribute of a block, with dots, that takes what its heads found to the image."""

    capabilities = ALL - {Capability.BLENDING}

    @classmethod
    def adapts(cls, denoiser: Any) -> bool:
        """Of that class and no other: classes made from it have other layers too."""
        return f"{type(denoiser).__module__}.{type(denoiser).__qualname__}" == cls.denoiser_class

    @cached_property
    def layout(self) -> HeadLayout:
        """A layer for each block. Raises HRVError for blocks that another pack has exchanged or taken away."""
        try:
            layers = [
                AttentionLayer(block, number, 0, int(attrgetter(self.heads)(module)))
                for block, name in self.blocks.items()
                for number, module in enumerate(getattr(self.denoiser, name))
            ]
        except (AttributeError, TypeError):
            layers = []
        if not layers:
            raise HRVError(
                "Another node has exchanged the attention of this model, so its heads can't be told. Connect the model "
                "before that node."
            )
        return HeadLayout(tuple(layers), self.family)

    @property
    def checkpointed(self) -> tuple[type[torch.nn.Module], ...]:
        """The blocks."""
        return tuple({type(module) for name in self.blocks.values() for module in getattr(self.denoiser, name)})

    def written(self, layer: AttentionLayer, found: torch.Tensor) -> torch.Tensor:
        """By the block's :attr:`output`."""
        made: torch.Tensor = attrgetter(self.output)(self.block(layer))(found)
        return made

    def block(self, layer: AttentionLayer) -> Any:
        """The block of a layer."""
        return getattr(self.denoiser, self.blocks[layer.block])[layer.id]

    def wrapping(self, wrap: Wrap) -> OverrideWrapping:
        """In the host's slot."""
        return self._wrapping(wrap, self.located)

    def _wrapping(self, wrap: Wrap, locate: Locate) -> OverrideWrapping:
        attends = {layer.key: attend for layer in self.layout.layers if (attend := wrap(layer)) is not None}
        return OverrideWrapping(attends, self.prepared, locate)

    @property
    def patch(self) -> int:
        """The side of the patches of a latent that are one position of the image."""
        side: int = self.denoiser.patch_size
        return side

    @property
    def least_share(self) -> float:
        """All attentions have all of the image."""
        return 1.0 / self.patch**2

    def places(self, latent: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
        """The patches, the same in every layer."""
        *frames, height, width = latent
        return (*frames, -(-height // self.patch), -(-width // self.patch))

    def prepared(self, options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any]:
        """A copy of a call's options with all that :meth:`located` looks for."""
        return {**options, _TOKENS_KEY: 0 if context is None else context.shape[1]}

    @abstractmethod
    def located(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        """Where an attention with these options and ``keys`` stands, their tokens along ``axis``.

        None for attention of other layers, and where it is not the image that attends to the text.
        """

    @cached_property
    def _layers(self) -> dict[tuple[str, int], AttentionLayer]:
        return {(layer.block, layer.id): layer for layer in self.layout.layers}

    def is_text(self, options: Mapping[str, Any], tokens: int) -> bool:
        """Whether so many keys are those of a conditioning."""
        return bool(options[_TOKENS_KEY] == tokens)

    def layer_at(self, options: Mapping[str, Any]) -> AttentionLayer | None:
        """The layer of the block that runs."""
        first, *more = self.blocks
        kind = options.get("block_type", "") if more else first
        return self._layers.get((kind, options.get("block_index", -1)))


class JointTransformer(Transformer):
    """Text and image in one attention, the text first. What the text becomes on its way depends on the image."""

    text_is_fixed = False

    def image_start(self, tokens: int) -> int:
        """The first query of the image behind so many tokens of a conditioning."""
        return tokens

    def located(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        """The conditioning's tokens come first among the keys; the image's queries begin where all text ends."""
        layer, tokens = self.layer_at(options), options[_TOKENS_KEY]
        start = self.image_start(tokens)
        if layer is None or keys.shape[axis] <= start:
            return None
        return Place(layer, slice(0, start), slice(start, None), padding=start - tokens)

    def wrapping_itself(self, wrap: Wrap) -> None:
        """There is no other attention of the image."""


class _Reader:
    """Whether the attention that comes next in a block reads the text, of one call of the model."""

    def __init__(self) -> None:
        self.reads_text = False


class CrossTransformer(Transformer):
    """Attention of the image to itself, then to the text: the same options come with both.

    The host's patches tell them apart: one runs before or behind each.
    """

    patches: ClassVar[Mapping[str, Any]]
    """The host's patches, by name, that call :func:`next_reads`."""

    def prepared(self, options: dict[str, Any], context: torch.Tensor | None) -> dict[str, Any]:
        """With patches that tell which attention comes; those of a call that has them stay."""
        options = super().prepared(options, context)
        if _READER_KEY in options:
            return options
        every = options.get("patches", {})
        patches = {name: [*every.get(name, ()), patch] for name, patch in self.patches.items()}
        return {**options, _READER_KEY: _Reader(), "patches": {**every, **patches}}

    def located(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        """All keys are the text's and all queries the image's."""
        layer = self.layer_at(options) if options[_READER_KEY].reads_text else None
        return None if layer is None else Place(layer)

    def wrapping_itself(self, wrap: Wrap) -> OverrideWrapping:
        """In the same slot."""
        return self._wrapping(wrap, self._located_itself)

    def _located_itself(self, options: dict[str, Any], keys: torch.Tensor, axis: int) -> Place | None:
        layer = None if options[_READER_KEY].reads_text else self.layer_at(options)
        return None if layer is None else Place(layer, NOTHING)


def next_reads(options: Mapping[str, Any], text: bool) -> None:
    """Note whether the attention that comes next reads the text or the image."""
    options[_READER_KEY].reads_text = text
