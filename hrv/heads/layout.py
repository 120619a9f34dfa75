"""Head layouts: which layers of a denoiser attend to text, in which order, and with how many heads."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, groupby, pairwise, zip_longest

from ..errors import HRVError
from .sections import SECTION_OF_BLOCK, UNET

UNET_FAMILY = "unet"
"""The family of Stable Diffusion's UNets, whose layouts don't name it."""

_FAMILY = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}")
_BLOCK_ORDER = {block: position for position, block in enumerate(SECTION_OF_BLOCK)}

# Far above any denoiser; a number from a file cannot grow beyond what an error message can print.
_LARGEST = 65_535

LayerKey = tuple[str, int, int]


@dataclass(frozen=True)
class AttentionLayer:
    """One layer in which the image attends to text (``attn2`` in the UNet), addressed as the host addresses it.

    ``block`` is one of :data:`~.sections.SECTION_OF_BLOCK`; ``id`` the block's number there (0 where a section is one
    block); ``transformer_index`` counts transformer blocks inside the block (0 where a block is one); ``heads`` is its
    number of heads.
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
        if not section.nested and self.transformer_index != 0:
            raise HRVError(f"A {self.block} layer must have the transformer index 0, not {self.transformer_index}.")

    @property
    def section(self) -> str:
        """The name of its section: "down", "mid" or "up" in the UNet, "block", "double" or "single" elsewhere."""
        return SECTION_OF_BLOCK[self.block].name

    @property
    def key(self) -> LayerKey:
        """``(block, id, transformer_index)``, the host's three-part key of a replacer."""
        return self.block, self.id, self.transformer_index

    @property
    def name(self) -> str:
        """Section, id and transformer index ("down4.0"), without what is always 0 ("mid.0", "double4")."""
        section = SECTION_OF_BLOCK[self.block]
        number = str(self.id) if section.numbered else ""
        return f"{section.name}{number}.{self.transformer_index}" if section.nested else f"{section.name}{number}"


@dataclass(frozen=True)
class HeadLayout:
    """All layers of a denoiser that attend to text in canonical order: section by section, blocks in forward order.

    Head positions are numbered 0 .. H-1 through the layers and, inside a layer, by head (arXiv 2412.02237,
    section 3). ``family`` tells denoisers apart whose layers have equal numbers. Raises HRVError when there is no
    layer, the layers are repeated or out of order, or they cannot be the family's.
    """

    layers: tuple[AttentionLayer, ...]
    family: str = UNET_FAMILY

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise HRVError("A head layout needs at least one cross-attention layer, and there is none.")
        if not _FAMILY.fullmatch(self.family):
            raise HRVError("The family of a head layout must be 1 to 40 lower-case letters, digits, '.', '_' and '-'.")
        for layer in self.layers:
            if (SECTION_OF_BLOCK[layer.block] in UNET) != (self.family == UNET_FAMILY):
                raise HRVError(f"A head layout of the family {self.family!r} can't have the layer {layer.name}.")
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
        """One line such as "128 heads in 16 cross-attention layers (6 down, 1 mid, 9 up)"; of others the family too."""
        sections = ", ".join(f"{len(layers)} {section}" for section, layers in self.sections().items())
        if self.family != UNET_FAMILY:
            layers = _count(len(self.layers), "layer")
            return f"{_count(self.head_count, 'head')} in {layers} of {self.family} ({sections})"
        layers = _count(len(self.layers), "cross-attention layer")
        return f"{_count(self.head_count, 'head')} in {layers} ({sections})"

    def to_json(self) -> str:
        """Canonical JSON: a list of ``[block, id, transformer_index, heads]``, one for each layer.

        Of other families than the UNet's an object with the family and that list.
        """
        rows = [[layer.block, layer.id, layer.transformer_index, layer.heads] for layer in self.layers]
        found = rows if self.family == UNET_FAMILY else {"family": self.family, "layers": rows}
        return json.dumps(found, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> HeadLayout:
        """Read what :meth:`to_json` wrote; raises HRVError for anything else."""
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise HRVError(f"The head layout is not valid JSON ({error}).") from None
        family = UNET_FAMILY
        if isinstance(rows, dict):
            if rows.keys() != {"family", "layers"} or not isinstance(rows["family"], str):
                raise HRVError("The head layout is neither a list of layers nor an object with 'family' and 'layers'.")
            family, rows = rows["family"], rows["layers"]
            if family == UNET_FAMILY:
                raise HRVError(f"The head layout of the family {UNET_FAMILY!r} is a list of layers alone.")
        if not isinstance(rows, list) or not all(isinstance(row, list) and len(row) == 4 for row in rows):
            raise HRVError("The head layout is not a list of [block, id, transformer index, heads].")
        # A block that is a list or an object could not even be looked up.
        if not all(isinstance(row[0], str) for row in rows):
            raise HRVError("The head layout has a layer whose block is not a name.")
        return cls(tuple(AttentionLayer(*row) for row in rows), family)


def require_same_layout(hrv_layout: HeadLayout, model_layout: HeadLayout) -> None:
    """Raise an HRVError that describes both layouts unless they are the same."""
    if hrv_layout != model_layout:
        raise HRVError(
            f"This HRV belongs to another kind of model. {spell_difference(hrv_layout, model_layout, 'HRV', 'model')} "
            "Load an HRV for this model, or build one with it."
        )


def spell_difference(one: HeadLayout, other: HeadLayout, one_is: str, other_is: str) -> str:
    """Two sentences on two different layouts: what each is, and where they first differ."""
    if one.layers == other.layers:
        return (
            f"{one_is}: {one.describe()}; {other_is}: {other.describe()}. The numbers are the same, but the heads of "
            "one family say nothing about another's."
        )
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
