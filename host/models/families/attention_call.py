"""One attention of a denoiser's image to its text, as runs and controls see it: whatever the family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from ....hrv.heads.layout import AttentionLayer
from ....hrv_kernels.value_rescaling import rescale_values

WHOLE = slice(None)
"""All keys or all queries of a call."""

NOTHING = slice(0, 0)
"""None of a call's keys."""


class Run(Protocol):
    """The attention behind ours: q, k and v, as the host has them, to [B, P, heads x d]."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        queries: slice = WHOLE,
        heads: int | None = None,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``queries`` says which of the call's queries these are.

        Where they are of some rows and heads only, ``heads`` is the number of these and ``mask`` theirs.
        """
        ...


class Text(NamedTuple):
    """What some heads have of a text: keys and values [B, T, heads x d], and its part of a mask if there is one."""

    keys: torch.Tensor
    values: torch.Tensor
    mask: torch.Tensor | None = None


class Following(NamedTuple):
    """E rows of a call that follow other rows: which they are, whom each follows, and that of all rows [B] together.

    In ``order`` is the source of each row that follows, and each other row itself.
    """

    rows: torch.Tensor
    sources: torch.Tensor
    order: torch.Tensor


class AttentionCall(NamedTuple):
    """A call in which queries of the image meet keys of the text; other queries and keys may stand beside them.

    ``q``, ``k`` and ``v`` are as the host has them: [B, L, heads x d], heads one behind the other, or [B, heads, L, d]
    if ``by_head``. ``text`` is the place of the text's keys: the conditioning's tokens, then as much ``padding`` by the
    model. ``image`` is the place of the image's queries. ``extra`` are the options of the call, ``mask`` is what the
    host's attention gets as one. ``alone`` says that ``run`` is attention, and nothing that another pack adds to it.
    What the properties and methods give is [B, L, heads x d].
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
    mask: torch.Tensor | None = None
    alone: bool = True

    @property
    def rows(self) -> int:
        """The number of rows B."""
        return len(self.v)

    @property
    def tokens(self) -> int:
        """The number of the conditioning's tokens."""
        return len(range(self.v.shape[self._axis])[self.text]) - self.padding

    @property
    def positions(self) -> int:
        """The number of the image's queries I."""
        return len(range(self.q.shape[self._axis])[self.image])

    @property
    def keys(self) -> torch.Tensor:
        """The text's keys [B, T, heads x d], padding included."""
        return self._flat(self._part(self.k, self.text))

    @property
    def values(self) -> torch.Tensor:
        """The text's values [B, T, heads x d], padding included."""
        return self._flat(self._part(self.v, self.text))

    @property
    def queries(self) -> torch.Tensor:
        """The image's queries [B, I, heads x d]."""
        return self._flat(self._part(self.q, self.image))

    def values_of(self, rows: torch.Tensor) -> torch.Tensor:
        """The text's values of some rows."""
        return self._flat(self._part(self.v, self.text).index_select(0, rows))

    def plain(self) -> torch.Tensor:
        """What the call gives without us."""
        return self.run(self.q, self.k, self.v)

    def read(self, rows: slice, heads: torch.Tensor) -> Text:
        """What some rows have of the text in some heads, by their numbers in the layer."""
        keys, values = (self._of(self._part(part, self.text)[rows], heads) for part in (self.k, self.v))
        mask = self._mask_of(rows, heads)
        return Text(keys, values, None if mask is None else mask[..., self.text])

    def found_by(self, rows: slice, heads: torch.Tensor, text: Text) -> torch.Tensor:
        """What the image's queries of some rows find with some heads [B, I, heads x d] in another text of theirs."""
        queries = self._of(self._part(self.q, self.image)[rows], heads)
        keys, values = text.keys, text.values
        if self.text != WHOLE:
            behind = slice(self.text.stop, None)
            keys, values = (
                torch.cat([of_text, self._of(self._part(part, behind)[rows], heads)], dim=1)
                for of_text, part in ((keys, self.k), (values, self.v))
            )
        q, k, v = (self._laid(part, len(heads)) for part in (queries, keys, values))
        return self.run(q, k, v, self.image, len(heads), self._mask_with(rows, heads, text))

    def found(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> torch.Tensor:
        """What the image's queries find [B, I, heads x d] where the text has these ``keys`` and ``values`` instead."""
        queries = self._part(self.q, self.image)
        return self.run(queries, self._with(self.k, keys), self._with(self.v, values), self.image)

    def weighed(self, shares: torch.Tensor) -> torch.Tensor:
        """The result of the call, a tensor of its own, times ``shares`` [B, heads] for the image's queries.

        Where they read nothing but the text, its values are weighed: what others add to the result stays.
        """
        if self.image == self.text == WHOLE:
            return self.found(values=rescale_values(self.values, shares[:, None])).clone()
        out = self.plain().clone()
        by_head = out[:, self.image].unflatten(-1, (self.layer.heads, -1))
        by_head *= shares[:, None, :, None].to(out.dtype)
        return out

    def following(
        self, following: Following, given: torch.Tensor, kept: torch.Tensor | None, itself: torch.Tensor | None
    ) -> torch.Tensor:
        """The result of the call where the image's queries of some rows attend as those of other rows do.

        By the maps of their sources they find ``given`` [E, T, heads x d] as the values of the text, by their own maps
        ``kept``, and of the values of all other keys the share ``itself`` [E] by the first and what is left by the
        second. None is nothing kept, and all of that share.
        """
        rows, sources, order = following
        queries, heads = self._part(self.q, self.image), self.layer.heads
        if kept is None and itself is None and self.alone:
            values = self.v.index_copy(0, rows, self._valued(rows, given, None)) if given.shape[1] else self.v
            of_order = queries.index_select(0, order), self.k.index_select(0, order), values, self.image
            if self.mask is None:
                return self.out(self.run(*of_order))
            return self.out(self.run(*of_order, heads, self._mask_of(order)))
        own = self._valued(rows, torch.zeros_like(given) if kept is None else kept, 1.0 - _shares(itself, given))
        found = self.run(queries, self.k, self.v.index_copy(0, rows, own), self.image)
        by_sources = self.run(
            queries.index_select(0, sources),
            self.k.index_select(0, sources),
            self._valued(rows, given, itself),
            self.image,
            heads,
            self._mask_of(sources),
        )
        return self.out(found.index_add(0, rows, by_sources.to(found.dtype)))

    def out(self, found: torch.Tensor, plain: torch.Tensor | None = None) -> torch.Tensor:
        """The result of the call with ``found`` for the image's queries; all others find what they would without us.

        That is taken from ``plain``, if it is known already.
        """
        if self.image == WHOLE:
            return found
        before = self._unmoved(slice(0, self.image.start), plain)
        behind = None if self.image.stop is None else self._unmoved(slice(self.image.stop, None), plain)
        return torch.cat([part for part in (before, found, behind) if part is not None], dim=1)

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

    def _flat(self, part: torch.Tensor) -> torch.Tensor:
        return part.transpose(1, 2).flatten(2) if self.by_head else part

    def _with(self, of: torch.Tensor, text: torch.Tensor | None) -> torch.Tensor:
        """Keys or values with others for the text's, as the host has them."""
        if text is None:
            return of
        text = self._laid(text, self.layer.heads)
        if self.text == WHOLE:
            return text
        return torch.cat([text, self._part(of, slice(self.text.stop, None))], dim=self._axis)

    def _laid(self, flat: torch.Tensor, heads: int) -> torch.Tensor:
        """[B, L, heads x d] as the host has it."""
        return flat.unflatten(-1, (heads, -1)).transpose(1, 2) if self.by_head else flat

    def _of(self, part: torch.Tensor, heads: torch.Tensor) -> torch.Tensor:
        """Some heads of a part [B, L, heads x d]."""
        by_head = part.transpose(1, 2) if self.by_head else part.unflatten(-1, (self.layer.heads, -1))
        return by_head.index_select(2, heads).flatten(2)

    def _valued(self, rows: torch.Tensor, text: torch.Tensor, share: torch.Tensor | None) -> torch.Tensor:
        """Values of some rows, as the host has them, with others for the text's and a ``share`` [E] of all others."""
        text = self._laid(text, self.layer.heads)
        if self.text == WHOLE:
            return text
        rest = self._part(self.v, slice(self.text.stop, None)).index_select(0, rows)
        if share is not None:
            rest = rest * share.to(rest.dtype).view(-1, *[1] * (rest.ndim - 1))
        return torch.cat([text, rest], dim=self._axis)

    def _mask_of(self, rows: slice | torch.Tensor, heads: torch.Tensor | None = None) -> torch.Tensor | None:
        """The mask [B, heads, I, L] of some rows and heads of the image's queries; sizes of 1 stand for all."""
        if self.mask is None:
            return None
        mask = self.mask
        # [I, L] and [B, I, L] as the host's attentions take them.
        mask = mask.reshape((1,) * (3 - mask.ndim) + mask.shape) if mask.ndim < 3 else mask
        mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
        mask = mask[rows] if len(mask) > 1 else mask
        mask = mask.index_select(1, heads) if heads is not None and mask.shape[1] > 1 else mask
        return mask[:, :, self.image] if mask.shape[2] > 1 else mask

    def _mask_with(self, rows: slice, heads: torch.Tensor, text: Text) -> torch.Tensor | None:
        """The mask for another text: where one of them has none, nothing is forbidden."""
        own = self._mask_of(rows, heads)
        if self.text == WHOLE or (own is None and text.mask is None):
            return text.mask
        known = own if own is not None else text.mask
        assert known is not None
        behind = self.k.shape[self._axis] - self.text.stop
        parts = [
            known.new_full((1, 1, 1, count), known.dtype == torch.bool) if part is None else part
            for part, count in (
                (text.mask, text.keys.shape[1]),
                (None if own is None else own[..., self.text.stop :], behind),
            )
        ]
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*shape, -1) for part in parts], dim=-1)


def _shares(itself: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
    """``itself`` [E], which is 1 for all ``rows`` [E, ...] where it is not given."""
    return rows.new_ones(len(rows)) if itself is None else itself


Attend = Callable[[AttentionCall], torch.Tensor]
"""What to do in an attention: the result of the call [B, L, heads x d]."""

Wrap = Callable[[AttentionLayer], "Attend | None"]
"""What to do at a layer; None leaves it as it is."""


class Wrapping(Protocol):
    """Gets into every attention of a model to its text, call by call, around whatever is there by then."""

    def into(self, transformer_options: dict[str, Any], context: torch.Tensor | None = None) -> dict[str, Any]:
        """A copy of the transformer options of a call with ours in it; ``context`` [B, T, C] is what it gets."""
        ...
