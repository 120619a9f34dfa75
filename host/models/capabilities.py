"""What this pack can do with the heads of a model; which family can do what is with each family's adapter."""

from __future__ import annotations

from enum import Enum


class Capability(Enum):
    """A capability, by the names of its nodes."""

    CONTROLS = "Strengthen, Adjust, Weaken and Scale Heads"
    READING = "Read by Concept"
    CAUSAL = "Build Causal HRV"
    VALUES = "Instant HRV"
    WEAKENING = "Ordered Weakening"
    RECORDING = "Build HRV"
    EDITING = "Prompt Edit"
    BLENDING = "Local Blend"
    EXCITEMENT = "Attend and Excite"


ALL = frozenset(Capability)
