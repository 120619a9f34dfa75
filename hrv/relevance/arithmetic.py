"""Arithmetic of HRVs: merge, pick, mean and clamp. Results say in their provenance what they were made from.

Evidence is kept only where it still says something about the concepts of the result: after adding builds, and after
picking concepts as far as :meth:`~.evidence.Evidence.picked` goes. Without it a ranking goes by the values, which order
the heads of a concept alike.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np

from ..errors import HRVError, listed
from ..heads.layout import spell_difference
from .evidence import Evidence
from .vectors import HRV
from .vocabulary import fold

# What of a build's settings says which images were counted, and what changes no count; all others have to agree.
_SAMPLES = ("seed", "prompts", "images", "shard")
_INCIDENTAL = ("host", "batch_size")
_PARTS, _PROCESSING, _CONVERGENCE = "parts", "processing", "convergence"


def merge(hrvs: Sequence[HRV]) -> HRV:
    """One HRV of several with the same layout: builds of the same concepts added, different concepts side by side.

    HRVs of the same concepts in the same order are builds: their evidence is added and normalised as by
    :meth:`HRV.from_evidence`, which equals one build over all their images. HRVs without a common concept are
    concatenated in the order given: values stay as they are, bit for bit, and evidence is left out, because their
    concepts never competed for a head. With both kinds, the first comes first. Raises HRVError for fewer than two
    HRVs, other layouts, concepts that are only partly the same, and for builds without evidence, with other settings
    (naming the first that differs), or of the same images.
    """
    _require_several(hrvs, "Merging")
    _require_one_layout(hrvs)
    builds: dict[tuple[str, ...], list[HRV]] = {}
    for hrv in hrvs:
        builds.setdefault(_folded(hrv), []).append(hrv)
    merged = [_added(same) if len(same) > 1 else same[0] for same in builds.values()]
    for one, other in combinations(merged, 2):
        theirs = set(_folded(other))
        shared = [name for name in one.concepts if fold(name) in theirs]
        if shared:
            raise HRVError(
                "HRVs can be merged if they have no concept in common, or the same concepts in the same order. These "
                f"share {listed(shared)}: leave the shared concepts out of one of them with Pick Concepts."
            )
    if len(merged) == 1:
        return merged[0]
    values = np.concatenate([hrv.values for hrv in merged])
    names = tuple(name for hrv in merged for name in hrv.concepts)
    return HRV(values, names, merged[0].layout, provenance=_combined("merge", merged))


def pick(hrv: HRV, concepts: Sequence[str]) -> HRV:
    """The rows of some concepts, in the order asked for; values stay as they are, bit for bit.

    Of votes nothing is kept unless all concepts are. Raises HRVError for no concept, an unknown one, and one asked for
    twice.
    """
    if not concepts:
        raise HRVError(f"No concept was picked. This HRV has: {listed(hrv.concepts)}.")
    rows = [hrv.index(name) for name in concepts]
    names = tuple(hrv.concepts[row] for row in rows)
    evidence = hrv.evidence.picked(rows, len(hrv.concepts)) if hrv.evidence is not None else None
    return HRV(hrv.values[rows], names, hrv.layout, evidence, _processed(hrv, "pick", concepts=list(names)))


def mean(hrvs: Sequence[HRV]) -> HRV:
    """The mean of the values of every concept, each HRV weighing the same, concepts in the order of the first.

    Computed in float64 and rounded once; rows of L1 norm H keep it. There is no evidence: HRVs of different models
    have none in common (add builds of one model with :func:`merge`). Raises HRVError for other layouts or concepts.
    """
    _require_several(hrvs, "A mean")
    _require_one_layout(hrvs)
    first, *others = hrvs
    for other in others:
        mine, theirs = set(_folded(first)), set(_folded(other))
        missing = [name for name in first.concepts if fold(name) not in theirs]
        extra = [name for name in other.concepts if fold(name) not in mine]
        if missing or extra:
            raise HRVError(
                f"A mean needs HRVs with the same concepts, but not all of these have {listed(missing + extra)}. Keep "
                "the common ones with Pick Concepts."
            )
    total = np.zeros(first.values.shape)
    for hrv in hrvs:
        in_order = hrv.concepts == first.concepts
        total += hrv.values if in_order else hrv.values[[hrv.index(name) for name in first.concepts]]
    values = (total / len(hrvs)).astype(np.float32)
    return HRV(values, first.concepts, first.layout, provenance=_combined("mean", hrvs))


def clamp(hrv: HRV, limit: float) -> HRV:
    """Every element above ``limit`` becomes ``limit`` (published: 9 for SDXL, none for SD 1.x).

    Rows are not normalised anew, so the others stay as they are. There is no evidence, because values no longer
    follow from it. Raises HRVError for a limit that is not positive.
    """
    if not 0 < limit < np.inf:
        raise HRVError(f"The limit of HRV elements must be a positive number, not {limit}.")
    values = np.minimum(hrv.values, np.float32(limit))
    return HRV(values, hrv.concepts, hrv.layout, provenance=_processed(hrv, "clamp", limit=limit))


def _added(builds: Sequence[HRV]) -> HRV:
    """The build over all images of several builds of the same concepts."""
    first = builds[0]
    evidence: list[Evidence] = []
    for build in builds:
        if build.evidence is None:
            raise HRVError(
                "HRVs of the same concepts are merged by adding counts or effects, but one of these has none. "
                "Published, clamped and averaged HRVs never do: use HRV Mean instead."
            )
        _require_same_settings(first, build)
        evidence.append(build.evidence)
    parts: Sequence[Mapping[str, Any]] = [part for build in builds for part in _parts(build)]
    for one, other in combinations(parts, 2):
        if _share_images(one, other):
            raise HRVError(
                f"Two of these builds count the same images (seed {one.get('seed', 'not recorded')}), and counting "
                "them twice adds nothing. Merge shards of the same build, or builds with different seeds."
            )
    parts = _wholes(parts)
    agreed = {
        key: first.provenance[key]
        for key in _INCIDENTAL
        if all(build.provenance.get(key) == first.provenance.get(key, ()) for build in builds)
    }
    made_of = parts[0] if len(parts) == 1 else {_PARTS: parts}
    total = reduce(lambda one, other: one.added(other), evidence)
    return HRV.from_evidence(total, first.concepts, first.layout, {**_settings(first), **agreed, **made_of})


def _share_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two parts may count an image both; different shards of one build do not."""
    if any(one.get(key) != other.get(key) for key in ("seed", "prompts")):
        return False
    return not (_shards(one) and _whole(one) == _whole(other) and _shards(one) == _shards(other) and one != other)


def _wholes(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Parts in an order of their own, all shards of a build replaced by the whole."""
    found = []
    for part in parts:
        shards = [other for other in parts if _whole(other) == _whole(part) and _shards(other) == _shards(part)]
        complete = len(shards) == _shards(part)
        whole = {key: value for key, value in _whole(part).items() if key != "batch_size"} if complete else part
        if whole not in found:
            found.append(whole)
    return sorted(found, key=repr)


def _shards(part: Mapping[str, Any]) -> int:
    """Into how many shards the build of a part was cut, "2/8" being the second of eight; 0 if it is no shard."""
    found = re.fullmatch(r"[1-9]\d{0,8}/([1-9]\d{0,8})", str(part.get("shard")))
    return int(found[1]) if found else 0


def _whole(part: Mapping[str, Any]) -> dict[str, Any]:
    """The build that a part is a shard of."""
    return {key: value for key, value in part.items() if key != "shard"}


def _require_same_settings(one: HRV, other: HRV) -> None:
    mine, theirs = _settings(one), _settings(other)
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            texts = [repr(settings.get(key, "not recorded")) for settings in (mine, theirs)]
            # Long texts, such as vocabularies, are shown from just before the place where they part.
            parting = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), 0)
            start = max(0, parting - 20)
            shown = [f"{'…' if start else ''}{text[start : start + 60]}" for text in texts]
            raise HRVError(
                f"These builds cannot be added, because their setting '{key}' differs: {shown[0]} in one, {shown[1]} "
                "in another. Only images made with the same settings can be added."
            )


def _settings(build: HRV) -> dict[str, Any]:
    """What builds that are added have to agree on."""
    left_out = (*_SAMPLES, *_INCIDENTAL, _PARTS, _CONVERGENCE)
    return {key: value for key, value in build.provenance.items() if key not in left_out}


def _parts(build: HRV) -> list[dict[str, Any]]:
    """Which images a build counts: those of each part it was added up from, or its own.

    A shard is made of whole batches, so only with their size is it known which images those are.
    """
    parts = _entries(build, _PARTS) or [build.provenance]
    keys = [(*_SAMPLES, "batch_size") if _shards(part) else _SAMPLES for part in parts]
    return [{key: part[key] for key in wanted if key in part} for part, wanted in zip(parts, keys, strict=True)]


def _processed(hrv: HRV, operation: str, **settings: Any) -> dict[str, Any]:
    """The provenance of an HRV with one more step of processing."""
    steps = [*_entries(hrv, _PROCESSING), {"operation": operation, **settings}]
    return {**hrv.provenance, _PROCESSING: steps}


def _entries(hrv: HRV, key: str) -> list[Mapping[str, Any]]:
    """The objects of a list in the provenance; files of others may hold anything there."""
    found = hrv.provenance.get(key)
    return [entry for entry in found if isinstance(entry, Mapping)] if isinstance(found, tuple) else []


def _combined(operation: str, hrvs: Sequence[HRV]) -> dict[str, Any]:
    """The provenance of an HRV made from several."""
    return {"operation": operation, "sources": [hrv.provenance for hrv in hrvs]}


def _require_several(hrvs: Sequence[HRV], what: str) -> None:
    if len(hrvs) < 2:
        raise HRVError(f"{what} needs at least two HRVs, not {len(hrvs)}.")


def _require_one_layout(hrvs: Sequence[HRV]) -> None:
    for hrv in hrvs[1:]:
        if hrv.layout != hrvs[0].layout:
            difference = spell_difference(hrvs[0].layout, hrv.layout, "first", "other")
            raise HRVError(f"These HRVs belong to different kinds of models. {difference} Use HRVs of the same kind.")


def _folded(hrv: HRV) -> tuple[str, ...]:
    """The concepts in the form in which they are compared."""
    return tuple(fold(name) for name in hrv.concepts)
