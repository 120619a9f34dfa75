"""Single inputs that nodes of several kinds have."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..host.work.places import ALL_GPUS, THIS_MACHINE
from ..hrv.editing.edit import SELF_SIZE
from ..hrv.relevance.factors import AUTOMATIC, CAUSAL_CLAMP, FORMS

LARGEST_FACTOR = 10.0
"""How far factors and weights go, above and below 0."""

LARGEST_SEED = 2**64 - 1
"""That of the host's samplers: a seed that is linked to several nodes fits all of them."""


def seed_input(name: str, tooltip: str, advanced: bool | None = None) -> Any:
    """A seed that stays as it is from run to run."""
    return io.Int.Input(
        name, default=0, min=0, max=LARGEST_SEED, control_after_generate=False, tooltip=tooltip, advanced=advanced
    )


def progress_input(name: str, default: float, tooltip: str, least: float = 0.0, advanced: bool = True) -> Any:
    """A moment of sampling: 0 is pure noise, 1 the finished image; ``least`` is below 0 if that has a meaning."""
    return io.Float.Input(name, default=default, min=least, max=1.0, step=0.01, tooltip=tooltip, advanced=advanced)


def strength_input(tooltip: str, optional: bool = False) -> Any:
    return io.Float.Input("strength", default=1.0, min=-5.0, max=5.0, step=0.05, tooltip=tooltip, optional=optional)


def factor_input(name: str, default: float, tooltip: str, advanced: bool | None = None) -> Any:
    """What something is multiplied by."""
    return io.Float.Input(
        name,
        default=default,
        min=-LARGEST_FACTOR,
        max=LARGEST_FACTOR,
        step=0.1,
        tooltip=tooltip,
        advanced=advanced,
    )


def attention_size_input(name: str, tooltip: str) -> Any:
    """The largest attention layers that something takes place in, as a share of the latent's positions."""
    return io.Float.Input(name, default=SELF_SIZE, min=0.0, max=1.0, step=0.0625, tooltip=tooltip, advanced=True)


def clamp_input() -> Any:
    """The limit of the HRV's elements."""
    return io.Float.Input(
        "clamp",
        default=0.0,
        min=0.0,
        max=100.0,
        step=0.5,
        tooltip="Upper limit for the HRV's elements; 0 for no limit. Published: 9 for SDXL, none for SD 1.x.",
        advanced=True,
    )


def factors_input() -> Any:
    """How factors follow from relevances."""
    return io.Combo.Input(
        "factors",
        options=list(FORMS),
        default=AUTOMATIC,
        optional=True,
        tooltip="How a head's factor follows from its relevance: 'as published' is the HRV's element itself, 'clamped' "
        f"at most {CAUSAL_CLAMP:g}. 'automatic': clamped for causal HRVs, whose elements break images, unless 'clamp' "
        "is set; as published for all others.",
        advanced=True,
    )


def stop_input(tooltip: str) -> Any:
    """The agreement at which a build ends early."""
    return io.Float.Input(
        "stop_at", default=0.0, min=0.0, max=0.999, step=0.005, optional=True, tooltip=tooltip, advanced=True
    )


def place_input() -> Any:
    """Where a node's work is done."""
    return io.String.Input(
        "run_on",
        default=THIS_MACHINE,
        optional=True,
        tooltip=f"'{THIS_MACHINE}', '{ALL_GPUS}', or the address of a Ray cluster such as 10.0.0.5:6379 (auto: the "
        "one that this machine is part of). The last two need the Python package ray.",
        advanced=True,
    )


def shard_inputs() -> list[Any]:
    """Which part of a build to make."""
    return [
        io.Int.Input(
            "shard",
            default=1,
            min=1,
            max=100_000,
            optional=True,
            tooltip="Which shard to build. Shards are parts of one build; they can be made on different machines and "
            "combined with Merge HRVs.",
            advanced=True,
        ),
        io.Int.Input(
            "shards",
            default=1,
            min=1,
            max=100_000,
            optional=True,
            tooltip="How many shards to split the build into; 1 builds all of it here.",
            advanced=True,
        ),
    ]
