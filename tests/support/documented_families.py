"""What the documents say of each family, as tests compare it with the code.

Imported as ``hrv_pack.tests.support.documented_families``.
"""

from __future__ import annotations

from typing import NamedTuple

from launcher.paths import PACK_ROOT

from ...host.models.architectures import FAMILIES
from ...host.models.capabilities import Capability
from ...host.models.families.unet import UNet

UNET = "UNet (SD 1.x, SD 2.x, SDXL)"
"""What the table of docs/architectures.md calls the UNet."""


class Documented(NamedTuple):
    """A row of that table: "layers x heads" of the family's models, and the names of its capabilities."""

    layouts: list[str]
    capabilities: list[str]


def documented() -> dict[str, Documented]:
    """That table's rows by the name of their family."""
    lines = (PACK_ROOT / "docs" / "architectures.md").read_text(encoding="utf-8").splitlines()
    head, _, *rows = [[field.strip() for field in line.strip("|").split("|")] for line in lines if line[:1] == "|"]
    assert head[2:] == [capability.value for capability in Capability]
    assert all(field in ("yes", "") for row in rows for field in row[2:])
    return {
        name: Documented(layouts.split(", "), [of for of, field in zip(head[2:], fields, strict=True) if field])
        for name, layouts, *fields in rows
    }


def short_table() -> str:
    """The README's table: what can be done with which family."""
    families = ["UNet" if family is UNet else family.name for family in FAMILIES]
    lines = ["|".join(["", " ", *(f" {name} " for name in families), ""]), "|" + "---|" * (1 + len(families))]
    for capability in Capability:
        fields = (" yes " if capability in family.capabilities else " " for family in FAMILIES)
        lines.append("|".join(["", f" {capability.value} ", *fields, ""]))
    return "\n".join(lines)
