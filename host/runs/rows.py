"""Which rows of a batch belong to which conditioning, also where other packs rearrange rows and tokens.

The host makes a batch of equal chunks, one conditioning each (``comfy/samplers.py``, _calc_cond_batch). Attention
couple, in ComfyUI-ppm, prompt-control and SwarmUI alike, gives every positive chunk a further group of rows for each
regional prompt, right behind the chunk's own, repeats all prompts to one number of tokens, and leaves the true list
of positives (0) and negatives (1) in the call's options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

COUPLE_LAYOUTS = ("cond_or_uncond_couple", "cond_or_uncond_hook_couple", "swarm_cond_or_uncond_couple")
"""Where attention couple leaves its layout in the options of an attention call."""

REGIONS_KEY = "pc_couple"
"""Where prompt-control leaves the regional conditionings of its attention couple, the base first."""


class RowGroup(NamedTuple):
    """Consecutive rows of one prompt: the number of the host's ``chunk``, and which ``region`` of attention couple.

    Region 0 is the chunk's own conditioning, 1 the first regional prompt.
    """

    chunk: int
    region: int = 0


def row_groups(lists: Sequence[int], extra: Mapping[str, Any]) -> list[RowGroup] | None:
    """The groups of equally many rows that an attention call has, in row order; None for a layout unlike those above.

    ``lists`` are the host's ``cond_or_uncond``, ``extra`` the call's options.
    """
    layouts = [extra[key] for key in COUPLE_LAYOUTS if key in extra]
    if not layouts:
        return [RowGroup(chunk) for chunk in range(len(lists))]
    if len(layouts) > 1:
        return None
    positives = sum(number != 1 for number in lists)
    # A call of negatives alone has no regions.
    regions, rest = divmod(len(layouts[0]) - (len(lists) - positives), positives) if positives else (0, 0)
    groups = [
        RowGroup(chunk, region)
        for chunk, number in enumerate(lists)
        for region in range(1 if number == 1 else max(regions, 0))
    ]
    expected = [int(lists[group.chunk] == 1) for group in groups]
    return groups if not rest and list(layouts[0]) == expected else None
