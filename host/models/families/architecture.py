"""What this pack needs to know of how a family of denoisers attends to text: an adapter for each family.

Nothing outside this folder knows a family's modules. :func:`~..architectures.architecture_of` chooses the adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch

from ....hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey

ReplacerKey = tuple[str | int, ...]
"""What the host finds a replacer by among ``patches_replace`` in the options of a call of the model."""


class CrossAttention(Protocol):
    """The module of one cross-attention layer.

    Image states [B, P, C] to queries [B, P, heads x dim_head], a context [B, T, C_text] to keys and values
    [B, T, heads x dim_head], heads one behind the other; ``to_out`` takes what they found to the layer's output.
    """

    heads: int
    dim_head: int

    @property
    def to_q(self) -> torch.nn.Module: ...
    @property
    def to_k(self) -> torch.nn.Module: ...
    @property
    def to_v(self) -> torch.nn.Module: ...
    @property
    def to_out(self) -> torch.nn.Module: ...


class Architecture(ABC):
    """A denoiser (the host's ``diffusion_model``) as its family has it. Reads modules and changes none."""

    denoiser_class: ClassVar[type[torch.nn.Module]]
    """The module class by which the family's denoisers are known."""

    supported: ClassVar[str]
    """The family's models in words, for whoever comes with another: "models with ...: A, B and C"."""

    checkpointed: ClassVar[tuple[type[torch.nn.Module], ...]]
    """The modules that keep only their inputs for a backward pass, and are run again for it.

    They take tensors and options by position, give one tensor, and together hold nearly all activations.
    """

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser

    @cached_property
    @abstractmethod
    def cross_attention(self) -> Mapping[LayerKey, CrossAttention]:
        """The modules of all cross-attention layers in canonical order; empty for a denoiser without any."""

    @abstractmethod
    def replacer_keys(self, layer: AttentionLayer) -> tuple[ReplacerKey, ...]:
        """Where the host looks for the replacer of a layer's attention: it takes the first that is there.

        They hold for its cross-attention ("attn2") as for the self-attention beside it ("attn1").
        """

    @cached_property
    def layout(self) -> HeadLayout:
        """The head positions of :attr:`cross_attention`. Raises HRVError where there is none."""
        return HeadLayout(
            tuple(
                AttentionLayer(block, number, index, heads=int(module.heads))
                for (block, number, index), module in self.cross_attention.items()
            )
        )
