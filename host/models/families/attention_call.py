"""One attention of a denoiser's image to its text, as runs and controls see it: whatever the family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from ....hrv.heads.layout import AttentionLayer

WHOLE = slice(None)
"""All keys or all queries of a call."""

Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, slice], torch.Tensor]
"""The attention behind ours: (q, k, v, which of the call's queries these are) to [B, P, heads x d]."""


class AttentionCall(NamedTuple):
    """A call in which queries of the image meet keys of the text; other queries and keys may stand beside them.

    ``q``, ``k`` and ``v`` are as the host has them: [B, L, heads x d], heads one behind the other, or [B, heads, L, d]
    if ``by_head``. ``text`` is the place of the text's keys: the conditioning's tokens, then as much ``padding`` by the
    model. ``image`` is the place of the image's queries. ``extra`` are the options of the call. What the properties and
    methods give is [B, L, heads x d].
    """

    layer: AttentionLayer
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    extra: dict[str, Any]
    run: Run
    text: slice = WHOLE
    image: slice = WHOLE
    by_head: bool = False
    padding: int = 0

    @property
    def rows(self) -> int:
        """The number of rows B."""
        return len(self.v)

    @property
    def tokens(self) -> int:
        """The number of the conditioning's tokens."""
        return len(range(self.v.shape[self._axis])[self.text]) - self.padding

    @property
    def keys(self) -> torch.Tensor:
        """The text's keys [B, T, heads x d], padding included."""
        return self._flat(self.k, self.text)

    @property
    def values(self) -> torch.Tensor:
        """The text's values [B, T, heads x d], padding included."""
        return self._flat(self.v, self.text)

    @property
    def queries(self) -> torch.Tensor:
        """The image's queries [B, I, heads x d]."""
        return self._flat(self.q, self.image)

    def plain(self) -> torch.Tensor:
        """What the call gives without us."""
        return self.run(self.q, self.k, self.v, WHOLE)

    def found(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> torch.Tensor:
        """What the image's queries find [B, I, heads x d] where the text has these ``keys`` and ``values`` instead."""
        queries = self._part(self.q, self.image)
        return self.run(queries, self._with(self.k, keys), self._with(self.v, values), self.image)

    def out(self, found: torch.Tensor, plain: torch.Tensor | None = None) -> torch.Tensor:
        """The result of the call with ``found`` for the image's queries; all others find what they would without us.

        That is taken from ``plain``, if it is known already.
        """
        if self.image == WHOLE:
            return found
        start, stop, _ = self.image.indices(self.q.shape[self._axis])
        parts = [self._unmoved(slice(0, start), plain), found, self._unmoved(slice(stop, None), plain)]
        return torch.cat([part for part in parts if part is not None], dim=1)

    def _unmoved(self, queries: slice, plain: torch.Tensor | None) -> torch.Tensor | None:
        """What queries beside the image's find, or None where there are none."""
        own = self._part(self.q, queries)
        if not own.shape[self._axis]:
            return None
        return self.run(own, self.k, self.v, queries) if plain is None else plain[:, queries]

    @property
    def _axis(self) -> int:
        return 2 if self.by_head else 1

    def _part(self, of: torch.Tensor, place: slice) -> torch.Tensor:
        if place == WHOLE:
            return of
        return of[:, :, place] if self.by_head else of[:, place]

    def _flat(self, of: torch.Tensor, place: slice) -> torch.Tensor:
        part = self._part(of, place)
        return part.transpose(1, 2).flatten(2) if self.by_head else part

    def _with(self, of: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """Keys or values with others for the text's, as the host has them."""
        if text is None:
            return of
        if self.by_head:
            text = text.unflatten(-1, (self.layer.heads, -1)).transpose(1, 2)
        if self.text == WHOLE:
            return text
        start, stop, _ = self.text.indices(of.shape[self._axis])
        before, after = self._part(of, slice(0, start)), self._part(of, slice(stop, None))
        return torch.cat([before, text, after], dim=self._axis)


Attend = Callable[[AttentionCall], torch.Tensor]
"""What to do in an attention: the result of the call [B, L, heads x d]."""

Wrap = Callable[[AttentionLayer], "Attend | None"]
"""What to do at a layer; None leaves it as it is."""


class Wrapping(Protocol):
    """Gets into every attention of a model to its text, call by call, around whatever is there by then."""

    def into(self, transformer_options: dict[str, Any], context: torch.Tensor | None = None) -> dict[str, Any]:
        """A copy of the transformer options of a call with ours in it; ``context`` [B, T, C] is what it gets."""
        ...
