"""A readable language for sets of head positions: ``down2.1:3,5 mid:0 up0-5``.

Terms stand side by side, separated by white space or semicolons; each is

    [!] section [block ids] [.transformer indices] [:heads]

with the section ``down``, ``mid`` or ``up`` (:mod:`.sections`; ``block``, or ``double`` and ``single``, in
transformers), or ``all``. Ids and indices are a number or a range, heads are numbers and ranges separated by commas;
what is left out means all. Blocks have the host's ids, as in :attr:`AttentionLayer.name`. A term adds its heads to
those before it, one with ``!`` takes them away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby

from ..errors import HRVError, listed, quoted
from .layout import UNET_FAMILY, AttentionLayer, HeadLayout
from .sections import SECTION_OF_BLOCK

_RANGE = r"[0-9]{1,5}(?:-[0-9]{1,5})?"
_ALL_NUMBERS = range(100_000)
_SECTIONS = "|".join(section.name for section in SECTION_OF_BLOCK.values())
_TERM = re.compile(
    rf"(?P<without>!?)(?:(?P<section>{_SECTIONS})(?P<ids>{_RANGE})?|all)"
    rf"(?:\.(?P<transformers>{_RANGE}))?(?::(?P<heads>{_RANGE}(?:,{_RANGE})*))?"
)
_HELP = (
    "Write terms like down4.1:3,5 (section, block, transformer, heads), mid:0, up0-5, all, or !mid to remove heads "
    "again, with spaces between them."
)
_HELP_OF_TRANSFORMERS = (
    "Write terms like {0}4:3,5 (section, block, heads), {0}0-5, all, or !{0}3 to remove heads again, with spaces "
    "between them."
)


def parse_heads(layout: HeadLayout, text: str) -> tuple[int, ...]:
    """The head positions that a text in this language means, ascending; an empty text means none.

    Case does not matter, nor do spaces around colons and commas. A range of blocks or transformers picks the layers
    that exist inside it. Raises HRVError with the term for one that cannot be read, picks no layer, or names a head
    that a layer it picks does not have, and for a text that begins with taking away.
    """
    # White space shrinks to single spaces first: what follows then takes time in proportion to the text.
    terms = re.sub(r" ?([:,]) ?", r"\1", " ".join(text.split())).replace(";", " ").split()
    if terms and terms[0].startswith("!"):
        raise HRVError(
            f"{quoted(terms[0])} removes heads, but there are none before it: start with those to remove from, as "
            "in 'all !mid'."
        )
    # A bit for each head position: there may be as many terms as a text has room for.
    chosen = 0
    for term in terms:
        match = _TERM.fullmatch(term.lower())
        if match is None:
            raise HRVError(f"{quoted(term)} isn't a set of heads. {_help(layout)}")
        heads = 0
        for layer in _layers(layout, term, match):
            heads |= _heads(term, match, layer) << layout.head_slice(layer.key).start
        chosen = chosen & ~heads if match["without"] else chosen | heads
    return tuple(position for position in range(layout.head_count) if chosen >> position & 1)


def _help(layout: HeadLayout) -> str:
    return _HELP if layout.family == UNET_FAMILY else _HELP_OF_TRANSFORMERS.format(layout.layers[0].section)


def spell_heads(layout: HeadLayout, positions: Iterable[int]) -> str:
    """A short text that :func:`parse_heads` reads as these head positions.

    Raises HRVError for a position that the layout does not have.
    """
    chosen = set(positions)
    if not chosen <= set(range(layout.head_count)):
        raise HRVError(f"The head positions of {layout.describe()} are 0 to {layout.head_count - 1}.")
    direct = _spelled(layout, chosen)
    inverse = "all " + " ".join(f"!{term}" for term in _spelled(layout, set(range(layout.head_count)) - chosen).split())
    return direct if len(direct) <= len(inverse) else inverse


def _layers(layout: HeadLayout, term: str, match: re.Match[str]) -> list[AttentionLayer]:
    """The layers that a term picks, at least one."""
    section, ids, transformers = match["section"], _numbers(term, match["ids"]), _numbers(term, match["transformers"])
    layers = [layer for layer in layout.layers if section in (None, layer.section)]
    found = [layer for layer in layers if layer.id in ids and layer.transformer_index in transformers]
    if not found:
        there = [_name(block) for block in _blocks(layers)]
        raise HRVError(
            f"{quoted(term)} picks no layer of this model. There {'is' if len(there) < 2 else 'are'} "
            f"{listed(there) or f'no {section} layer, only {_sections(layout)}'}."
        )
    return found


def _sections(layout: HeadLayout) -> str:
    return " and ".join(layout.sections())


def _heads(term: str, match: re.Match[str], layer: AttentionLayer) -> int:
    """The heads that a term picks in one layer, a bit for each."""
    if match["heads"] is None:
        return _bits(range(layer.heads))
    heads = 0
    for part in match["heads"].split(","):
        numbers = _numbers(term, part)
        if numbers[-1] >= layer.heads:
            raise HRVError(
                f"{quoted(term)} names head {numbers[-1]}, but the heads of {layer.name} are 0 to {layer.heads - 1}."
            )
        heads |= _bits(numbers)
    return heads


def _bits(numbers: range) -> int:
    return (1 << numbers.stop) - (1 << numbers.start)


def _numbers(term: str, written: str | None) -> range:
    """The numbers of "3" or "3-5", or all that can be written where they were left out."""
    if written is None:
        return _ALL_NUMBERS
    first, _, last = written.partition("-")
    numbers = range(int(first), int(last or first) + 1)
    if not numbers:
        raise HRVError(f"{quoted(term)} counts backwards: write {last}-{first}.")
    return numbers


def _spelled(layout: HeadLayout, chosen: set[int]) -> str:
    """Terms for these head positions, as few as layers with the same heads side by side allow; none takes away."""
    heads = {layer: _spelled_heads(layout, layer, chosen) for layer in layout.layers}

    def alike(layers: Sequence[AttentionLayer]) -> bool:
        return len({heads[layer] for layer in layers}) == 1

    if alike(layout.layers):
        return _term("all", heads[layout.layers[0]])
    terms = []
    for section, layers in layout.sections().items():
        if alike(layers):
            terms.append(_term(section, heads[layers[0]]))
            continue
        blocks = _blocks(layers)
        for (whole, same), run in groupby(blocks, key=lambda block: (alike(block), heads[block[0]])):
            if whole:
                terms.append(_term(f"{section}{_range([block[0].id for block in run])}", same))
                continue
            for block in run:
                for same, part in groupby(block, key=heads.__getitem__):
                    terms.append(_term(_name(list(part)), same))
    return " ".join(filter(None, terms))


def _spelled_heads(layout: HeadLayout, layer: AttentionLayer, chosen: set[int]) -> str | None:
    """How a term ends that picks the chosen heads of one layer: "" if all are, None if none is."""
    first = layout.head_slice(layer.key).start
    heads = [head for head in range(layer.heads) if first + head in chosen]
    if len(heads) in (0, layer.heads):
        return "" if heads else None
    # Numbers that follow each other are as far apart as their places.
    runs = [[head for _, head in run] for _, run in groupby(enumerate(heads), key=lambda pair: pair[1] - pair[0])]
    return ":" + ",".join(f"{run[0]},{run[1]}" if len(run) == 2 else _range(run) for run in runs)


def _blocks(layers: Sequence[AttentionLayer]) -> list[list[AttentionLayer]]:
    return [list(block) for _, block in groupby(layers, key=lambda layer: layer.key[:2])]


def _name(layers: Sequence[AttentionLayer]) -> str:
    """The name of consecutive layers of one block: "down7.2-9"."""
    if not SECTION_OF_BLOCK[layers[0].block].nested:
        return layers[0].name
    return f"{layers[0].name.partition('.')[0]}.{_range([layer.transformer_index for layer in layers])}"


def _term(name: str, heads: str | None) -> str:
    return "" if heads is None else f"{name}{heads}"


def _range(numbers: Sequence[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
