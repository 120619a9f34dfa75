"""Experiments of ordered weakening: which prompts show a concept, and the word that tells whether it is there.

The text form (docs/ordered-weakening.md)::

    [Color]
    a <red | blue> {car | bowl}

stands for four prompts of the concept Color; in each, the word in angle brackets is the one that images are scored by.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ..errors import HRVError, is_printable, quoted
from ..relevance.vocabulary import find_concept, fold, tidy

_EXAMPLE = "Write lines like 'a <red | blue> {car | bowl}' under a concept in brackets, like '[Color]'."
_GROUP = re.compile(r"<([^<>{}]*)>|\{([^<>{}]*)\}")
_MOST_CASES = 10_000

AnyItem = TypeVar("AnyItem")


@dataclass(frozen=True)
class Case:
    """One prompt of an experiment: what it is about, and the word or phrase that its images are scored by."""

    concept: str
    prompt: str
    target: str


def spread(every: Sequence[AnyItem], most: int) -> list[AnyItem]:
    """At most so many of some things, evenly spread through them."""
    if len(every) <= most:
        return list(every)
    return [every[number * len(every) // most] for number in range(most)]


@dataclass(frozen=True)
class Experiment:
    """Prompts for some concepts, in order; no prompt stands twice for one concept and target."""

    cases: tuple[Case, ...]

    @property
    def concepts(self) -> tuple[str, ...]:
        """The concepts that there are prompts for, in order."""
        return tuple(dict.fromkeys(case.concept for case in self.cases))

    def of(self, concept: str, most: int = 0) -> tuple[Case, ...]:
        """The cases of one concept, found whatever its case and spacing; ``most`` takes that many, evenly spread.

        0 takes all. Raises HRVError for a concept without cases.
        """
        name = self.concepts[find_concept(concept, self.concepts, "experiment")]
        cases = [case for case in self.cases if case.concept == name]
        return tuple(spread(cases, most) if most else cases)

    def __add__(self, other: Experiment) -> Experiment:
        """Both, the second one's concepts named as the first one writes them."""
        names = {fold(name): name for name in self.concepts}
        more = (replace(case, concept=names.get(fold(case.concept), case.concept)) for case in other.cases)
        return Experiment(tuple(dict.fromkeys([*self.cases, *more])))


def parse_experiment(text: str) -> Experiment:
    """Read concepts in brackets, each followed by prompts, one a line.

    Alternatives in angle brackets are targets: every prompt has exactly one such group. Alternatives in braces
    multiply the prompts. Blank lines and everything after a ``#`` are skipped. Raises HRVError with the line's number
    for anything else, for a text without prompts, and for more than ten thousand of them.
    """
    cases: dict[Case, None] = {}
    names: dict[str, str] = {}
    concept = ""
    for number, line in enumerate(text.splitlines(), start=1):
        content = tidy(line.partition("#")[0])
        if not content:
            continue
        if content.startswith("[") and content.endswith("]"):
            name = _checked_name(tidy(content[1:-1]), number)
            concept = names.setdefault(fold(name), name)
            continue
        if not concept:
            raise HRVError(f"Line {number}: {quoted(content)} comes before the first concept. {_EXAMPLE}")
        for case in _expanded(concept, content, number):
            cases[case] = None
            if len(cases) > _MOST_CASES:
                raise HRVError(f"Line {number}: an experiment can have at most {_MOST_CASES} prompts.")
    if not cases:
        raise HRVError(f"There are no prompts. {_EXAMPLE}")
    return Experiment(tuple(cases))


def _checked_name(name: str, line: int) -> str:
    """The name of a concept. Raises HRVError for one that can't be shown."""
    if not is_printable(name):
        raise HRVError(f"Line {line}: there is no name in the brackets. {_EXAMPLE}")
    return name


def _expanded(concept: str, template: str, line: int) -> Iterator[Case]:
    """All prompts of a template."""
    groups = list(_GROUP.finditer(template))
    if sum(group[1] is not None for group in groups) != 1:
        raise HRVError(
            f"Line {line}: {quoted(template)} needs exactly one group in angle brackets, the word that its images "
            f"are scored by. {_EXAMPLE}"
        )
    rest = _GROUP.sub("", template)
    if any(letter in rest for letter in "<>{}"):
        raise HRVError(f"Line {line}: a bracket in {quoted(template)} is not closed, or is inside another. {_EXAMPLE}")
    # Each choice once, so that what is multiplied out is what is counted.
    choices = [
        list(dict.fromkeys(tidy(choice) for choice in (group[1] or group[2] or "").split("|"))) for group in groups
    ]
    if not all(itertools.chain(*choices)):
        raise HRVError(f"Line {line}: {quoted(template)} has an empty group. {_EXAMPLE}")
    if math.prod(map(len, choices)) > _MOST_CASES:
        raise HRVError(
            f"Line {line}: the groups of {quoted(template)} multiply to more prompts than an experiment can have, "
            f"which is at most {_MOST_CASES} prompts."
        )
    target_group = next(number for number, group in enumerate(groups) if group[1] is not None)
    for chosen in itertools.product(*choices):
        words = iter(chosen)
        prompt = tidy(_GROUP.sub(lambda _: next(words), template))  # noqa: B023 - used before the next round
        yield Case(concept, prompt, chosen[target_group])
