"""What has to come out one way round, whatever the exact numbers."""

from __future__ import annotations

from typing import NamedTuple

from .measured import Numbers


class Direction(NamedTuple):
    """One number must not lie below another, or below a bound."""

    higher: str
    lower: str | float

    def flipped(self, numbers: Numbers) -> str:
        """A sentence if it does not; nothing if it does, or if the numbers weren't measured."""
        higher = numbers.get(self.higher)
        lower = numbers.get(self.lower) if isinstance(self.lower, str) else None
        if higher is None or (isinstance(self.lower, str) and lower is None):
            return ""
        bound = lower.value if lower is not None else float(self.lower)
        if higher.value >= bound:
            return ""
        return f"{self.higher} is {higher.value:.3f}, below {self.lower}{'' if lower is None else f', {bound:.3f}'}."


DIRECTIONS = (
    Direction("ordered_weakening.Shape.causal.0.area", 0.2),
    Direction("ordered_weakening.Shape.causal.0.area", "ordered_weakening.Shape.shuffled.0.area"),
    Direction("misinterpretation.unsteered.wrong", "misinterpretation.adjusted_causally.wrong"),
    Direction("editing.half.p2p.kept", "editing.half.asking_anew.kept"),
    Direction("read_by_concept.Shape.causal.8.taken", 0.4),
    Direction("read_by_concept.Shape.causal.8.both", "read_by_concept.Shape.random.8.both"),
    Direction("robustness.another_seed.causal.agreement", 0.3),
    Direction("effort.values.0.effect", 0.125),
)


def flipped(numbers: Numbers) -> list[str]:
    """A sentence for every direction that doesn't hold."""
    return [sentence for one in DIRECTIONS if (sentence := one.flipped(numbers))]
