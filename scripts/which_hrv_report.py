"""What ``which_hrv.py`` found, as a page for people and as JSON."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peak_memory import Cost

_GIB = 1024**3


@dataclass(frozen=True)
class Comparison:
    """HRVs of one checkpoint, what they cost to make and to check, and what the checks found (HRV -> concept -> it)."""

    checkpoint: str
    model: Any
    device: Any
    settings: Mapping[str, Any]
    hrvs: Mapping[str, Any]
    costs: Mapping[str, Cost]
    findings: Mapping[str, Mapping[str, Any]]


def write_report(found: Comparison, folder: Path) -> str:
    """Write ``report.md`` and ``report.json`` into a folder; returns the page."""
    page = _page(found)
    (folder / "report.md").write_text(page, encoding="utf-8")
    (folder / "report.json").write_text(json.dumps(_record(found), indent=1, default=str) + "\n", encoding="utf-8")
    return page


def _page(found: Comparison) -> str:
    concepts = list(dict.fromkeys(name for findings in found.findings.values() for name in findings))
    names = list(found.findings)
    images = next(iter(next(iter(found.findings.values())).values())).images
    settings = ", ".join(f"{name} {value}" for name, value in found.settings.items())
    lines = [
        f"# Which HRV holds on {found.checkpoint}",
        "",
        "How much more of a concept is left with the least relevant heads weakened than with the most relevant: the",
        f"area between the two orders, with its 95 % interval over prompts and seeds ({images} images a point), and",
        "the verdict. Above 0, the HRV ranks the heads that the concept needs.",
        "",
        *_table(["concept", *names], [[name, *(_cell(found, hrv, name) for hrv in names)] for name in concepts]),
        "",
        "The share of the causal HRV's relevance that lies in the top heads of the others:",
        "",
        *_table(["concept", *names], [[name, *(_shared(found, hrv, name) for hrv in names)] for name in concepts]),
        "",
        *_table(["", "minutes", "peak memory, GiB"], [_cost(name, cost) for name, cost in found.costs.items()]),
        "",
        *_table(["", ""], [[name, value] for name, value in _machine(found).items()]),
        "",
        f"Settings: {settings}.",
    ]
    return "\n".join(lines) + "\n"


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def _cell(found: Comparison, hrv: str, concept: str) -> str:
    one = found.findings[hrv].get(concept)
    return "" if one is None else f"{one.area}, {one.verdict}"


def _shared(found: Comparison, hrv: str, concept: str) -> str:
    """Empty where one of the two HRVs does not have the concept."""
    from hrv_pack.hrv.relevance.arithmetic import pick
    from hrv_pack.hrv.relevance.comparison import shared_relevance

    if concept not in found.findings[hrv] or concept not in found.findings["causal"]:
        return ""
    causal, other = (pick(found.hrvs[name], [concept]) for name in ("causal", hrv))
    return f"{shared_relevance(causal, other)[0, 0]:.2f}"


def _cost(name: str, cost: Cost) -> list[str]:
    return [name, f"{cost.seconds / 60:.1f}", "not known" if cost.memory is None else f"{cost.memory / _GIB:.1f}"]


def _machine(found: Comparison) -> dict[str, str]:
    import torch
    from comfyui_version import __version__ as host_version
    from hrv_pack.host.models.digest import model_digest
    from hrv_pack.host.models.layouts import head_layout

    on_gpu = found.device.type == "cuda"
    return {
        "model": model_digest(found.model),
        "heads": head_layout(found.model).describe(),
        "device": torch.cuda.get_device_name(found.device) if on_gpu else platform.processor() or platform.machine(),
        "ComfyUI": host_version,
        "torch": torch.__version__,
    }


def _record(found: Comparison) -> dict[str, Any]:
    return {
        "checkpoint": found.checkpoint,
        "machine": _machine(found),
        "settings": dict(found.settings),
        "costs": {name: cost._asdict() for name, cost in found.costs.items()},
        "hrvs": {name: hrv.digest for name, hrv in found.hrvs.items()},
        "findings": {
            hrv: {concept: asdict(one) for concept, one in findings.items()} for hrv, findings in found.findings.items()
        },
    }
