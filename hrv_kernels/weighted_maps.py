"""Cross-attention maps of all heads added up with weights and brought to one small size, with a gradient.

Only the small sums stay alive for the backward pass: maps are formed again there from Q and K, which attention itself
keeps anyway.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


def weighted_maps(
    q: torch.Tensor, k: torch.Tensor, weights: torch.Tensor, size: tuple[int, int], target: tuple[int, int]
) -> torch.Tensor:
    """Sums [B, S, y, x, T] over heads of ``weights`` [S, heads] times softmax(Q K^T / sqrt(d)), resized.

    q [B, P, heads x d] with its P positions in rows of ``size`` (height, width), k [B, T, heads x d]; ``target`` is
    (y, x). Everything is computed in float32, or in the inputs' type if that is wider. Resizing is linear, so the
    heads are added up before it (arXiv 2412.02237, section 5.3).
    """
    return checkpoint(_weighted_maps, q, k, weights, size, target, use_reentrant=False, preserve_rng_state=False)


def _weighted_maps(
    q: torch.Tensor, k: torch.Tensor, weights: torch.Tensor, size: tuple[int, int], target: tuple[int, int]
) -> torch.Tensor:
    heads = weights.shape[1]
    dtype = torch.promote_types(q.dtype, torch.float32)
    queries, keys = (part.to(dtype).unflatten(-1, (heads, -1)) for part in (q, k))
    logits = torch.einsum("bphd,bthd->bhpt", queries, keys) * queries.shape[-1] ** -0.5
    summed = torch.einsum("bhpt,sh->bspt", logits.softmax(-1), weights.to(logits)).unflatten(2, size)
    if size == target:
        return summed
    rows, columns = (resizing_matrix(*sides).to(logits) for sides in zip(size, target, strict=True))
    return torch.einsum("yi,xj,bsijt->bsyxt", rows, columns, summed)


@functools.lru_cache(maxsize=64)
def resizing_matrix(length: int, target: int) -> torch.Tensor:
    """The matrix [target, length], float64, that brings one side of a map to another length.

    Down: a Gaussian blur against aliasing with reflected borders, 2 floor(length / (2 target)) + 1 wide and of sigma
    0.3 ((width - 1) / 2 - 1) + 0.8, then bicubic interpolation without aligned corners. Up: bicubic alone.
    """
    # Also where the first caller is in inference mode, the cached matrix must fit into a graph.
    with torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(length, dtype=torch.float64)[None, None]
        if length > target:
            reach = length // (2 * target)
            sigma = 0.3 * (reach - 1) + 0.8
            kernel = gaussian_kernel(reach, sigma)
            unit = F.conv2d(F.pad(unit, (0, 0, reach, reach), mode="reflect"), kernel[None, None, :, None])
        return F.interpolate(unit, size=(target, length), mode="bicubic", align_corners=False)[0, 0]


def gaussian_kernel(reach: int, sigma: float) -> torch.Tensor:
    """Gaussian weights [2 reach + 1] of sum 1, float64."""
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def smoothed(maps: torch.Tensor, sigma: float) -> torch.Tensor:
    """Maps [..., y, x] under a 3 x 3 Gaussian with reflected borders; 0 leaves them as they are."""
    if sigma == 0:
        return maps
    kernel = gaussian_kernel(1, sigma).to(maps)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    blurred = F.conv2d(F.pad(flat, (1, 1, 1, 1), mode="reflect"), torch.outer(kernel, kernel)[None, None])
    return blurred.reshape(maps.shape)
