"""The fused version of :mod:`.token_attention` for GPUs, in Triton (which the host's torch brings on Linux)."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

MAX_HEAD_WIDTH = 256
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Programs to aim for: several for each of the up to 200 multiprocessors of a GPU. One number for all GPUs, so that
# the order of summation, and with it the last digit, is the same on all of them.
_PROGRAMS = 1024
# Bytes of a tile of queries, and of one of keys. With one more tile on its way that makes at most 64 KiB of shared
# memory, which every supported GPU has.
_TILE = 1 << 14


@triton.jit
def _logits(  # type: ignore[no-untyped-def]
    queries, k_ptrs, there_ptrs, left, in_width, scale, UPCAST: tl.constexpr, BLOCK_T: tl.constexpr
):
    """Base-2 logits [BLOCK_P, BLOCK_T] of the next ``left`` tokens, -inf beyond them and where one is not there."""
    in_row = tl.arange(0, BLOCK_T) < left
    keys = tl.load(k_ptrs, mask=in_width[:, None] & in_row[None, :], other=0.0)
    there = tl.load(there_ptrs, mask=in_row, other=0) != 0
    if UPCAST:
        queries, keys = queries.to(tl.float32), keys.to(tl.float32)
    return tl.where(there[None, :], tl.dot(queries, keys, input_precision="ieee") * scale, float("-inf"))


@triton.jit(do_not_specialize=["tokens"])
def _kernel(  # type: ignore[no-untyped-def]
    q_ptr, k_ptr, there_ptr, partial_ptr,
    positions, tokens, scale,
    q_row, q_position, q_channel, k_row, k_token, k_channel, there_row, there_token,
    WIDTH: tl.constexpr, UPCAST: tl.constexpr, IMAGE_TILES: tl.constexpr, TOKEN_TILES: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """What IMAGE_TILES x BLOCK_P image positions add to the mean softmax of every token, for one head of one row.

    q_ptr        [B, P, heads x WIDTH], read once, with strides ``q_row``, ``q_position``, ``q_channel``
    k_ptr        [B, T, heads x WIDTH], with strides ``k_row`` (0 if all rows share their keys), ...
    there_ptr    uint8 [B, T], 0 for tokens that take no part, with strides ``there_row``, ``there_token``
    partial_ptr  float32 [splits, B, heads, T], contiguous: each program writes its own T elements
    ``scale``    log2(e) / sqrt(WIDTH)

    Launch grid (splits, heads, B). If all tokens fit one tile, sums stay in registers. Otherwise IMAGE_TILES is 1 and
    the keys pass twice: for the maximum and normaliser of each position, then for the sums. Loops have constant bounds,
    because Triton's interpreter takes no others with NumPy 2.4 and later.
    """
    split, head, row = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    channels, in_tile, lane = tl.arange(0, BLOCK_D), tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_T)
    in_width = channels < WIDTH
    # Whatever grows with the size of a tensor is counted in 64 bits; offsets inside a tile fit 32.
    long_row = row.to(tl.int64)
    q_ptrs = q_ptr + long_row * q_row + head * WIDTH * q_channel
    q_ptrs += in_tile[:, None] * q_position + channels[None, :] * q_channel
    k_ptrs = k_ptr + long_row * k_row + head * WIDTH * k_channel
    k_ptrs += channels[:, None] * k_channel + lane[None, :] * k_token
    there_ptrs = there_ptr + long_row * there_row + lane * there_token
    partial_ptrs = partial_ptr + ((split.to(tl.int64) * tl.num_programs(2) + row) * tl.num_programs(1) + head) * tokens
    partial_ptrs += lane

    sums = tl.zeros([BLOCK_T], tl.float32)
    for image_tile in range(IMAGE_TILES):
        first = (split * IMAGE_TILES + image_tile) * BLOCK_P
        in_image = first + in_tile < positions
        queries = tl.load(
            q_ptrs + tl.cast(first, tl.int64) * q_position, mask=in_image[:, None] & in_width[None, :], other=0.0
        )
        if TOKEN_TILES == 1:
            logits = _logits(queries, k_ptrs, there_ptrs, tokens, in_width, scale, UPCAST, BLOCK_T)
            weights = tl.exp2(logits - tl.max(logits, 1)[:, None])
            share = tl.where(in_image, 1.0 / tl.sum(weights, 1), 0.0)
            sums += tl.sum(weights * share[:, None], 0)
        else:
            # A finite start: -inf - -inf would be NaN where a first tile has no token that is there.
            highest = tl.full([BLOCK_P], -3.0e38, tl.float32)
            normaliser = tl.zeros([BLOCK_P], tl.float32)
            for token_tile in range(TOKEN_TILES):
                token = tl.cast(token_tile * BLOCK_T, tl.int64)
                logits = _logits(
                    queries, k_ptrs + token * k_token, there_ptrs + token * there_token, tokens - token,
                    in_width, scale, UPCAST, BLOCK_T,
                )  # fmt: skip
                above = tl.maximum(highest, tl.max(logits, 1))
                normaliser = normaliser * tl.exp2(highest - above) + tl.sum(tl.exp2(logits - above[:, None]), 1)
                highest = above
            share = tl.where(in_image, 1.0 / normaliser, 0.0)
            for token_tile in range(TOKEN_TILES):
                token = tl.cast(token_tile * BLOCK_T, tl.int64)
                logits = _logits(
                    queries, k_ptrs + token * k_token, there_ptrs + token * there_token, tokens - token,
                    in_width, scale, UPCAST, BLOCK_T,
                )  # fmt: skip
                sums = tl.sum(tl.exp2(logits - highest[:, None]) * share[:, None], 0)
                tl.store(partial_ptrs + token, sums / positions, mask=lane < tokens - token)
    if TOKEN_TILES == 1:
        tl.store(partial_ptrs, sums / positions, mask=lane < tokens)


def token_attention_triton(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
    """:func:`.token_attention.token_attention` of tensors that it has checked, on a GPU or in Triton's interpreter.

    Head widths up to :data:`MAX_HEAD_WIDTH` and the types of :data:`DTYPES`. The same inputs give the same bits.
    """
    rows, positions, channels = q.shape
    tokens, width = k.shape[1], channels // heads
    blocks = _blocks(width, tokens, q.element_size())
    token_tiles = triton.cdiv(tokens, blocks["BLOCK_T"])
    tiles = triton.cdiv(positions, blocks["BLOCK_P"])
    image_tiles = max(1, tiles * rows * heads // _PROGRAMS) if token_tiles == 1 else 1
    splits = triton.cdiv(tiles, image_tiles)
    partial = torch.empty(splits, rows, heads, tokens, dtype=torch.float32, device=q.device)
    with torch.cuda.device_of(q):
        _kernel[splits, heads, rows](
            q, k, there.view(torch.uint8), partial,
            positions, tokens, math.log2(math.e) / width**0.5,
            *q.stride(), *k.stride(), *there.stride(),
            WIDTH=width,
            # The interpreter, which is all there is without a GPU, keeps bfloat16 as bits that it cannot multiply.
            UPCAST=q.dtype == torch.bfloat16 and not q.is_cuda,
            IMAGE_TILES=image_tiles,
            TOKEN_TILES=token_tiles,
            **blocks,
            num_stages=2,
        )  # fmt: skip
    return partial.sum(0)


def _blocks(width: int, tokens: int, element_size: int) -> dict[str, int]:
    """Sizes of the tiles: powers of two, at least 16, as matrix units want them."""
    block_d = max(16, triton.next_power_of_2(width))
    fitting = _TILE // (block_d * element_size)
    # No matrix unit multiplies float32 exactly: there every thread holds its operands in registers, which are few.
    most_p, most_t = (32, 32) if element_size == 4 else (128, 64)
    return {
        "BLOCK_P": min(most_p, fitting),
        "BLOCK_T": max(16, min(most_t, fitting, triton.next_power_of_2(tokens))),
        "BLOCK_D": block_d,
    }
