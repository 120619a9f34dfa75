"""What an update of Attend and Excite takes of memory."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.benchmarks.counting import CountedMemory, count_update
from hrv_pack.host.attend_and_excite.subjects import excite
from hrv_pack.host.models.layouts import head_layout
from hrv_pack.hrv.attend_and_excite.settings import ExcitementSettings
from hrv_pack.tests.support.small_host import encoded, random_hrv, small_clip_sd15, small_sd15

SUBJECTS = (("cat", "Color"), ("frog", "Shape"))


def test_memory_is_counted_while_it_is_used() -> None:
    with CountedMemory() as memory:
        first = torch.zeros(1000)
        second = first[10:] + 1.0
        second += 1.0
        assert memory.live == 4 * 1990
        third = second.view(-1)
        del first, second
        assert memory.live == 4 * 990 and memory.peak == 4 * 1990
        del third
        assert memory.live == 0 and memory.kept is None


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("weights_want_gradients", [False, True])
def test_shapes_alone_count_as_the_numbers_do(weights_want_gradients: bool, checkpointing: bool) -> None:
    """Also where weights want gradients, as those of hosts before 0.30 do, nothing more is kept."""
    model, clip = small_sd15(), small_clip_sd15()
    model.model.requires_grad_(weights_want_gradients)
    subjects = random_hrv(head_layout(model))
    _, positive, _ = excite(
        model, encoded(clip, "a cat and a frog"), SUBJECTS, subjects, ExcitementSettings(), checkpointing=checkpointing
    )
    latent, negative = torch.zeros(2, 4, 16, 24), encoded(clip, "")
    shapes, numbers = (count_update(model, positive, negative, latent, numbers=own) for own in (False, True))
    assert shapes.kept == pytest.approx(numbers.kept, rel=0.02)
    assert shapes.peak == pytest.approx(numbers.peak, rel=0.02)
    # What resizes maps is kept for the next update, of the graph nothing.
    assert 0 <= numbers.left < 0.1 * numbers.kept
