"""Experiments as text: what the brackets mean, and sentences for what they cannot mean."""

from __future__ import annotations

from pathlib import Path

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.experiments import Case, Experiment, parse_experiment
from hrv_pack.mini.world import CONCEPTS

SHIPPED = Path(__file__).resolve().parents[3] / "hrv_presets" / "experiments"


def prompts(text: str) -> list[tuple[str, str]]:
    return [(case.prompt, case.target) for case in parse_experiment(f"[Color]\n{text}").cases]


def test_angle_brackets_are_targets_and_braces_multiply() -> None:
    assert prompts("a <red | dark blue> {car | bowl}") == [
        ("a red car", "red"),
        ("a red bowl", "red"),
        ("a dark blue car", "dark blue"),
        ("a dark blue bowl", "dark blue"),
    ]


@pytest.mark.parametrize(
    ("text", "prompt", "target"),
    [
        ("a {car} in <red>", "a car in red", "red"),
        ("  a   <red>   car  # said of cars", "a red car", "red"),
        ("a (<red>:1.2) car", "a (red:1.2) car", "red"),
        ("<red>", "red", "red"),
    ],
)
def test_where_the_target_stands_and_what_is_around_it(text: str, prompt: str, target: str) -> None:
    assert prompts(text) == [(prompt, target)]


def test_concepts_keep_their_first_spelling_and_their_order() -> None:
    experiment = parse_experiment("[Image Style]\n<cubist>\n[Color]\n<red>\n\n[image  style]\n<pop art>\n<cubist>")
    assert experiment.concepts == ("Image Style", "Color")
    assert [case.target for case in experiment.of("IMAGE STYLE")] == ["cubist", "pop art"]


@pytest.mark.parametrize(("most", "taken"), [(0, "abcdefgh"), (8, "abcdefgh"), (99, "abcdefgh"), (4, "aceg"), (1, "a")])
def test_fewer_prompts_are_spread_evenly(most: int, taken: str) -> None:
    experiment = parse_experiment("[Color]\n<a | b | c | d | e | f | g | h>")
    assert "".join(case.target for case in experiment.of("Color", most)) == taken


def test_experiments_add_up_without_repeating_a_prompt() -> None:
    one, other = (parse_experiment(f"[Color]\n<{words}>") for words in ("red | blue", "blue | green"))
    assert [case.target for case in (one + other).cases] == ["red", "blue", "green"]
    # Prompts of one's own join a concept however its name is written.
    joined = one + parse_experiment("[ COLOR ]\na <pink> car")
    assert joined.concepts == one.concepts and joined.of("Color")[-1].prompt == "a pink car"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "There are no prompts"),
        ("# nothing but this", "There are no prompts"),
        ("[Color]", "There are no prompts"),
        ("a <red> car", "Line 1: .* before the first concept"),
        ("[ ]\n<red>", "Line 1: there is no name"),
        ("[Color]\na red car", "Line 2: .* exactly one group in angle brackets"),
        ("[Color]\na <red> <car>", "Line 2: .* exactly one group"),
        ("[Color]\n\na <red> {car", "Line 3: a bracket .* not closed"),
        ("[Color]\na <red {car}>", "Line 2: .* exactly one group"),
        ("[Color]\na <red | > car", "Line 2: .* empty group"),
        ("[Color]\na <red> {}", "Line 2: .* empty group"),
        ("[Color]\n<a> " + "{1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 0}" * 5, "at most 10000 prompts"),
    ],
)
def test_what_is_no_experiment_is_said_with_its_line(text: str, says: str) -> None:
    with pytest.raises(HRVError, match=says):
        parse_experiment(text)


def test_an_unknown_concept_is_refused_with_those_there_are() -> None:
    with pytest.raises(HRVError, match=r"Colour.*Color"):
        parse_experiment("[Color]\n<red>").of("Colour")


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.txt")), ids=lambda path: path.stem)
def test_shipped_experiments_can_be_read(path: Path) -> None:
    experiment = parse_experiment(path.read_text(encoding="utf-8"))
    assert all(len(experiment.of(concept)) >= 10 for concept in experiment.concepts)


def test_the_papers_nine_concepts_are_in_the_shipped_vocabulary() -> None:
    experiment = parse_experiment((SHIPPED / "paper-nine-concepts.txt").read_text(encoding="utf-8"))
    names = (SHIPPED.parent / "vocabularies" / "paper-34-concepts.txt").read_text(encoding="utf-8")
    assert len(experiment.concepts) == 9
    assert all(f"\n{concept}:" in f"\n{names}" for concept in experiment.concepts)


def test_hrv_minis_experiment_asks_for_what_its_world_has() -> None:
    experiment = parse_experiment((SHIPPED / "hrv-mini.txt").read_text(encoding="utf-8"))
    assert set(experiment.concepts) == set(CONCEPTS)
    assert all(case.target in CONCEPTS[case.concept] for case in experiment.cases)


def test_equal_experiments_are_equal() -> None:
    assert parse_experiment("[Color]\n<red>") == Experiment((Case("Color", "red", "red"),))


def test_groups_that_multiply_to_too_many_prompts_are_refused_before_any_is_made() -> None:
    """Thirty groups of two make a thousand million prompts."""
    with pytest.raises(HRVError, match=r"Line 2: the groups of .* at most 10000 prompts"):
        parse_experiment("[C]\n<x> " + "{a|b} " * 30)


def test_a_choice_that_is_there_twice_counts_once() -> None:
    assert len(parse_experiment("[C]\n<x> " + "{a|a} " * 30).cases) == 1


def test_thousands_of_headings_and_prompts_are_read() -> None:
    text = "".join(f"[C{number}]\n<red | blue> car {number}\n" for number in range(5000))
    assert len(parse_experiment(text).concepts) == 5000
