"""What this pack needs to know of how a family of denoisers attends to text: an adapter for each family.

Nothing outside this folder knows a family's modules. :func:`~..architectures.architecture_of` chooses the adapter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch

from ....hrv.heads.layout import HeadLayout
from ..capabilities import Capability
from .attention_call import Wrap, Wrapping


class Architecture(ABC):
    """A denoiser (the host's ``diffusion_model``) as its family has it. Reads modules and changes none."""

    name: ClassVar[str]
    """What people call the family: "Anima"."""

    supported: ClassVar[str]
    """The family's models in words, for whoever comes with another: "models with ...: A, B and C"."""

    capabilities: ClassVar[frozenset[Capability]]
    """What can be done with the family's heads."""

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

    def first_token(self, own: int, reached: int) -> int:
        """Where the first of a conditioning's ``own`` tokens is among the ``reached`` that the model gets."""
        return 0

    def text_keys(self, own: int) -> tuple[int, int]:
        """The number of text keys, padding included, that ``own`` tokens of a conditioning become, and the first."""
        return own, 0

    @abstractmethod
    def wrapping(self, wrap: Wrap) -> Wrapping:
        """What puts ``wrap``'s doings at every layer, each once for whatever it is put around."""
