"""How much attention every head pays to every token, averaged over the image, without keeping an attention map.

For one cross-attention layer: the mean over image positions of A = softmax(Q K^T / sqrt(d)) (arXiv 2412.02237,
section 3, before tokens are joined into concepts). Three versions under one name: the float64 reference, torch with
bounded memory, and a fused one for GPUs (:mod:`.token_attention_triton`).
"""

from __future__ import annotations

import functools

import torch

# Logits alive at once: 1 MiB per thread, so that they stay in a processor's cache, or 64 MiB on a GPU.
_LOGITS_PER_THREAD = 1 << 18
_LOGITS_ON_GPU = 1 << 24


@torch.no_grad()
def token_attention(
    q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int, implementation: str | None = None
) -> torch.Tensor:
    """Mean over image positions of the softmax over tokens: float32 [B, heads, T], 0 for tokens that are not there.

    ``q``      [B, P, heads x d], queries of P image positions, any float type.
    ``k``      [B, T, heads x d], keys of the tokens, finite, of the type of ``q``.
    ``there``  bool [B, T], the tokens that take part in the softmax, at least one in every row.

    All three may be views with any strides, expanded ones too. Logits and softmax are float32 whatever the input.
    Nothing waits for a device, and no gradient flows. ``implementation`` is "reference", "torch" or "triton"; None
    takes :func:`chosen_implementation`.

    Raises ValueError for shapes and types that do not fit together and for a name that is none of these, and
    RuntimeError if "triton" is asked for and cannot run.
    """
    _check(q, k, there, heads)
    if implementation is None:
        implementation = chosen_implementation(q, heads)
    if implementation == "reference":
        return token_attention_reference(q, k, there, heads).to(q.device, torch.float32)
    if implementation == "torch":
        return _token_attention_torch(q, k, there, heads)
    if implementation == "triton":
        obstacle = _triton_obstacle(q.device, q.dtype, q.shape[-1] // heads)
        if obstacle is not None:
            raise RuntimeError(f"The Triton version of token attention cannot run here: {obstacle}.")
        from .token_attention_triton import token_attention_triton

        return token_attention_triton(q, k, there, heads)
    raise ValueError(f"There is no implementation {implementation!r}: choose reference, torch or triton.")


def chosen_implementation(q: torch.Tensor, heads: int) -> str:
    """What :func:`token_attention` runs by itself: "triton" on a GPU where it can run, else "torch"."""
    if q.is_cuda and _triton_obstacle(q.device, q.dtype, q.shape[-1] // heads) is None:
        return "triton"
    return "torch"


def token_attention_reference(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
    """:func:`token_attention` with explicit maps, one row at a time: float64 [B, heads, T] on the CPU."""
    _check(q, k, there, heads)
    result = torch.zeros(q.shape[0], heads, k.shape[1], dtype=torch.float64)
    for row, present in enumerate(there.cpu()):
        queries = q[row].cpu().double().unflatten(-1, (heads, -1)).transpose(0, 1)
        keys = k[row].cpu()[present].double().unflatten(-1, (heads, -1)).transpose(0, 1)
        maps = (queries @ keys.transpose(-1, -2) / queries.shape[-1] ** 0.5).softmax(-1)
        result[row, :, present] = maps.mean(1)
    return result


def _check(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> None:
    fits = q.ndim == k.ndim == 3 and q.shape[2] % heads == 0 and k.shape == (len(q), k.shape[1], q.shape[2])
    if not fits or there.shape != k.shape[:2]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and there {tuple(there.shape)} do not fit together with {heads} "
            "heads: q is [B, P, heads x d], k [B, T, heads x d], there [B, T]."
        )
    if not q.is_floating_point() or k.dtype != q.dtype or there.dtype != torch.bool:
        raise ValueError(
            f"q is {q.dtype}, k {k.dtype} and there {there.dtype}: q and k have one float type, there is bool."
        )


def _token_attention_torch(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows and image positions in pieces, so that memory stays bounded: of small images several rows at once, which
    takes fewer calls, of large ones a part of one row, whose views need no copy.

    Tokens are the second last axis of the logits: a softmax over few of them is then several times as fast on a CPU,
    and in place faster again where there are many. On a GPU the softmax is one kernel, in place it would be five.
    """
    on_cpu = q.device.type == "cpu"
    bound = _LOGITS_PER_THREAD * torch.get_num_threads() if on_cpu else _LOGITS_ON_GPU
    positions, tokens = q.shape[1], k.shape[1]
    together = max(1, bound // (heads * tokens * max(1, positions)))
    # Whole vectors of a processor: a remainder in every piece costs a tenth of the time.
    piece = positions if together > 1 else max(16, bound // (heads * tokens) // 16 * 16)
    scale = (q.shape[2] // heads) ** -0.5
    blocked = torch.zeros(there.shape, device=q.device).masked_fill_(~there, -torch.inf)[:, None, :, None]
    total = torch.zeros(q.shape[0], heads, tokens, device=q.device)
    groups = (tensor.split(together) for tensor in (total, blocked, k, q))
    for some_total, some_blocked, some_k, some_q in zip(*groups, strict=True):
        keys = some_k.float().unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)
        barred = some_blocked.expand(-1, heads, -1, -1).flatten(0, 1)
        for part in some_q.split(max(1, piece), dim=1):
            queries = part.float().unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)
            attention = torch.baddbmm(barred, keys, queries, alpha=scale)
            if on_cpu:
                attention.sub_(attention.amax(1, keepdim=True)).exp_()
                attention.div_(attention.sum(1, keepdim=True))
            else:
                attention = attention.softmax(1)
            some_total += attention.sum(-1).unflatten(0, (-1, heads))
    return total.div_(positions)


def _triton_obstacle(device: torch.device, dtype: torch.dtype, width: int) -> str | None:
    """Why the Triton version cannot run for heads of this width and type on this device; None if it can."""
    try:
        from ..hrv_kernels import token_attention_triton as fused
    except ImportError as error:
        return f"Triton cannot be imported ({error})"
    if dtype not in fused.DTYPES:
        return f"it does not take {dtype}"
    if width > fused.MAX_HEAD_WIDTH:
        return f"heads are {width} wide, and it takes at most {fused.MAX_HEAD_WIDTH}"
    return _device_obstacle(device, dtype)


@functools.cache
def _device_obstacle(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a device cannot run it, found out by trying the smallest of inputs once; None if it can."""
    from .token_attention_triton import token_attention_triton

    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (8, 0):
        return "the GPU is older than compute capability 8.0, and Triton would not use its matrix units"
    one = torch.zeros(1, 1, 16, dtype=dtype, device=device)
    try:
        token_attention_triton(one, one, torch.ones(1, 1, dtype=torch.bool, device=device), heads=1)
    except Exception as error:  # noqa: BLE001 - no C compiler, no driver, a broken cache: these share no type
        return f"{type(error).__name__}: {error}"
    return None
