"""docs/nodes.md lists the nodes that there are, and each has a help page."""

from __future__ import annotations

import re

from hrv_pack.nodes import NODES
from launcher.paths import PACK_ROOT


def test_the_table_lists_every_node_once_by_its_display_name() -> None:
    text = (PACK_ROOT / "docs" / "nodes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(.+?)\]\(\.\./web/docs/(\w+)\.md\) \| \S", text, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| \[", text, re.MULTILINE))
    schemas = [node.GET_SCHEMA() for node in NODES]
    assert sorted(rows) == sorted((schema.display_name, schema.node_id) for schema in schemas)


def test_every_node_has_a_help_page_with_its_name() -> None:
    folder = PACK_ROOT / "web" / "docs"
    headings = {path.stem: path.read_text(encoding="utf-8").partition("\n")[0] for path in folder.glob("*.md")}
    schemas = [node.GET_SCHEMA() for node in NODES]
    assert headings == {schema.node_id: f"# {schema.display_name}" for schema in schemas}


def test_every_help_page_shows_a_picture_of_its_node() -> None:
    """Made by ``scripts/make_node_pictures.py``; together small enough for everybody to download."""
    folder = PACK_ROOT / "web" / "docs"
    pictures = {path.stem: path for path in (folder / "pictures").glob("*.png")}
    assert pictures.keys() == {path.stem for path in folder.glob("*.md")}
    for name in pictures:
        title, _, text = (folder / f"{name}.md").read_text(encoding="utf-8").partition("\n\n")
        assert text.startswith(f"![The node {title[2:]}](pictures/{name}.png)\n\n")
    assert sum(path.stat().st_size for path in pictures.values()) < 1_000_000
