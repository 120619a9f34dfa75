"""All claims, in the order of the document."""

from __future__ import annotations

from pathlib import Path

from ...host.mini.loader import WEIGHTS
from .editing import Editing
from .effort import Effort
from .hrvs import HRVs
from .misinterpretation import Misinterpretation
from .ordered_weakening import OrderedWeakening
from .pieces import Part
from .read_by_concept import ReadByConcept
from .robustness import Robustness
from .two_subjects import TwoSubjects


def all_parts(stage: Path | None = None, weights: Path = WEIGHTS) -> tuple[HRVs, dict[str, Part]]:
    """The HRVs that all rest on, and every claim by name; ``stage`` are weights of another stage of training."""
    hrvs = HRVs(stage, weights)
    claims = (OrderedWeakening, Misinterpretation, Editing, TwoSubjects, ReadByConcept, Robustness, Effort)
    parts: list[Part] = [claim(hrvs) for claim in claims]
    return hrvs, {part.name: part for part in parts}
