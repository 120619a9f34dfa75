"""Head Relevance Vectors: one value per concept and head position, immutable once made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import HRVError, is_printable, quoted, short
from ..heads.layout import HeadLayout
from ..storage.digest import content_digest
from .evidence import Counts, Evidence, Scores, Votes, normalised, read_only, require_shape
from .vocabulary import find_concept, fold, tidy

Values = npt.NDArray[np.float32]

# Deep enough for any record of a build, and far from the interpreter's own limit, which a file could reach.
_DEEPEST_PROVENANCE = 32


@dataclass(frozen=True, eq=False)
class HRV:
    """Relevances of H head positions for N concepts (arXiv 2412.02237, section 3).

    ``values``      float32 [N, H], finite and not negative; 1.0 is an average head. Rows of a built HRV have
                    the L1 norm H; processed ones (clamped, averaged) need not.
    ``concepts``    N names, different from each other whatever their case.
    ``layout``      the head positions, in canonical order.
    ``evidence``    what the values follow from, and heads are ranked by, or None if that is not known.
    ``provenance``  what the HRV was made from, any JSON object of at most 32 levels; kept as read-only
                    mappings and tuples.

    Arrays are copied and can never be made writable. Raises HRVError for anything else.
    """

    values: Values
    concepts: tuple[str, ...]
    layout: HeadLayout
    evidence: Evidence | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _rows: Mapping[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        concepts = _checked_concepts(self.concepts)
        shape = len(concepts), self.layout.head_count
        object.__setattr__(self, "concepts", concepts)
        object.__setattr__(self, "_rows", {fold(name): row for row, name in enumerate(concepts)})
        object.__setattr__(self, "values", _checked_values(self.values, shape))
        if self.evidence is not None:
            object.__setattr__(self, "evidence", self.evidence.checked(len(concepts), self.layout))
        object.__setattr__(self, "provenance", _frozen(json.loads(_provenance_json(self.provenance))))

    @classmethod
    def from_evidence(
        cls,
        evidence: Evidence,
        concepts: Sequence[str],
        layout: HeadLayout,
        provenance: Mapping[str, Any] | None = None,
    ) -> HRV:
        """Bring the scores of the evidence [N, H] to rows of L1 norm H.

        A concept that no head is relevant for keeps a row of zeros: it has no direction to scale, and a short build
        may well have one. Raises HRVError as :meth:`Evidence.checked` does.
        """
        names = _checked_concepts(concepts)
        scores = evidence.checked(len(names), layout).scores(len(names))
        return cls(normalised(scores), names, layout, evidence, provenance or {})

    @classmethod
    def from_counts(
        cls,
        counts: Counts,
        concepts: Sequence[str],
        layout: HeadLayout,
        provenance: Mapping[str, Any] | None = None,
    ) -> HRV:
        """:meth:`from_evidence` of votes [N, H]: each head's to sum 1, then each concept's row to L1 norm H."""
        return cls.from_evidence(Votes(counts), concepts, layout, provenance)

    def index(self, concept: str) -> int:
        """Number of a concept's row; HRVError if unknown. Case and spacing do not matter."""
        row = self._rows.get(fold(concept))
        return find_concept(concept, self.concepts, "HRV") if row is None else row

    def row(self, concept: str) -> Values:
        """The vector [H] of one concept, read-only; found as by :meth:`index`."""
        return self.values[self.index(concept)]

    def ranking(self, concept: str) -> npt.NDArray[np.int64]:
        """All H head positions, the most relevant for ``concept`` first (MoRHF); equals keep their order.

        Ranked by the scores of the evidence, or by the values if there is none.
        """
        index = self.index(concept)
        scores = self.values[index] if self.evidence is None else self._scores[index]
        return np.argsort(-scores, kind="stable").astype(np.int64)

    @cached_property
    def _scores(self) -> Scores:
        assert self.evidence is not None
        return self.evidence.scores(len(self.concepts))

    def provenance_json(self) -> str:
        """The provenance as canonical JSON text (sorted keys, ASCII)."""
        return _provenance_json(self.provenance)

    def same_as(self, other: HRV) -> bool:
        """Whether values and evidence are bit-equal and concepts, layout and provenance are equal."""
        return self.digest == other.digest

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex of everything this HRV holds."""
        return self._digest_with({"provenance": self.provenance_json()})

    @cached_property
    def digest_without_provenance(self) -> str:
        """SHA-256 in hex of everything but the provenance, which anybody may write."""
        return self._digest_with({})

    def _digest_with(self, more: Mapping[str, str]) -> str:
        texts = {"concepts": json.dumps(self.concepts), "layout": self.layout.to_json(), **more}
        arrays: dict[str, npt.NDArray[Any]] = {"hrv": self.values}
        if self.evidence is not None:
            arrays.update(self.evidence.arrays())
        return content_digest(texts, arrays)

    def __deepcopy__(self, memo: dict[int, Any]) -> HRV:
        # Hosts deep-copy the options of a model; what cannot change need not be copied.
        return self


def _checked_concepts(concepts: Sequence[str]) -> tuple[str, ...]:
    if isinstance(concepts, str) or not all(isinstance(name, str) for name in concepts):
        raise HRVError("The concepts of an HRV must be a list of names.")
    names = tuple(tidy(name) for name in concepts)
    if not names:
        raise HRVError("An HRV needs at least one concept.")
    seen: set[str] = set()
    for name in names:
        if not is_printable(name):
            raise HRVError(
                f"A concept cannot be named {quoted(name)}: the name is empty or has unprintable characters."
            )
        if fold(name) in seen:
            raise HRVError(f"The concept {short(name)} is there twice; the concepts of an HRV need different names.")
        seen.add(fold(name))
    return names


def _checked_values(values: Any, shape: tuple[int, int]) -> Values:
    array = np.asarray(values)
    if array.dtype.kind not in "fiu":
        raise HRVError(f"The values of an HRV must be numbers, not {array.dtype}.")
    require_shape("values", array, shape)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise HRVError("The values of this HRV contain NaN or infinity.")
    if (array < 0).any():
        raise HRVError(f"The values of an HRV must not be negative; the smallest here is {array.min():g}.")
    return read_only(array)


def _provenance_json(provenance: Mapping[str, Any]) -> str:
    if not isinstance(provenance, Mapping):
        raise HRVError(f"The provenance of an HRV must be a JSON object, not {type(provenance).__name__}.")
    try:
        return json.dumps(_thawed(provenance), sort_keys=True, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise HRVError(f"The provenance of an HRV cannot be written as JSON: {error}.") from None


def _frozen(value: Any) -> Any:
    """A JSON value with its objects as read-only mappings, which are views of them, and its lists as tuples."""
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _frozen(item)
        return MappingProxyType(value)
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    return value


def _thawed(value: Any, depth: int = 0) -> Any:
    """A JSON value with mappings as dicts and tuples as lists; TypeError or ValueError if it is none."""
    if depth > _DEEPEST_PROVENANCE:
        raise ValueError(f"it is nested more than {_DEEPEST_PROVENANCE} levels deep")
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError("a key is not text")
        return {key: _thawed(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_thawed(item, depth + 1) for item in value]
    return value


Factors = npt.NDArray[np.float32]


def clamped_row(hrv: HRV, concept: str, clamp: float | None) -> Factors:
    """The HRV elements [H] of a concept, at most ``clamp`` (published: 9 for SDXL, none for SD 1.x).

    Raises HRVError for an unknown concept and a clamp that is not positive.
    """
    row = hrv.row(concept)
    if clamp is None:
        return row
    if not clamp > 0:
        raise HRVError(f"The clamp of HRV elements must be a positive number, not {clamp}.")
    return np.minimum(row, np.float32(clamp))
