"""Token attention against explicit float64 maps: in torch, and in Triton on a GPU or through Triton's interpreter."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hrv_pack.hrv_kernels import token_attention as module
from hrv_pack.hrv_kernels.token_attention import chosen_implementation, token_attention, token_attention_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

TINY = 1e-6
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: torch brings it on Linux only"
)


def plain(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
    """The same in plain torch and the type of ``q`` throughout."""
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2)
    k = k.unflatten(-1, (heads, -1)).transpose(1, 2)
    logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return logits.masked_fill(~there[:, None, None], -torch.inf).softmax(-1).mean(2)


class Case(NamedTuple):
    """One problem: B, P (of an image of any form), heads, d, T, and how far logits spread."""

    rows: int
    positions: int
    heads: int
    width: int
    tokens: int
    dtype: str
    scale: float = 1.5

    def draw(self, seed: int = 0, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
        """q is a chunk of a larger batch, k shared by all rows, and a quarter of the tokens not there."""
        generator = torch.Generator().manual_seed(seed)
        channels, dtype = self.heads * self.width, DTYPES[self.dtype]
        q = torch.randn(2 * self.rows, self.positions, channels, generator=generator) * self.scale
        k = torch.randn(1, self.tokens, channels, generator=generator) * self.scale
        there = torch.rand(self.rows, self.tokens, generator=generator) > 0.25
        there[:, int(torch.randint(self.tokens, (), generator=generator))] = True
        q, k = q.to(device, dtype).chunk(2)[1], k.to(device, dtype).expand(self.rows, -1, -1)
        return q, k, there.to(device), self.heads


class Errors(NamedTuple):
    """Root mean squares: the largest of few elements says more about luck in the last rounding than about the way."""

    found: float
    plain: float
    not_there: float
    sums: float


def errors(case: Case, implementation: str, seed: int = 0, device: str = "cpu") -> Errors:
    """How far an implementation and plain torch are off, and how well it keeps what is exact."""
    q, k, there, heads = case.draw(seed, device)
    found = token_attention(q, k, there, heads, implementation)
    assert found.dtype == torch.float32 and found.device == q.device
    assert found.shape == (case.rows, case.heads, case.tokens)
    expected = token_attention_reference(q, k, there, heads)

    def error(way: torch.Tensor) -> float:
        return float((way.cpu().double() - expected).square().mean().sqrt())

    return Errors(
        found=error(found),
        plain=error(plain(q, k, there, heads)),
        not_there=float((found * ~there[:, None]).abs().max()),
        sums=float((found.sum(-1) - 1).abs().max()),
    )


def assert_as_good_as_plain(seen: Errors) -> None:
    assert seen.found <= 2 * seen.plain + TINY
    assert seen.not_there == 0
    assert seen.sums < 1e-5


# Torch


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 3),
    positions=st.integers(1, 40),
    heads=st.integers(1, 4),
    width=st.integers(1, 9),
    tokens=st.integers(1, 20),
    dtype=st.sampled_from(sorted(DTYPES)),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
)
def test_errors_are_no_larger_than_those_of_plain_torch(seed: int, **case: Any) -> None:
    assert_as_good_as_plain(errors(Case(**case), "torch", seed))


class Largest(TorchFunctionMode):
    """Watches how many elements the largest tensor has that is made; views are not made."""

    elements = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            given = [argument.data_ptr() for argument in args if isinstance(argument, torch.Tensor)]
            if result.data_ptr() not in given:
                self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("dtype", sorted(DTYPES))
def test_memory_does_not_grow_with_the_image(monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    q, k, there, heads = Case(2, 1500, 2, 8, 24, dtype).draw()
    whole = token_attention(q, k, there, heads, "torch")
    bound = 100 * heads * 24
    monkeypatch.setattr(module, "_LOGITS_PER_THREAD", bound // torch.get_num_threads())
    with Largest() as largest:
        found = token_attention(q, k, there, heads, "torch")
    assert bound // 2 < largest.elements <= bound < q[0].numel()
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


def test_a_bound_below_one_position_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGITS_PER_THREAD", 0)
    assert_as_good_as_plain(errors(Case(2, 37, 2, 4, 7, "fp32"), "torch"))


@pytest.mark.parametrize("implementation", ["reference", "torch"])
def test_the_paper_in_numbers(implementation: str) -> None:
    """Two heads of width 1, two positions, and a third token that is not there."""
    q = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    k = torch.tensor([[[0.0, 0.0], [1.0, 1.0], [9.0, 9.0], [2.0, 0.0]]])
    there = torch.tensor([[True, True, False, True]])

    def share(*logits: float) -> torch.Tensor:
        weights = torch.tensor([torch.e**logit for logit in logits])
        return weights / weights.sum()

    head_0 = (share(0, 1, 2) + share(0, 0, 0)) / 2
    head_1 = (share(0, 0, 0) + share(0, 2, 0)) / 2
    found = token_attention(q, k, there, 2, implementation)
    assert (found[..., 2] == 0).all()
    torch.testing.assert_close(found[..., [0, 1, 3]], torch.stack([head_0, head_1])[None])


def check_corner_cases(implementation: str, device: str = "cpu") -> None:
    """What holds for every implementation; a function, so that Triton's interpreter can run it too."""
    heads, positions, tokens, channels = 2, 5 * 7, 11, 2 * 6
    generator = torch.Generator().manual_seed(3)
    # Channels far apart in memory, keys and present tokens shared by all rows.
    q = torch.randn(2, channels, positions, generator=generator).to(device).transpose(1, 2)
    k = torch.randn(1, channels, tokens, generator=generator).to(device).transpose(1, 2).expand(2, -1, -1)
    there = (torch.arange(tokens, device=device) % 3 > 0).expand(2, -1)
    found = token_attention(q, k, there, heads, implementation)
    assert torch.equal(token_attention(q, k, there, heads, implementation), found)
    packed = token_attention(q.contiguous(), k.contiguous(), there.contiguous(), heads, implementation)
    torch.testing.assert_close(packed, found, rtol=1e-5, atol=1e-7)
    assert torch.equal(token_attention(q[1:], k[1:], there[1:], heads, implementation), found[1:])

    alone = torch.arange(tokens, device=device).expand(2, -1) == torch.tensor([[4], [tokens - 1]], device=device)
    found = token_attention(q, k, alone, heads, implementation)
    torch.testing.assert_close(found, alone[:, None].expand(-1, heads, -1).float(), rtol=1e-6, atol=0)

    broken = q.clone()
    broken[1, -1, 0] = torch.nan
    found = token_attention(broken, k, there, heads, implementation)
    assert found[1, 0, there[1]].isnan().all() and not found[0].isnan().any() and not found[1, 1].isnan().any()

    # Logits far above what float16 holds: every position has one token whose share is 1.
    large = Case(1, 20, 1, 64, 5, "fp16", scale=100.0)
    assert not plain(*large.draw()).isfinite().all()
    assert errors(large, implementation, device=device).found < 1e-5


def test_corner_cases_in_torch() -> None:
    check_corner_cases("torch")


# Triton

CASES = [
    *(Case(1, 23 * 7, 2, width, 48, dtype) for width in (40, 64, 80, 96, 128, 160) for dtype in DTYPES),
    *(Case(2, 5 * 9, 2, width, 9, "fp32") for width in (1, 4, 8, 16)),
    Case(2, 130, 3, 8, 1, "fp16"),
    Case(1, 1, 1, 256, 65, "bf16"),
    Case(1, 70, 1, 64, 1024, "fp16"),
    Case(1, 33, 2, 40, 1000, "fp32"),
    Case(1, 40, 1, 160, 300, "bf16"),
    # Enough tiles that a program sums over several, the last span ragged.
    Case(20, 7 * 130 + 5, 20, 4, 6, "fp16"),
]


def errors_in_the_interpreter() -> dict[str, Errors]:
    """What the child process of :func:`interpreted` prints."""
    from hrv_pack.hrv_kernels import token_attention_triton as fused

    check_corner_cases("triton")
    # Interpreting as many programs as fill a GPU would take minutes.
    fused._PROGRAMS = 2
    small = {case: case._replace(rows=2, heads=2) if case.rows == 20 else case for case in CASES}
    return {repr(case): errors(small[case], "triton") for case in CASES}


@pytest.fixture(scope="module")
def interpreted() -> dict[str, list[float]]:
    """Errors of every case in a process of its own: Triton reads whether it interprets when it is imported."""
    tests = Path(__file__).resolve().parent
    program = (
        "import json, sys\n"
        f"sys.path[:0] = [{str(tests)!r}, {str(tests.parents[1] / 'scripts')!r}]\n"
        "import pack_import\n"
        "pack_import.import_pack()\n"
        "import test_token_attention as cases\n"
        "print(json.dumps(cases.errors_in_the_interpreter()))\n"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_triton
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_triton_in_its_interpreter(case: Case, interpreted: dict[str, list[float]]) -> None:
    assert_as_good_as_plain(Errors(*interpreted[repr(case)]))


@pytest.mark.gpu
@needs_triton
def test_corner_cases_on_a_gpu() -> None:
    check_corner_cases("triton", "cuda")


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_triton_on_a_gpu(case: Case) -> None:
    assert_as_good_as_plain(errors(case, "triton", device="cuda"))
    q, k, there, heads = case.draw(device="cuda")
    found = token_attention(q, k, there, heads)
    assert chosen_implementation(q, heads) == "triton"
    assert torch.equal(found, token_attention(q, k, there, heads, "triton"))


@needs_triton
@pytest.mark.parametrize(("width", "tokens", "dtype"), [(40, 48, "fp16"), (160, 400, "bf16"), (96, 1024, "fp32")])
def test_triton_compiles_for_a_gpu_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, width: int, tokens: int, dtype: str
) -> None:
    """The interpreter accepts what the compiler refuses. Here: for compute capability 8.0, with contiguous channels."""
    import triton
    from hrv_pack.hrv_kernels import token_attention_triton as fused
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    blocks = fused._blocks(width, tokens, DTYPES[dtype].itemsize)
    constants = {"WIDTH": width, "UPCAST": False, "q_channel": 1, "k_channel": 1, "there_token": 1, **blocks}
    token_tiles = -(-tokens // blocks["BLOCK_T"])
    constants |= {"IMAGE_TILES": 2 if token_tiles == 1 else 1, "TOKEN_TILES": token_tiles}
    types = {"q_ptr": f"*{dtype}", "k_ptr": f"*{dtype}", "there_ptr": "*u8", "partial_ptr": "*fp32", "scale": "fp32"}
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in fused._kernel.arg_names}
    compiled = triton.compile(
        ASTSource(fused._kernel, signature, constants), target=GPUTarget("cuda", 80, 32), options={"num_stages": 2}
    )
    # No matrix unit multiplies float32 exactly.
    assert ("mma.sync" in compiled.asm["ptx"]) == (dtype != "fp32")
    assert compiled.metadata.shared <= 1 << 16


# Which one runs, and what is refused


def test_torch_is_chosen_without_a_gpu() -> None:
    q, k, there, heads = Case(2, 9, 2, 8, 5, "fp32").draw()
    assert chosen_implementation(q, heads) == "torch"
    assert torch.equal(token_attention(q, k, there, heads), token_attention(q, k, there, heads, "torch"))


@pytest.mark.gpu
@pytest.mark.parametrize(("width", "dtype"), [(300, torch.float16), (64, torch.float64)])
def test_torch_is_chosen_where_triton_cannot(width: int, dtype: torch.dtype) -> None:
    assert chosen_implementation(torch.zeros(1, 4, width, dtype=dtype, device="cuda"), heads=1) == "torch"


@pytest.mark.parametrize(
    ("width", "dtype", "reason"),
    [(8, torch.float32, ""), (300, torch.float16, "300 wide"), (8, torch.float64, "float64")],
)
def test_asking_for_triton_where_it_cannot_run_says_why(width: int, dtype: torch.dtype, reason: str) -> None:
    """On a CPU, whose processes don't interpret."""
    q, there = torch.zeros(1, 4, width, dtype=dtype), torch.ones(1, 4, dtype=torch.bool)
    if importlib.util.find_spec("triton") is None:
        reason = "cannot be imported"
    with pytest.raises(RuntimeError, match=f"cannot run here: .*{reason}"):
        token_attention(q, q, there, 1, "triton")


def test_an_unknown_implementation_is_refused() -> None:
    q, k, there, heads = Case(1, 4, 1, 4, 3, "fp32").draw()
    with pytest.raises(ValueError, match="no implementation 'cuda': choose reference, torch or triton"):
        token_attention(q, k, there, heads, "cuda")


@pytest.mark.parametrize(
    ("q", "k", "there", "heads"),
    [
        ((1, 4, 6), (1, 3, 6), (1, 3), 4),
        ((1, 4, 6), (1, 3, 8), (1, 3), 2),
        ((2, 4, 6), (1, 3, 6), (2, 3), 2),
        ((1, 4, 6), (1, 3, 6), (1, 4), 2),
        ((2, 4, 6), (2, 3, 6), (1, 3), 2),
        ((4, 6), (3, 6), (3,), 2),
    ],
)
@pytest.mark.parametrize("function", [token_attention, token_attention_reference])
def test_shapes_that_do_not_fit_together_are_refused(
    function: Callable[..., torch.Tensor],
    q: tuple[int, ...],
    k: tuple[int, ...],
    there: tuple[int, ...],
    heads: int,
) -> None:
    with pytest.raises(ValueError, match=f"do not fit together with {heads} heads"):
        function(torch.zeros(q), torch.zeros(k), torch.ones(there, dtype=torch.bool), heads)


@pytest.mark.parametrize(
    ("q", "k", "there"),
    [
        (torch.float16, torch.float32, torch.bool),
        (torch.int64, torch.int64, torch.bool),
        (torch.float32, torch.float32, torch.int64),
    ],
)
def test_types_that_do_not_fit_together_are_refused(q: torch.dtype, k: torch.dtype, there: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"one float type, there is bool"):
        token_attention(torch.zeros(1, 4, 6, dtype=q), torch.zeros(1, 3, 6, dtype=k), torch.ones(1, 3, dtype=there), 2)
