"""Sections: the runs of blocks that a denoiser is made of, as the host and as people name them.

A family of denoisers has its own. Those of transformers stand beside the UNet's under block names of their own, so that
layouts and written sets of heads of the UNet stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """A run of blocks: ``block`` is the host's name for one, ``name`` the paper's for the run (arXiv 2412.02237).

    A section that is not ``numbered`` is a single block, whose id is 0 and stays unsaid. Where no block has several
    transformers (``nested``), their index is 0 and stays unsaid.
    """

    block: str
    name: str
    numbered: bool = True
    nested: bool = True


DOWN = Section("input", "down")
MID = Section("middle", "mid", numbered=False)
UP = Section("output", "up")

UNET = (DOWN, MID, UP)
"""The sections of Stable Diffusion's UNet in forward order, which is the order of head positions."""

TRANSFORMERS = tuple(Section(name, name, nested=False) for name in ("block", "double", "single"))
"""The sections of transformers in forward order: blocks of one kind, or double blocks and then single ones."""

SECTION_OF_BLOCK = {section.block: section for section in (*UNET, *TRANSFORMERS)}
"""The sections of every known family by the host's name for their blocks, those of one family in forward order."""
