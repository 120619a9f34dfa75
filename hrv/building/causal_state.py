"""What is saved of a causal build on its way: the effects of every pair that was measured.

A state belongs to one build, told by a key over everything that its effects depend on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..storage.state_file import read_state, require, write_state

KIND = "causal build"
"""What the state is of, for people and for the names in its file."""

GROUPS = ("own word", "other words", "end", "padding")
"""Groups of tokens through which a text acts, in the order of :attr:`CausalState.groups`."""


@dataclass
class CausalState:
    """A causal build under way, NaN where nothing was measured yet.

    ``key``      tells the build from any other.
    ``effects``  float32 [P, H], each head's part of a pair's effect.
    ``norms``    float32 [P], the whole effect.
    ``groups``   float32 [P, 4], the part that goes through each group of tokens (:data:`GROUPS`); measured for
                 the pairs of each concept that are checked.
    ``own``      the places of the pairs that are to be measured, all or a shard's.
    """

    key: str
    effects: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float32]
    groups: npt.NDArray[np.float32]
    own: range

    @classmethod
    def beginning(cls, key: str, pairs: int, heads: int, own: range | None = None) -> CausalState:
        """The state before the first pair; without ``own``, all ``pairs`` are to be measured."""
        effects, norms, groups = (
            np.full(shape, np.nan, dtype=np.float32) for shape in ((pairs, heads), (pairs,), (pairs, len(GROUPS)))
        )
        return cls(key, effects, norms, groups, range(pairs) if own is None else own)

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Which pairs were measured: bool [P]."""
        return ~np.isnan(self.norms)

    def save(self, path: Path) -> None:
        """Write the state; raises HRVError if the file can't be written."""
        arrays = {"effects": self.effects, "norms": self.norms, "groups": self.groups}
        write_state(path, KIND, self.key, {}, arrays)

    def resumed(self, path: Path) -> CausalState:
        """The state of the same build in a file, or this one if there is no file.

        Raises OSError and HRVError as :func:`~..storage.state_file.read_state` does, and HRVError for what this build
        cannot have measured; the file is left as it is.
        """
        beginning = {"effects": self.effects, "norms": self.norms, "groups": self.groups}
        found = read_state(path, KIND, self.key, (), beginning)
        if found is None:
            return self
        _, arrays = found
        state = CausalState(self.key, arrays["effects"], arrays["norms"], arrays["groups"], self.own)
        done, grouped = state.done, ~np.isnan(state.groups).all(axis=1)
        others = np.delete(done, self.own)
        require(not others.any(), "it has pairs that aren't to be measured here.")
        # Whatever there is of other pairs is measured again.
        require(bool(np.isfinite(state.effects[done]).all()), "its effects aren't finite.")
        positive = np.isfinite(state.norms[done]).all() and (state.norms[done] >= 0).all()
        require(bool(positive), "its norms are negative or not finite.")
        require(bool(np.isfinite(state.groups[done & grouped]).all()), "its groups of tokens aren't finite.")
        return state
