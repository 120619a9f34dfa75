"""What this pack needs to know of how a family of denoisers attends to text: an adapter for each family.

Nothing outside this folder knows a family's modules. :func:`~..architectures.architecture_of` chooses the adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch

from ....hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from ..capabilities import Capability
from .attention_call import Wrap, Wrapping


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

    name: ClassVar[str]
    """What people call the family: "Anima"."""

    supported: ClassVar[str] = ""
    """The family's models in words, for whoever comes with another ("models with ...: A, B and C"); else the name."""

    capabilities: ClassVar[frozenset[Capability]]
    """What can be done with the family's heads."""

    text_is_fixed: ClassVar[bool] = True
    """Whether keys and values of a text are the same at every latent and noise level."""

    def __init__(self, denoiser: Any):
        self.denoiser = denoiser

    @classmethod
    @abstractmethod
    def adapts(cls, denoiser: Any) -> bool:
        """Whether a denoiser is one of the family that has heads."""

    @property
    @abstractmethod
    def checkpointed(self) -> tuple[type[torch.nn.Module], ...]:
        """The modules that keep only their inputs for a backward pass, and are run again for it.

        Together they hold nearly all activations.
        """

    @property
    @abstractmethod
    def layout(self) -> HeadLayout:
        """The head positions of all layers in which the image attends to the text, in canonical order."""

    @property
    def projections(self) -> Mapping[LayerKey, CrossAttention] | None:
        """By layer, the modules that make keys and values of a conditioning as it is, where there are such modules.

        Elsewhere keys and values of a text are what a pass with this text has.
        """
        return None

    def first_token(self, own: int, reached: int) -> int:
        """Where the first of a conditioning's ``own`` tokens is among the ``reached`` that the model gets."""
        return 0

    def reached(self, own: int) -> int:
        """As how many tokens the model gets ``own`` tokens of a conditioning."""
        return own

    def in_front_of_words(self, tokens: int, first_word: int) -> range:
        """Which of the ``tokens`` that the model gets stand in front of a prompt's words, the first of them given.

        They are the text encoder's, and take up the attention that no word gets.
        """
        return range(first_word)

    def text_keys(self, own: int) -> tuple[int, int]:
        """The number of text keys, padding included, that ``own`` tokens of a conditioning become, and the first."""
        return own, 0

    @abstractmethod
    def places(self, latent: Sequence[int], options: Mapping[str, Any]) -> tuple[int, ...]:
        """The sides, (frames,) height and width, of the image's queries in an attention with these ``options``.

        ``latent`` are those of the latents. Queries behind these are of reference images, or padding.
        """

    @property
    def least_share(self) -> float:
        """The share of a latent's positions that the smallest of the image's attentions has; 0 if there is no bound."""
        return 0.0

    @abstractmethod
    def written(self, layer: AttentionLayer, found: torch.Tensor) -> torch.Tensor:
        """What a layer makes of what its heads found [N, heads x d]: [N, C], before any gate of its block."""

    @abstractmethod
    def wrapping(self, wrap: Wrap) -> Wrapping:
        """What puts ``wrap``'s doings at every layer, each once for whatever it is put around."""

    @abstractmethod
    def wrapping_itself(self, wrap: Wrap) -> Wrapping | None:
        """The same around the image's attention to itself, none of whose keys is the text's.

        None for a family that has no such attention, because it reads the text in the same one.
        """
