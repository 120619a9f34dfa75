"""Scoring by cosines, with encoders made up of colors: no model, no host."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv.errors import HRVError
from hrv_pack.hrv.scoring.cosine import BATCH, PLAIN_COLORS, CosineScorer
from hrv_pack.hrv.scoring.experiments import Case

NAMES = list(PLAIN_COLORS)


class ColorScorer(CosineScorer):
    """A space with an axis for each plain color and one that all share; names may be ``mistaken`` for others."""

    def __init__(self, mistaken: bool = False):
        super().__init__("color", {}, most_tokens=4)
        self.mistaken = mistaken
        self.encoded: list[str] = []
        self.batches: list[int] = []

    def count_tokens(self, text: str) -> int:
        return len(text.split())

    def encode_text(self, text: str) -> torch.Tensor:
        self.encoded.append(text)
        place = (NAMES.index(text.split()[-1]) + self.mistaken) % len(NAMES)
        return self._vector(torch.tensor([place]), shared=2.0)[0]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(images))
        nearest = torch.cdist(images.mean((1, 2)), torch.tensor(list(PLAIN_COLORS.values()))).argmin(1)
        return self._vector(nearest, shared=5.0)

    def _vector(self, places: torch.Tensor, shared: float) -> torch.Tensor:
        axes = torch.nn.functional.one_hot(places, len(NAMES)).float()
        return torch.cat([axes, torch.full((len(places), 1), shared)], 1)


def case(target: str) -> Case:
    return Case("Color", f"a {target} car", target)


def images(*names: str) -> torch.Tensor:
    return torch.tensor([PLAIN_COLORS[name] for name in names])[:, None, None].repeat(1, 3, 5, 1)


def test_scores_are_cosines() -> None:
    found = ColorScorer().score(images("red", "red"), [case("red"), case("blue")])
    lengths = (26.0 * 5.0) ** 0.5
    assert found == pytest.approx([11 / lengths, 10 / lengths])
    assert all(type(score) is float for score in found)


def test_every_target_is_encoded_once_and_every_image_in_a_batch() -> None:
    scorer = ColorScorer()
    shown = [NAMES[number % 3] for number in range(2 * BATCH + 3)]
    cases = [case(NAMES[number % 2]) for number in range(len(shown))]
    found = scorer.score(images(*shown), cases)
    assert scorer.batches == [BATCH, BATCH, 3]
    again = [scorer.score(images(name), [each])[0] for name, each in zip(shown, cases, strict=True)]
    assert found == again
    assert scorer.encoded == NAMES[:2]


def test_colors_are_recognised_where_names_stand_for_them() -> None:
    assert ColorScorer().recognised_colors() == NAMES
    assert ColorScorer(mistaken=True).recognised_colors() == []


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("", "The target '' has no words to compare images with"),
        ("one two three four five", "The target 'one two .* has 5 tokens, and this CLIP reads 4: write a shorter one"),
    ],
)
def test_targets_that_cannot_be_encoded_whole_are_refused(target: str, sentence: str) -> None:
    scorer = ColorScorer()
    scorer.check([case("red"), case("one two three four")], 1, 999)
    with pytest.raises(HRVError, match=sentence):
        scorer.check([case("red"), case(target)], 128, 128)
    assert scorer.encoded == []
