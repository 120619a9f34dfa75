"""What an edit asks of every column at every moment."""

from __future__ import annotations

import numpy as np
import pytest
from hrv_pack.hrv.editing.alignment import align
from hrv_pack.hrv.editing.edit import Edit, EditWindows, WordEdit, is_small, with_concept
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.heads.layout import AttentionLayer, HeadLayout
from hrv_pack.hrv.progress import Window
from hrv_pack.hrv.prompts.tokens import PromptWord, TokenMap
from hrv_pack.hrv.relevance.vectors import HRV

LAYOUT = HeadLayout((AttentionLayer("input", 1, 0, 2), AttentionLayer("middle", 0, 0, 2)))
HRV_OF_TWO = HRV(np.array([[0.5, 1.5, 2.0, 0.0], [1, 1, 1, 1]], np.float32), ("Color", "Size"), LAYOUT)
CROSS, LATE = Window(0.0, 0.8), Window(0.5, 0.9)


def prompt(*words: str) -> TokenMap:
    return TokenMap(" ".join(words), tuple(PromptWord(word, (n + 1,)) for n, word in enumerate(words)), 6)


def edit(*words: WordEdit, source: TokenMap | None = None) -> Edit:
    alignment = align(source or prompt("a", "red", "car"), prompt("a", "blue", "car"))
    return Edit(alignment, EditWindows(CROSS, Window(0.0, 0.4)), words)


def columns(of: Edit, *active: Window) -> tuple[np.ndarray, np.ndarray]:
    """The weights of the source's attention and of the target's own while these windows are open."""
    found = of.columns(frozenset(active), 6, 6)
    assert found is not None
    return found.mapped, found.own


def test_inside_the_window_all_is_the_sources_and_outside_nothing_changes() -> None:
    mapped, own = columns(edit(), CROSS)
    np.testing.assert_array_equal(mapped, np.eye(6))
    assert own.shape == (6, 1) and not own.any()
    assert edit().columns(frozenset(), 6, 6) is None


def test_words_with_a_concept_keep_their_own_map_scaled() -> None:
    mapped, own = columns(edit(with_concept(HRV_OF_TWO, "Color", [2], strength=0.5, weight=2.0)), CROSS)
    np.testing.assert_array_equal(mapped, np.diag([1, 1, 0, 1, 1, 1]))
    expected = np.zeros((6, 4))
    expected[2] = [1.5, 2.5, 3.0, 1.0]
    np.testing.assert_allclose(own, expected)
    clamped = with_concept(HRV_OF_TWO, "Color", [2], clamp=1.0)
    assert clamped.factors is not None and clamped.factors.tolist() == [0.5, 1, 1, 0]


def test_new_words_have_their_own_map() -> None:
    mapped, own = columns(edit(WordEdit((2,), weight=3.0), source=prompt("a", "car")), CROSS)
    assert not mapped[:, 2].any() and own[2] == 3 and np.count_nonzero(own) == 1


def test_words_have_windows_of_their_own() -> None:
    one = edit(WordEdit((2,), weight=2.0, window=LATE))
    assert one.moments == (CROSS, LATE)
    mapped, own = columns(one, CROSS)
    assert mapped[2, 2] == 0 and own[2] == 1 and mapped[3, 3] == 1 and own[3] == 0
    mapped, own = columns(one, CROSS, LATE)
    assert mapped[2, 2] == 2 and not own.any()
    mapped, own = columns(one, LATE)
    np.testing.assert_array_equal(mapped, np.diag([0, 0, 2, 0, 0, 0]))
    np.testing.assert_array_equal(own[:, 0], [1, 1, 0, 1, 1, 1])


def test_edits_of_the_same_word_add_up() -> None:
    one = edit(
        with_concept(HRV_OF_TWO, "Color", [2], weight=2.0, window=LATE), WordEdit((2, 3), weight=0.5)
    )  # fmt: skip
    mapped, own = columns(one, CROSS, LATE)
    np.testing.assert_allclose(own[2], [0.5, 1.5, 2.0, 0.0])
    assert mapped[3, 3] == 0.5 and not own[3].any()
    assert columns(one, CROSS)[1][2].tolist() == [1.0] * 4


def test_an_edit_is_told_in_lines() -> None:
    color = with_concept(HRV_OF_TWO, "color", [2])
    late = WordEdit((1, 3), weight=2.0, window=LATE)
    assert edit(color, late, WordEdit((3,))).describe().splitlines() == [
        "a = a",
        "red -> blue",
        "car = car",
        "blue: Color",
        "a car: weight 2, progress 0.5 to 0.9",
        "car: as aligned",
    ]


@pytest.mark.parametrize(
    ("latent", "layer", "size", "reached"),
    [
        (64 * 64, 16 * 16, 1 / 16, True),
        (64 * 64, 32 * 32, 1 / 16, False),
        (65 * 65, 17 * 17, 1 / 16, True),
        (96 * 40, 24 * 10, 1 / 16, True),
        (16 * 16, 8 * 8, 1 / 4, True),
        (16 * 16, 16 * 16, 1 / 4, False),
        (16 * 16, 16 * 16, 1.0, True),
        (16 * 16, 2 * 2, 0.0, False),
    ],
)
def test_layers_are_small_by_their_share_of_the_latent(latent: int, layer: int, size: float, reached: bool) -> None:
    assert is_small(size, layer, latent) is reached


@pytest.mark.parametrize("size", [-0.1, 1.5, float("nan")])
def test_a_share_is_a_share(size: float) -> None:
    with pytest.raises(HRVError, match="share of the latent's positions from 0 to 1"):
        EditWindows(CROSS, CROSS, size)


def test_numbers_are_finite() -> None:
    with pytest.raises(HRVError, match="weight of edited words must be a finite number, not nan"):
        WordEdit((1,), weight=float("nan"))
    with pytest.raises(HRVError, match="strength of an edit must be a finite number, not inf"):
        with_concept(HRV_OF_TWO, "Color", [1], strength=float("inf"))


def test_an_hrv_of_other_heads_is_refused() -> None:
    other = HeadLayout(LAYOUT.layers[:1])
    edit(with_concept(HRV_OF_TWO, "Color", [2])).require_layout(LAYOUT)
    with pytest.raises(HRVError, match=r"edit by Color was made for 4 heads.* this model has 2 heads"):
        edit(with_concept(HRV_OF_TWO, "Color", [2])).require_layout(other)
