"""The language for sets of head positions: what it picks, how sets are spelled, what it refuses."""

from __future__ import annotations

import pytest
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout, LayerKey
from hrv_pack.hrv.heads.sets import parse_heads, spell_heads
from hrv_pack.tests.support.fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st

SD1, _, SDXL = (family.layout() for family in FAMILIES)
SMALL = HeadLayout(
    (
        AttentionLayer("input", 1, 0, 2),
        AttentionLayer("input", 4, 0, 3),
        AttentionLayer("input", 4, 1, 3),
        AttentionLayer("middle", 0, 0, 4),
        AttentionLayer("middle", 0, 1, 4),
        AttentionLayer("output", 0, 0, 3),
        AttentionLayer("output", 11, 0, 2),
    )
)
DOWN1, DOWN4_0, DOWN4_1 = [0, 1], [2, 3, 4], [5, 6, 7]
MID_0, MID_1 = [8, 9, 10, 11], [12, 13, 14, 15]
UP0, UP11 = [16, 17, 18], [19, 20]


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("", []),
        (" \n ; ", []),
        ("all", list(range(21))),
        ("down", [*DOWN1, *DOWN4_0, *DOWN4_1]),
        ("mid", [*MID_0, *MID_1]),
        ("mid0", [*MID_0, *MID_1]),
        ("up11", UP11),
        ("down4", [*DOWN4_0, *DOWN4_1]),
        ("down4.1", DOWN4_1),
        ("down.1", DOWN4_1),
        ("all.1", [*DOWN4_1, *MID_1]),
        ("down0-3", DOWN1),
        ("down2-99999", [*DOWN4_0, *DOWN4_1]),
        ("up0-11", [*UP0, *UP11]),
        ("mid.0-7", [*MID_0, *MID_1]),
        ("mid.1:0,2-3", [12, 14, 15]),
        ("mid.0:3,3,1", [9, 11]),
        ("all:1", [1, 3, 6, 9, 13, 17, 20]),
        ("down4:0-1", [2, 3, 5, 6]),
        ("up11 mid.0:0\ndown1;down1:0", [0, 1, 8, 19, 20]),
        ("ALL !Mid !down", [*UP0, *UP11]),
        ("mid !mid.1 mid.1:3", [*MID_0, 15]),
        ("up0 !down", UP0),
        ("mid !mid", []),
        ("mid.0 : 0 , 2 - 3".replace(" - ", "-"), [8, 10, 11]),
    ],
)
def test_terms_pick_heads(text: str, positions: list[int]) -> None:
    assert parse_heads(SMALL, text) == tuple(positions)


def test_blocks_have_the_ids_of_the_host() -> None:
    def heads(layout: HeadLayout, key: LayerKey, *numbers: int) -> set[int]:
        first = layout.head_slice(key).start
        return {first + number for number in numbers}

    found = set(parse_heads(SD1, "down2:3,5 mid:0 up0-5"))
    ups = [heads(SD1, ("output", number, 0), *range(8)) for number in (3, 4, 5)]
    assert found == heads(SD1, ("input", 2, 0), 3, 5) | heads(SD1, ("middle", 0, 0), 0) | set().union(*ups)
    assert set(parse_heads(SDXL, "down7.9:19")) == heads(SDXL, ("input", 7, 9), 19)


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ([], ""),
        (range(21), "all"),
        ([*MID_0, *MID_1], "mid"),
        (MID_1, "mid.1"),
        ([8, 9, 10, 12, 13, 14], "mid:0-2"),
        ([9, 11], "mid.0:1,3"),
        ([8, 9], "mid.0:0,1"),
        ([0, 2, 5, 8, 12, 16, 19], "all:0"),
        (range(8, 21), "mid up"),
        (range(4, 21), "all !down1 !down4.0:0,1"),
        ([*DOWN1, *DOWN4_0, *DOWN4_1, *UP11], "down up11"),
        ([*DOWN4_0, *UP0], "down4.0 up0"),
        ([0, 2, 5, 6, 19], "down1:0 down4.0:0 down4.1:0,1 up11:0"),
    ],
)
def test_sets_are_spelled_shortly(positions: list[int], text: str) -> None:
    assert spell_heads(SMALL, positions) == text
    assert parse_heads(SMALL, text) == tuple(positions)


@given(st.sampled_from([SMALL, SD1, SDXL]).flatmap(lambda layout: st.tuples(st.just(layout), subsets(layout))))
def test_what_is_spelled_is_read_as_the_same_heads(drawn: tuple[HeadLayout, set[int]]) -> None:
    layout, positions = drawn
    assert parse_heads(layout, spell_heads(layout, positions)) == tuple(sorted(positions))


def subsets(layout: HeadLayout) -> st.SearchStrategy[set[int]]:
    """Any heads, more or less of whole layers, so that layers are alike now and then."""
    everywhere = st.sets(st.integers(0, layout.head_count - 1))
    layers = st.sets(st.sampled_from(layout.layers))
    least = min(layer.heads for layer in layout.layers)
    heads = st.one_of(st.none(), st.sets(st.integers(0, least - 1)))

    def in_layers(chosen: set[AttentionLayer], numbers: set[int] | None) -> set[int]:
        return {
            layout.head_slice(layer.key).start + number
            for layer in chosen
            for number in (range(layer.heads) if numbers is None else numbers)
        }

    of_layers = st.builds(in_layers, layers, heads)
    return st.one_of(everywhere, of_layers, st.builds(set.symmetric_difference, of_layers, everywhere))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mid up99", r"'up99' picks no layer of this model\. There are up0\.0, up11\.0\."),
        ("up1-10", "'up1-10' picks no layer"),
        ("down5", r"There are down1\.0, down4\.0-1\."),
        ("down1.1", "'down1.1' picks no layer"),
        ("Mid1", r"'Mid1' picks no layer of this model\. There is mid\.0-1\."),
        ("all.2", r"There are down1\.0, down4\.0-1, mid\.0-1, up0\.0, up11\.0"),
        ("mid:4", r"'mid:4' names head 4, but the heads of mid\.0 are 0 to 3"),
        ("down:0-2", r"names head 2, but the heads of down1\.0 are 0 to 1"),
        ("all !mid.0:0,9", "'!mid.0:0,9' names head 9"),
        ("up11-0", "'up11-0' counts backwards: write 0-11"),
        ("mid:3-1", "counts backwards: write 1-3"),
        ("!mid", "'!mid' removes heads, but there are none before it.*'all !mid'"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(text: str, sentence: str) -> None:
    with pytest.raises(HRVError, match=sentence):
        parse_heads(SMALL, text)


@pytest.mark.parametrize(
    "term",
    ["middle", "all0", "up0,11", "mid:", "mid.", "mid:a", "mid:-1", "up1.0.0", "3", "! mid", "!", "mid:٣", "up123456"],
)
def test_what_cannot_be_read_is_shown_with_an_example(term: str) -> None:
    with pytest.raises(HRVError, match=r"isn't a set of heads\. Write terms like down4\.1:3,5") as error:
        parse_heads(SMALL, f"all {term}")
    assert f"'{term.split()[0]}'" in str(error.value)


def test_a_long_text_is_cut_in_the_message() -> None:
    with pytest.raises(HRVError) as error:
        parse_heads(SMALL, "x" * 10_000)
    assert len(str(error.value)) < 250


def test_a_section_that_a_model_lacks_is_said_to_be_missing() -> None:
    with pytest.raises(HRVError, match=r"'mid' picks no layer of this model\. There is no mid layer, only down\."):
        parse_heads(HeadLayout(SMALL.layers[:1]), "mid")


DOUBLE = [AttentionLayer("double", number, 0, heads=2) for number in range(3)]
JOINT = HeadLayout((*DOUBLE, *(AttentionLayer("single", number, 0, heads=2) for number in range(4))), "flux")


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        ("double1", (2, 3)),
        ("double0-1:1 single2", (1, 3, 10, 11)),
        ("single !single1-3:0", (6, 7, 9, 11, 13)),
        ("all !double", (6, 7, 8, 9, 10, 11, 12, 13)),
        ("Single3.0:1", (13,)),
    ],
)
def test_transformers_have_blocks_instead_of_down_mid_and_up(text: str, positions: tuple[int, ...]) -> None:
    assert parse_heads(JOINT, text) == positions
    assert parse_heads(JOINT, spell_heads(JOINT, positions)) == positions


def test_of_a_transformer_its_own_terms_are_explained() -> None:
    with pytest.raises(HRVError, match=r"Write terms like double4:3,5 .*, double0-5, all, or !double3 to remove"):
        parse_heads(JOINT, "what")
    with pytest.raises(HRVError, match=r"'mid' picks no layer .* no mid layer, only double and single\."):
        parse_heads(JOINT, "mid")
    with pytest.raises(HRVError, match=r"'double7' picks no layer .* There are double0, double1, double2\."):
        parse_heads(JOINT, "double7")
    assert spell_heads(JOINT, [0, 2, 4, 5]) == "double0-1:0 double2"


@pytest.mark.parametrize("positions", [[-1], [21], [0, 99]])
def test_positions_beyond_the_layout_have_no_spelling(positions: list[int]) -> None:
    with pytest.raises(HRVError, match=r"head positions of 21 heads in 7 cross-attention layers .* are 0 to 20"):
        spell_heads(SMALL, positions)


def test_long_texts_of_white_space_are_read() -> None:
    assert parse_heads(SMALL, "mid" + " " * 100_000 + "up0") == (*MID_0, *MID_1, *UP0)
    assert parse_heads(SMALL, "mid" + " " * 50_000 + ":" + "\n" * 50_000 + "0") == (8, 12)


PIECES = st.sampled_from(["down", "mid", "up", "all", "!", ".", ":", ",", "-", ";", " ", "\n", "0", "4", "11", "99999"])


@fuzz(examples=200)
@given(text=st.lists(PIECES | st.characters(), max_size=12).map("".join))
def test_any_text_is_heads_or_a_sentence(text: str) -> None:
    try:
        heads = parse_heads(SMALL, text)
    except HRVError:
        return
    assert list(heads) == sorted(set(heads)) and set(heads) <= set(range(SMALL.head_count))
