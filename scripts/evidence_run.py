"""Measuring the evidence: which pieces are missing, who makes them, and what is written in the end."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import evidence_process
from evidence_process import Worker, prepare_host
from launcher.errors import LauncherError
from tqdm import tqdm

# Changes whenever pieces of before, of the same settings, don't fit any more.
_STATE = 1


@dataclass(frozen=True)
class Asked:
    """What is measured: the scale, parts by name, by how many processes, with what weights, and the folders.

    ``weights`` are those that ship if there are none; ``stage`` are those of another stage of training.
    """

    scale: str
    parts: tuple[str, ...]
    processes: int
    stage: Path | None
    state: Path
    out: Path
    weights: Path | None = None


class Makers(Protocol):
    """Who makes pieces."""

    def __call__(self, pieces: list[Any]) -> Iterable[Any]:
        """Make all of them; gives each once it is there."""
        ...


def measure(asked: Asked) -> None:
    """Measure what is missing and write what is complete, with what the document has of the other parts.

    Raises LauncherError for weights that are not there, a document that can't be read, a process that ended, and, once
    all is written, for directions that flipped.
    """
    for option, file in (("--stage", asked.stage), ("--transformer", asked.weights)):
        if file is not None and not file.is_file():
            raise LauncherError(f"There are no weights {file} for {option}.")
    prepare_host()
    from hrv_pack.benchmarks.evidence.directions import flipped
    from hrv_pack.benchmarks.evidence.document import KEPT, OF_MINI, OF_TRANSFORMER, write
    from hrv_pack.benchmarks.evidence.earlier import read_earlier
    from hrv_pack.benchmarks.evidence.parts import all_parts
    from hrv_pack.benchmarks.evidence.pieces import Store, missing
    from hrv_pack.benchmarks.evidence.sizes import SIZES
    from hrv_pack.host.mini.loader import TRANSFORMER_WEIGHTS, WEIGHTS

    transformer = asked.scale == "transformer"
    file = asked.weights or (TRANSFORMER_WEIGHTS if transformer else WEIGHTS)
    weights = sha256(file.read_bytes()).hexdigest()
    folder = asked.state / f"{weights[:16]}-{_STATE}"
    store, sizes = Store(folder), SIZES[asked.scale]
    _, parts = all_parts(asked.stage, file)
    document = OF_TRANSFORMER if transformer else OF_MINI
    try:
        earlier = read_earlier(asked.out, document, parts.values())
    except (ValueError, KeyError) as error:
        raise LauncherError(
            f"{asked.out / document.record} can't be read ({error}): restore it, or move it away to start without it."
        ) from error

    with _makers(asked, folder, file) as make:
        # Some pieces are known only once others are there: settings chosen on tuning seeds, HRVs.
        while pieces := missing([parts[name] for name in asked.parts], store, sizes):
            with tqdm(total=round(sum(piece.cost for piece in pieces)), unit="evaluation", unit_scale=True) as bar:
                for piece in make(pieces):
                    bar.set_postfix_str(piece.part)
                    bar.update(round(piece.cost))
    model = f"HRV-mini{'-T' if transformer else ''}, weights {weights[:16]}"
    made = {**_made(model, store), "sizes": sizes.to_json()}
    measured = {part.name: part.section(store, sizes) for part in parts.values() if not missing([part], store, sizes)}
    others = {name: section for name, section in earlier.sections.items() if name not in measured}
    kept = others if earlier.fits(made) else {}
    if runs := earlier.runs(list(kept.values())):
        made[KEPT] = runs
    asked.out.mkdir(parents=True, exist_ok=True)
    found = measured | kept
    write(asked.out, document, [found[name] for name in parts if name in found], made)
    print(f"Wrote {asked.out / document.page}: {', '.join(measured)}.")
    if kept:
        print(f"Kept from before: {', '.join(kept)}.")
    elif others:
        print(f"Left out, because they were made with another model, host or other seeds: {', '.join(others)}.")
    wrong = flipped({key: number for section in measured.values() for key, number in section.numbers.items()})
    # Of HRV-mini-T nothing is claimed.
    if wrong and not transformer:
        raise LauncherError("\n".join(["A direction flipped.", *wrong]))


@contextmanager
def _makers(asked: Asked, folder: Path, weights: Path) -> Iterator[Makers]:
    """This process, or as many as are asked for; none is started before there is a piece to make."""
    if asked.processes == 1:
        workers: list[Worker] = []

        def here(pieces: list[Any]) -> Iterator[Any]:
            if not workers:
                workers.append(Worker(asked.scale, folder, asked.stage, weights))
            for piece in pieces:
                workers[0].make(piece.part, piece.what)
                yield piece

        yield here
        return
    begin = partial(evidence_process.begin, asked.scale, folder, asked.stage, weights)
    # Not forked: torch's threads would not survive it.
    pool = ProcessPoolExecutor(asked.processes, multiprocessing.get_context("spawn"), begin)

    def there(pieces: list[Any]) -> Iterator[Any]:
        running = {pool.submit(evidence_process.make, piece.part, piece.what): piece for piece in pieces}
        for future in as_completed(running):
            try:
                future.result()
            except BrokenProcessPool as error:
                raise LauncherError(
                    "A process that measures ended, perhaps for want of memory. What is done is kept: start again to "
                    "resume, with fewer --processes."
                ) from error
            yield running[future]

    try:
        yield there
    except BaseException:
        # Some pieces take minutes; what is half done is lost but for builds, which resume.
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _made(model: str, store: Any) -> dict[str, Any]:
    """What the numbers were made with."""
    import torch
    from comfyui_version import __version__ as host_version
    from hrv_pack.benchmarks.evidence.sizes import REPORTING, TUNING
    from hrv_pack.benchmarks.measuring import machine

    return {
        "model": model,
        "host": f"ComfyUI {host_version}, torch {torch.__version__}",
        "machine": f"{machine(torch.device('cpu'))}, processes of one thread",
        "processor time": f"{store.seconds() / 3600:.1f} hours",
        "seeds": f"settings chosen on prompts and noise of seeds from {TUNING:,} on, all numbers from {REPORTING:,} on",
    }
