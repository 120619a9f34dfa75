"""Token attention: explicit maps, as the authors' scripts form them, against the versions of the kernel.

    python benchmarks/token_attention.py [--device cuda] [--rows 1]

At the shapes of SD 1.5 at 512 px and SDXL at 1024 px, with the tokens of one word for each of 34 concepts (48) and of
all their words (400). In every round all ways run in turn; ratios are medians over rounds of a way's time over that of
explicit maps in the same round. Memory is the most that is allocated at once beyond the inputs. On a GPU the inputs are
too large for its caches, times leave out launching (CUDA graphs), and bandwidth is the bytes of Q and K over the time,
as a share of what copying reaches in the same run.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from pack_import import import_pack

import_pack()

import torch
from hrv_pack.hrv_kernels.token_attention import chosen_implementation, token_attention
from torch.profiler import ProfilerActivity, profile

Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]
Way = Callable[..., torch.Tensor]


class Shape(NamedTuple):
    """A layer's image positions, heads and their width."""

    model: str
    positions: int
    heads: int
    width: int


SHAPES = (
    Shape("SD 1.5", 4096, 8, 40),
    Shape("SD 1.5", 1024, 8, 80),
    Shape("SD 1.5", 256, 8, 160),
    Shape("SDXL", 4096, 10, 64),
    Shape("SDXL", 1024, 20, 64),
)
TOKENS = (48, 400)
# Twice the largest cache of a GPU of today.
BEYOND_CACHES = 256 << 20


def explicit(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
    """Maps [B, heads, P, T] in the model's own type, then their mean."""
    q, k = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (q, k))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return logits.masked_fill(~there[:, None, None], -torch.inf).softmax(-1).mean(2)


def implementation(name: str) -> Way:
    def run(q: torch.Tensor, k: torch.Tensor, there: torch.Tensor, heads: int) -> torch.Tensor:
        return token_attention(q, k, there, heads, name)

    return run


def draw(shape: Shape, tokens: int, rows: int, dtype: torch.dtype, device: torch.device) -> list[Inputs]:
    """Inputs as the model has them, queries a part of a larger batch; on a GPU as many as its caches cannot hold."""
    channels = shape.heads * shape.width
    copies = 1
    if device.type == "cuda":
        copies += BEYOND_CACHES // (rows * shape.positions * channels * dtype.itemsize)
    inputs: list[Inputs] = []
    for _ in range(copies):
        q = torch.randn(2 * rows, shape.positions, channels, device=device, dtype=dtype).chunk(2)[0]
        k = torch.randn(1, tokens, channels, device=device, dtype=dtype).expand(rows, -1, -1)
        inputs.append((q, k, torch.ones(rows, tokens, dtype=torch.bool, device=device), shape.heads))
    return inputs


def repeatable(way: Way, inputs: list[Inputs], seconds: float = 0.05) -> Callable[[], float]:
    """A function that runs a way for about that long or once over all inputs, and returns the seconds of one call."""
    if inputs[0][0].is_cuda:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for each in inputs:
                way(*each)

        def on_gpu() -> float:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            graph.replay()
            end.record()
            end.synchronize()
            return begin.elapsed_time(end) / 1000 / len(inputs)

        return on_gpu

    begin = time.perf_counter()
    way(*inputs[0])
    calls = max(1, int(seconds / (time.perf_counter() - begin)))

    def on_cpu() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            way(*inputs[0])
        return (time.perf_counter() - begin) / calls

    return on_cpu


def peak_memory(way: Way, inputs: Inputs) -> int:
    """The most bytes that a way has allocated at once."""
    if inputs[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(*inputs)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as recorded:
        way(*inputs)
    assert recorded.profiler is not None and recorded.profiler.kineto_results is not None
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in changes))


def copying_bandwidth() -> float:
    """Bytes per second that copying on the GPU reads and writes."""
    source = torch.empty(BEYOND_CACHES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = repeatable(lambda *_: target.copy_(source), [(source, source, source, 0)] * 8)
    return 2 * BEYOND_CACHES / statistics.median(copy() for _ in range(9))


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rows", type=int, default=1, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="float16 on a GPU, else float32")
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, options.dtype or ("float16" if on_gpu else "float32"))
    ways: dict[str, Way] = {"explicit maps": explicit, "torch": implementation("torch")}
    bandwidth = 0.0
    if on_gpu:
        ways["triton"] = implementation("triton")
        bandwidth = copying_bandwidth()
        print(f"Copying reaches {bandwidth / 1e9:.0f} GB/s.")
    print(f"{machine(device)}; torch {torch.__version__}, {dtype}, {options.rows} rows, {options.rounds} rounds\n")
    columns = ["model", "P", "heads x d", "T", "way", "ms", "time ratio", "MiB", *(["bandwidth"] if on_gpu else [])]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for shape, tokens in itertools.product(SHAPES, TOKENS):
        inputs = draw(shape, tokens, options.rows, dtype, device)
        for way in ways.values():
            way(*inputs[0])
        memory = {name: peak_memory(way, inputs[0]) for name, way in ways.items()}
        runs = {name: repeatable(way, inputs) for name, way in ways.items()}
        rounds = [{name: run() for name, run in runs.items()} for _ in range(options.rounds)]
        chosen = chosen_implementation(inputs[0][0], shape.heads)
        for name in ways:
            seconds = statistics.median(times[name] for times in rounds)
            ratio = statistics.median(times[name] / times["explicit maps"] for times in rounds)
            cells = [shape.model, f"{shape.positions}", f"{shape.heads} x {shape.width}", f"{tokens}"]
            cells += [f"{name} (chosen)" if name == chosen else name]
            cells += [f"{seconds * 1e3:.3f}", f"{ratio:.2f}", f"{memory[name] / 2**20:.2f}"]
            if on_gpu:
                needed = (inputs[0][0].numel() + inputs[0][1][0].numel()) * dtype.itemsize
                cells += [f"{needed / seconds / bandwidth:.0%}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
