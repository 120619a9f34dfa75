"""What the top heads of a causal build really do: patched together in a few pairs, against what was estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...hrv.relevance.evidence import Effects
from ...hrv.storage.state_file import read_state, require, write_state
from ..work.description import Description
from ..work.executor import Tick
from ..work.status import Seen
from .attribution import Attribution
from .pair_images import NumberedPair, PairImages
from .patching import Patch

KIND = "causal check"
"""What the state is of, for people and for the names in its file."""


@dataclass
class CheckState:
    """Checks under way: ``found`` float32 [P, 2], what patching did and the whole effect; NaN where not yet."""

    key: str
    found: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file can't be written."""
        write_state(path, KIND, self.key, {}, {"found": self.found})

    def resumed(self, path: Path) -> CheckState:
        """The state of the same checks in a file, or this one if there is no file.

        Raises OSError and HRVError as :func:`~...hrv.storage.state_file.read_state` does, and HRVError for what no
        check finds.
        """
        read = read_state(path, KIND, self.key, (), {"found": self.found})
        if read is None:
            return self
        found = read[1]["found"]
        missing = np.isnan(found).all(axis=1)
        possible = np.isfinite(found[~missing]).all() and (found[~missing, 1] >= 0).all()
        require(bool(possible), "its checks are incomplete, negative or not finite.")
        return CheckState(self.key, found)


class TopHeadChecks:
    """The checks of a build as a :class:`~..work.job.Job`; its pieces are pairs, by their places in the list.

    ``tops`` are the head positions to patch, by concept; ``description`` is of these checks.
    """

    kind, unit = KIND, "checks"

    def __init__(
        self,
        images: PairImages,
        pairs: Sequence[NumberedPair],
        tops: Mapping[str, frozenset[int]],
        key: str,
        description: Description,
    ):
        self.images, self.pairs, self.tops, self.key = images, pairs, tops, key
        self._description = description
        self.units, self.steps = len(pairs), images.settings.steps + 1

    def fresh(self) -> CheckState:
        return CheckState(self.key, np.full((len(self.pairs), 2), np.nan, dtype=np.float32))

    def description(self) -> Description:
        return self._description

    def left(self, state: CheckState) -> list[int]:
        return np.flatnonzero(np.isnan(state.found).any(axis=1)).tolist()

    def size(self, piece: int) -> int:
        return 1

    def maker(self, tick: Tick) -> Callable[[int], npt.NDArray[np.float32]]:
        """What checks one pair: float32 [2]."""
        attribution = Attribution(self.images.model)

        def make(place: int) -> npt.NDArray[np.float32]:
            pair = self.pairs[place]
            patch = Patch(heads=self.tops[pair.pair.concept])
            ((_, sigma, those),) = self.images.made([pair], tick)
            effects = attribution.patched(those, sigma, [patch])
            tick(1)
            return np.array([effects.patches[0, 0], effects.squares[0]], dtype=np.float32)

        return make

    def keep(self, state: CheckState, piece: int, made: npt.NDArray[np.float32]) -> None:
        state.found[piece] = made

    def is_finished(self, state: CheckState) -> bool:
        """Every pair counts, so the checks never end early."""
        return False

    def detail(self, state: CheckState, piece: int) -> str:
        return self.pairs[piece].pair.concept

    def seen(self, state: CheckState) -> Seen:
        """What was built before stays to be seen."""
        return Seen()

    def shares(self, state: CheckState) -> dict[str, tuple[float, int]]:
        """By concept the true share of its top heads, and in how many pairs."""
        shares: dict[str, tuple[float, int]] = {}
        for name in self.tops:
            own = [place for place, one in enumerate(self.pairs) if one.pair.concept == name]
            if not own or not state.found[own, 1].any():
                continue
            # The patch's share as that of a head, level by level.
            places = np.array([[0, place, self.pairs[place].level] for place in own], dtype=np.int64)
            effects = Effects(state.found[own, :1], state.found[own, 1], places)
            shares[name] = float(effects.scores(1)[0, 0]), len(own)
        return shares
