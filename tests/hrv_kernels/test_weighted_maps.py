"""Weighted, resized maps against explicit ones in float64, and what their graph keeps."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hrv_pack.hrv_kernels.weighted_maps import resizing_matrix, smoothed, weighted_maps


def drawn(positions: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q [2, P, 3 x 5], k [2, 7, 3 x 5] and weights [4, 3]."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, positions, 15), (2, 7, 15), (4, 3)
    q, k, weights = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return q.to(dtype), k.to(dtype), weights


@pytest.mark.parametrize(("size", "target"), [((16, 24), (7, 10)), ((4, 6), (7, 10)), ((6, 4), (6, 4))])
def test_maps_are_those_of_every_head_resized(size: tuple[int, int], target: tuple[int, int]) -> None:
    q, k, weights = drawn(size[0] * size[1])
    found = weighted_maps(q, k, weights, size, target)
    queries, keys = (part.unflatten(-1, (3, 5)).transpose(1, 2) for part in (q, k))
    maps = (queries @ keys.mT / 5**0.5).softmax(-1)
    for row in range(2):
        for subject in range(4):
            for token in range(7):
                expected: torch.Tensor = torch.zeros(target, dtype=torch.float64)
                for head in range(3):
                    map_ = maps[row, head, :, token].unflatten(0, size)[None, None]
                    if size[0] > target[0]:
                        reach = size[0] // target[0] // 2
                        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
                        kernel = torch.exp(-0.5 * (offsets / (0.3 * (reach - 1) + 0.8)) ** 2)
                        square = torch.outer(kernel, kernel) / kernel.sum() ** 2
                        map_ = F.conv2d(F.pad(map_, (reach,) * 4, mode="reflect"), square[None, None])
                    resized = F.interpolate(map_, size=target, mode="bicubic", align_corners=False)[0, 0]
                    expected += weights[subject, head] * resized
                assert torch.allclose(found[row, subject, :, :, token], expected, atol=1e-12)


def test_gradients_are_those_of_the_explicit_maps() -> None:
    q, k, weights = drawn(12)

    def maps(queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        return weighted_maps(queries, keys, weights, (3, 4), (2, 3))

    assert torch.autograd.gradcheck(maps, (q.requires_grad_(True), k.requires_grad_(True)))


def test_the_graph_keeps_queries_and_keys_alone() -> None:
    q, k, weights = drawn(64 * 64, torch.float32)
    q.requires_grad_(True)
    result = weighted_maps(q, k, weights, (64, 64), (8, 8))
    held: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        again = weighted_maps(q, k, weights, (64, 64), (8, 8))
    # Checkpointing itself holds its arguments; no map of 2 x 3 x 4096 x 7 is among what a graph saves.
    assert sum(held) <= q.nbytes + k.nbytes + weights.nbytes
    assert torch.equal(result, again) and again.shape == (2, 4, 8, 8, 7)


def test_resizing_keeps_even_maps_even() -> None:
    for length, target in ((64, 8), (8, 64), (10, 8), (9, 9)):
        assert torch.allclose(resizing_matrix(length, target).sum(1), torch.ones(target, dtype=torch.float64))


def test_smoothing_keeps_even_maps_even_and_zero_changes_nothing() -> None:
    maps = torch.rand(2, 5, 6)
    assert torch.allclose(smoothed(torch.ones(2, 5, 6), 0.5), torch.ones(2, 5, 6))
    assert smoothed(maps, 0.0) is maps
    assert float(smoothed(maps, 0.5).std()) < float(maps.std())
