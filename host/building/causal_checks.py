"""What the top heads of a causal build really do: patched together in a few pairs, against what was estimated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...hrv.storage.state_file import read_state, write_state
from ..work.executor import Tick
from .attribution import Attribution
from .pair_images import NumberedPair, PairImages
from .patching import Patch

KIND = "causal check"
"""What the state is of, for people and for the names in its file."""


@dataclass
class CheckState:
    """Checks under way: ``found`` float32 [P, L, 2], what patching did and the whole effect; NaN where not yet."""

    key: str
    found: npt.NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file can't be written."""
        write_state(path, KIND, self.key, {}, {"found": self.found})

    def resumed(self, path: Path) -> CheckState:
        """The state of the same checks in a file, or this one if there is no file; HRVError as read_state does."""
        found = read_state(path, KIND, self.key, (), {"found": self.found.shape})
        return self if found is None else CheckState(self.key, found[1]["found"])


class TopHeadChecks:
    """The checks of a build as a :class:`~..work.job.Job`; its pieces are pairs, by their places in the list.

    ``tops`` are the head positions to patch, by concept.
    """

    kind, unit = KIND, "checks"

    def __init__(
        self,
        images: PairImages,
        pairs: Sequence[NumberedPair],
        tops: Mapping[str, frozenset[int]],
        levels: Sequence[float],
        key: str,
    ):
        self.images, self.pairs, self.tops, self.levels, self.key = images, pairs, tops, levels, key
        self.units, self.steps = len(pairs), images.settings.steps + len(levels)

    def fresh(self) -> CheckState:
        return CheckState(self.key, np.full((len(self.pairs), len(self.levels), 2), np.nan, dtype=np.float32))

    def left(self, state: CheckState) -> list[int]:
        return np.flatnonzero(np.isnan(state.found).any(axis=(1, 2))).tolist()

    def size(self, piece: int) -> int:
        return 1

    def maker(self, tick: Tick) -> Callable[[int], npt.NDArray[np.float32]]:
        """What checks one pair: float32 [L, 2]."""
        attribution = Attribution(self.images.model)

        def make(place: int) -> npt.NDArray[np.float32]:
            pair = self.pairs[place]
            found = np.zeros((len(self.levels), 2), dtype=np.float32)
            for _, those in self.images.made([pair], tick):
                for level, progress in enumerate(self.levels):
                    noised = those._replace(noise=self.images.noise([pair], level, those.latents))
                    patch = Patch(heads=self.tops[pair.pair.concept])
                    effects = attribution.patched(noised, self.images.sigma(progress), [patch])
                    found[level] = effects.patches[0, 0], effects.squares[0]
                    tick(1)
            return found

        return make

    def keep(self, state: CheckState, piece: int, made: npt.NDArray[np.float32]) -> None:
        state.found[piece] = made

    def is_finished(self, state: CheckState) -> bool:
        """All pairs are checked."""
        return False

    def detail(self, state: CheckState, piece: int) -> str:
        return self.pairs[piece].pair.concept

    def shares(self, state: CheckState) -> dict[str, tuple[float, int]]:
        """By concept the true share of its top heads, and in how many pairs."""
        shares: dict[str, tuple[float, int]] = {}
        for name in self.tops:
            own = np.array([one.pair.concept == name for one in self.pairs], dtype=bool)
            sums = state.found[own].astype(np.float64).sum(axis=0)
            if own.any() and (sums[:, 1] > 0).any():
                there = sums[:, 1] > 0
                shares[name] = float((sums[there, 0] / sums[there, 1]).mean()), int(own.sum())
        return shares
