"""Value contrast against its definition, word by word in float64."""

from __future__ import annotations

import pytest
import torch
from hrv_pack.hrv_kernels.value_contrast import value_contrast


def reference(values: torch.Tensor, out: torch.Tensor, numbers: list[int]) -> torch.Tensor:
    """Root mean square of |W_O,h (v - mean)| over the words of each concept: float64 [N, heads]."""
    rows, first = [], 0
    for number in numbers:
        row = []
        for head in range(values.shape[1]):
            written = [out[:, head].double() @ values[first + word, head].double() for word in range(number)]
            mean = torch.stack(written).mean(dim=0)
            row.append(torch.stack([(one - mean).square().sum() for one in written]).mean().sqrt())
        rows.append(torch.stack(row))
        first += number
    return torch.stack(rows)


@pytest.mark.parametrize("numbers", [[2], [3, 2, 7]])
@pytest.mark.parametrize(("heads", "width", "channels"), [(8, 40, 320), (1, 16, 16), (2, 8, 3)])
def test_it_is_what_it_is_defined_as(numbers: list[int], heads: int, width: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    # Words that differ by a hundredth of what they share: the common part must not drown the contrast.
    values = torch.randn(1, heads, width, generator=generator) + 0.01 * torch.randn(
        sum(numbers), heads, width, generator=generator
    )
    out = torch.randn(channels, heads, width, generator=generator)
    found = value_contrast(values, out, numbers)
    assert found.shape == (len(numbers), heads) and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), reference(values, out, numbers), rtol=1e-4, atol=0)


def test_words_that_are_alike_have_none() -> None:
    values = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(0)).expand(4, 2, 4)
    assert not value_contrast(values, torch.randn(8, 2, 4), [4]).any()
