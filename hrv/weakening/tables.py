"""Results of ordered weakening as CSV, as JSON, and as a table to read."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .plan import Weakening
from .side_effects import SideEffects
from .statistics import Finding, curve, unweakened_score

_COLUMNS = ("concept", "prompt", "target", "seed", "order", "draw", "backwards", "factor", "heads", "score")


def scores_csv(results: Sequence[Weakening]) -> str:
    """One line for every image with what was done and its score; an image that could not be scored has none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for result in results:
        for (line, heads), scores in zip(result.plan.cells, result.scores, strict=True):
            for case, row in zip(result.cases, scores, strict=True):
                for seed, score in zip(result.seeds, row, strict=True):
                    shown = "" if math.isnan(score) else repr(float(score))
                    what = line.order, line.draw, int(line.backwards), line.factor, heads
                    writer.writerow([result.concept, case.prompt, case.target, seed, *what, shown])
    return text.getvalue()


def results_json(results: Sequence[Weakening], findings: Sequence[Finding]) -> str:
    """Findings, curves and everything they were measured with; numbers that are none are null."""
    return json.dumps(
        {
            "findings": [_plain(asdict(found)) for found in findings],
            "curves": [_curves(result) for result in results],
            "provenance": [_plain(dict(result.provenance)) for result in results],
        },
        indent=1,
    )


def findings_table(findings: Sequence[Finding]) -> str:
    """A table in Markdown with a row for every concept."""
    rows = [
        ["concept", "verdict", "area (95 %)", "share", "random orders", "p", "rank agreement", "images a point"],
        ["---"] * 8,
        *(
            [
                found.concept,
                found.verdict,
                str(found.area),
                "" if found.share is None else f"{found.share:.0%}",
                ", ".join(f"{area:+.3f}" for area in found.random_areas),
                "" if found.p is None else f"{found.p:.4f}",
                f"{found.agreement:.2f}",
                str(found.images),
            ]
            for found in findings
        ),
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def side_effects_table(found: SideEffects) -> str:
    """A table in Markdown: rows are the concepts whose heads are weakened, columns what is lost of each score."""
    rows = [
        ["heads of", *found.scored],
        ["---"] * (1 + len(found.scored)),
        ["none: score", *(f"{found.unweakened(concept):.3f}" for concept in found.scored)],
        *([weakened, *(str(found.loss(weakened, concept)) for concept in found.scored)] for weakened in found.weakened),
        ["images", *(str(found.images(concept)) for concept in found.scored)],
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def side_effects_json(found: SideEffects) -> str:
    """The matrix with its intervals, and everything it was measured with; numbers that are none are null."""
    losses = [[found.loss(row, column)._asdict() for column in found.scored] for row in found.weakened]
    return json.dumps(
        {
            "weakened": list(found.weakened),
            "scored": list(found.scored),
            "heads": found.heads,
            "factor": found.factor,
            "unweakened": [found.unweakened(concept) for concept in found.scored],
            "losses": losses,
            "images": [found.images(concept) for concept in found.scored],
            "scores": _plain(found.scores.tolist()),
            "provenance": _plain(dict(found.provenance)),
        },
        indent=1,
    )


def _curves(result: Weakening) -> dict[str, Any]:
    """Mean scores of every line over the numbers of heads, with their intervals."""
    lines = []
    for line in result.plan.lines:
        each = curve(result, [line])
        lines.append({**line._asdict(), **{name: getattr(each, name).tolist() for name in ("mean", "low", "high")}})
    return {
        "concept": result.concept,
        "unweakened": _plain(unweakened_score(result)),
        "heads": list(result.plan.head_counts),
        "lines": _plain(lines),
    }


def _plain(value: Any) -> Any:
    """JSON has no word for numbers that are none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
