"""Head layouts of the model families that published HRVs name, from the construction rule of their UNets.

A published ``head_index`` counts layers through each section and says nothing about the blocks they sit in. The
families differ in their counts, so the counts tell the family, and the family's rule tells the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from ..errors import HRVError
from .layout import AttentionLayer, HeadLayout
from .sections import DOWN, MID, UP, Section

_RESIDUAL_BLOCKS = 2


@dataclass(frozen=True)
class UNetFamily:
    """A UNet of two residual blocks a level (``comfy/ldm/modules/diffusionmodules/openaimodel.py``).

    Per level, finest first: ``depths`` transformer blocks behind every residual block, of ``heads`` heads. The
    middle block has ``middle_depth`` of them, with the heads of the coarsest level.
    """

    name: str
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    middle_depth: int

    def layout(self) -> HeadLayout:
        """The head layout with the block ids of the host.

        Input block 0 is a convolution and each level ends in a downsampling block of its own; on the way up a level
        has one residual block more and its upsampling belongs to the last of them.
        """
        stride = _RESIDUAL_BLOCKS + 1
        levels = range(len(self.depths))
        down = [(1 + level * stride + block, level) for level in levels for block in range(_RESIDUAL_BLOCKS)]
        up = [(place * stride + block, level) for place, level in enumerate(levels[::-1]) for block in range(stride)]
        middle = [AttentionLayer(MID.block, 0, index, self.heads[-1]) for index in range(self.middle_depth)]
        return HeadLayout((*self._layers(DOWN, down), *middle, *self._layers(UP, up)))

    def _layers(self, section: Section, places: Sequence[tuple[int, int]]) -> list[AttentionLayer]:
        return [
            AttentionLayer(section.block, number, index, self.heads[level])
            for number, level in places
            for index in range(self.depths[level])
        ]


FAMILIES = (
    UNetFamily("SD 1.x", depths=(1, 1, 1, 0), heads=(8, 8, 8, 8), middle_depth=1),
    UNetFamily("SD 2.x", depths=(1, 1, 1, 0), heads=(5, 10, 20, 20), middle_depth=1),
    UNetFamily("SDXL", depths=(0, 2, 10), heads=(5, 10, 20), middle_depth=10),
)


def layout_of_names(head_names: Sequence[str]) -> HeadLayout:
    """The layout whose :meth:`HeadLayout.head_names` are ``head_names``, in the same order.

    Raises HRVError that says what the names describe and which families are known.
    """
    names = list(head_names)
    for family in FAMILIES:
        layout = family.layout()
        if layout.head_names() == names:
            return layout
    runs = ", ".join(f"{len(list(run))} {section[:20]!r}" for section, run in groupby(names, key=_section))
    known = "; ".join(f"{family.name} with {family.layout().describe()}" for family in FAMILIES)
    raise HRVError(
        f"These {len(names)} head names ({runs if len(runs) < 200 else 'in many runs'}) fit no known model "
        f"family: {known}. Names look like 'down, layer: 0, head: 0', in the order of the model."
    )


def _section(name: str) -> str:
    return name.partition(",")[0]
