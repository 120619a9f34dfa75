"""Head layouts: which cross-attention layers a denoiser has, in which order, and with how many heads."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise, zip_longest

from ..errors import HRVError
from .sections import SECTION_OF_BLOCK

_BLOCK_ORDER = {block: position for position, block in enumerate(SECTION_OF_BLOCK)}

# Far above any denoiser; a number from a file cannot grow beyond what an error message can print.
_LARGEST = 65_535

LayerKey = tuple[str, int, int]


@dataclass(frozen=True)
class AttentionLayer:
    """One cross-attention layer (``attn2``), addressed as the host addresses it.

    ``block`` is one of :data:`~.sections.SECTION_OF_BLOCK`; ``id`` the block's number there (0 where a section is one
    block); ``transformer_index`` counts transformer blocks inside the block; ``heads`` is its number of heads.
    """

    block: str
    id: int
    transformer_index: int
    heads: int

    def __post_init__(self) -> None:
        section = SECTION_OF_BLOCK.get(self.block)
        if section is None:
            raise HRVError(f"A layer's block must be one of {', '.join(SECTION_OF_BLOCK)}, not {self.block[:20]!r}.")
        for field, least in (("id", 0), ("transformer_index", 0), ("heads", 1)):
            value = getattr(self, field)
            if type(value) is not int or not least <= value <= _LARGEST:
                raise HRVError(f"A layer's {field} must be a whole number from {least} to {_LARGEST}.")
        if not section.numbered and self.id != 0:
            raise HRVError(f"The {self.block} block must have the id 0, not {self.id}.")

    @property
    def section(self) -> str:
        """The name of its section: "down", "mid" or "up" in the UNet."""
        return SECTION_OF_BLOCK[self.block].name

    @property
    def key(self) -> LayerKey:
        """``(block, id, transformer_index)``, the host's three-part key of a replacer."""
        return self.block, self.id, self.transformer_index

    @property
    def name(self) -> str:
        """Section, id and transformer index ("down4.0"); where a section is one block, without id ("mid.0")."""
        number = str(self.id) if SECTION_OF_BLOCK[self.block].numbered else ""
        return f"{self.section}{number}.{self.transformer_index}"


@dataclass(frozen=True)
class HeadLayout:
    """All cross-attention layers of a denoiser in canonical order: section by section, blocks in forward order.

    Head positions are numbered 0 .. H-1 through the layers and, inside a layer, by head (arXiv 2412.02237,
    section 3). Raises HRVError when there is no layer, or the layers are repeated or out of order.
    """

    layers: tuple[AttentionLayer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise HRVError("A head layout needs at least one cross-attention layer, and there is none.")
        for before, after in pairwise(self.layers):
            if _rank(before) >= _rank(after):
                raise HRVError(
                    f"The layers of a head layout must be in forward order, each once; {after.name} follows "
                    f"{before.name}."
                )

    @cached_property
    def head_count(self) -> int:
        """Number of head positions H."""
        return sum(layer.heads for layer in self.layers)

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Per layer, the number of its first head position."""
        return tuple(accumulate((layer.heads for layer in self.layers[:-1]), initial=0))

    @cached_property
    def signature(self) -> str:
        """16 hex digits that two layouts share exactly when all their layers are equal."""
        return hashlib.sha256(self.to_json().encode("ascii")).hexdigest()[:16]

    @cached_property
    def _slices(self) -> dict[LayerKey, slice]:
        return {
            layer.key: slice(first, first + layer.heads) for layer, first in zip(self.layers, self.offsets, strict=True)
        }

    def head_slice(self, key: LayerKey) -> slice:
        """The head positions of the layer with this key; HRVError if there is none."""
        try:
            return self._slices[key]
        except KeyError:
            raise HRVError(f"There is no cross-attention layer {key} among {self.describe()}.") from None

    def head_names(self) -> list[str]:
        """H names in the wording of the authors' head_index files: "down, layer: 0, head: 0" and so on.

        Layers are counted from 0 within each section.
        """
        return [
            f"{section}, layer: {number}, head: {head}"
            for section, layers in self.sections().items()
            for number, layer in enumerate(layers)
            for head in range(layer.heads)
        ]

    def sections(self) -> dict[str, tuple[AttentionLayer, ...]]:
        """The layers of each section that has any, by its name, in canonical order."""
        return {section: tuple(layers) for section, layers in groupby(self.layers, key=lambda layer: layer.section)}

    def describe(self) -> str:
        """One line such as "128 heads in 16 cross-attention layers (6 down, 1 mid, 9 up)"."""
        sections = ", ".join(f"{len(layers)} {section}" for section, layers in self.sections().items())
        layers = _count(len(self.layers), "cross-attention layer")
        return f"{_count(self.head_count, 'head')} in {layers} ({sections})"

    def to_json(self) -> str:
        """Canonical JSON: a list of ``[block, id, transformer_index, heads]``, one for each layer."""
        rows = [[layer.block, layer.id, layer.transformer_index, layer.heads] for layer in self.layers]
        return json.dumps(rows, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> HeadLayout:
        """Read what :meth:`to_json` wrote; raises HRVError for anything else."""
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HRVError(f"The head layout is not valid JSON ({error}).") from None
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise HRVError("The head layout is not a list of [block, id, transformer index, heads].")
        # A block that is a list or an object could not even be looked up.
        if not all(isinstance(row[0], str) for row in rows):
            raise HRVError("The head layout has a layer whose block is not a name.")
        return cls(tuple(AttentionLayer(*row) for row in rows))


def require_same_layout(hrv_layout: HeadLayout, model_layout: HeadLayout) -> None:
    """Raise an HRVError that describes both layouts unless they are the same."""
    if hrv_layout != model_layout:
        raise HRVError(
            f"This HRV belongs to another kind of model. {spell_difference(hrv_layout, model_layout, 'HRV', 'model')} "
            "Load an HRV for this model, or build one with it."
        )


def spell_difference(one: HeadLayout, other: HeadLayout, one_is: str, other_is: str) -> str:
    """Two sentences on two different layouts: what each is, and where they first differ."""
    mine, theirs = next(pair for pair in zip_longest(one.layers, other.layers) if pair[0] != pair[1])
    return (
        f"{one_is}: {one.describe()}; {other_is}: {other.describe()}. They first differ where the {one_is} has "
        f"{_spell(mine)} and the {other_is} {_spell(theirs)}."
    )


def _rank(layer: AttentionLayer) -> tuple[int, int, int]:
    return _BLOCK_ORDER[layer.block], layer.id, layer.transformer_index


def _spell(layer: AttentionLayer | None) -> str:
    if layer is None:
        return "no further layer"
    return f"{layer.name} with {_count(layer.heads, 'head')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
