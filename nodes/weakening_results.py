"""What analyses by ordered weakening found, judged and saved."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from ..host.files.results import save_texts
from ..host.weakening.run import Analysis
from ..hrv.errors import HRVError
from ..hrv.weakening.statistics import Finding, finding
from ..hrv.weakening.tables import results_json, scores_csv


def judged(analysis: Analysis, factors: Sequence[float] = ()) -> tuple[list[Finding], list[str]]:
    """The findings of every result, at each of some factors (else at its own), and why others could not be judged."""
    findings: list[Finding] = []
    errors: dict[str, None] = {}
    for result, factor in product(analysis.results, factors or (None,)):
        try:
            findings.append(finding(result, factor))
        except HRVError as error:
            errors[str(error)] = None
    return findings, list(errors)


def saved_findings(
    prefix: str, analysis: Analysis, factors: Sequence[float] = ()
) -> tuple[list[Finding], str, str, str]:
    """Judge, and save the tables; return findings, CSV, JSON and what else there is to say, such as where they are.

    Raises HRVError if nothing could be judged, when the tables with all scores are saved.
    """
    findings, errors = judged(analysis, factors)
    texts = {".csv": scores_csv(analysis.results), ".json": results_json(analysis.results, findings)}
    paths = save_texts(prefix, texts)
    where = f"Saved as {paths[0].name} and {paths[1].name} in {paths[0].parent.name}."
    if analysis.images is not None:
        where += f" Images are in {analysis.images.parent.name}/{analysis.images.name}."
    if not findings:
        raise HRVError(f"{errors[0]} {where}")
    return findings, texts[".csv"], texts[".json"], "\n".join([where, *errors])
