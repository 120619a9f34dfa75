"""The kinds of networks that can be trained, by their names on the command line and by their weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .networks import MiniNetwork
from .transformer import TransformerNetwork
from .unet import UNetNetwork

Kind = Callable[[int], MiniNetwork]
"""A new network for so many known tokens."""

KINDS: dict[str, Kind] = {"unet": UNetNetwork, "transformer": TransformerNetwork}


def kind_of(weights: Iterable[str]) -> Kind:
    """The kind of network that has weights of these names: its denoiser's begin with the kind."""
    return next(kind for name, kind in KINDS.items() if any(weight.startswith(f"{name}.") for weight in weights))
