"""What the documents point to is there: links, headings, files, folders and the options of commands."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from launcher.paths import PACK_ROOT

DOCUMENTS = [PACK_ROOT / "README.md", *sorted((PACK_ROOT / "docs").glob("*.md"))]
# Where the options of commands are, besides their own files: as options, or as the fields of settings.
SHARED_OPTIONS = [PACK_ROOT / "mini" / "batches.py", PACK_ROOT / "benchmarks" / "measuring.py"]
TEMPLATES = sorted(file.stem for file in (PACK_ROOT / "example_workflows").glob("*.json"))
HELP = sorted((PACK_ROOT / "web" / "docs").glob("*.md"))
FOLDERS = {path.name for path in PACK_ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
everywhere = pytest.mark.parametrize("path", DOCUMENTS + HELP, ids=lambda path: path.name)


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a document's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@everywhere
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, heading = target.partition("#")
        linked = path.parent / unquote(file) if file else path
        assert linked.exists(), target
        assert not heading or heading in anchors(linked), target


@everywhere
def test_files_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in map(unquote, re.findall(rf"(?<![\w/.-])(?:{'|'.join(FOLDERS)})/[\w./%-]*\w", text)):
        if not re.fullmatch(r"models/.*|.*\b(CODE|NODE|HRV_X)\b.*", name):
            assert (PACK_ROOT / name).exists(), name


@everywhere
def test_templates_that_are_named_exist(path: Path) -> None:
    titles = {name.partition(" ")[2] for name in TEMPLATES}
    for name in re.findall(r"[Tt]emplate [*“](.+?)[*”]", path.read_text(encoding="utf-8")):
        assert name in titles


def test_the_readme_lists_all_templates_in_their_order() -> None:
    assert re.findall(r"^\| (\d\d .+?) \|", DOCUMENTS[0].read_text(encoding="utf-8"), re.MULTILINE) == TEMPLATES


@everywhere
def test_options_of_commands_are_known(path: Path) -> None:
    """An option after one of our commands is one that it takes."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    for folder, script, rest in re.findall(r"(scripts|benchmarks)/(\w+\.py)([^\n`#]*)", text):
        if script in ("test.py", "fuzz.py"):  # take whatever pytest does
            continue
        text_of_script = (PACK_ROOT / folder / script).read_text(encoding="utf-8")
        beside = [PACK_ROOT / folder / f"{name}.py" for name in re.findall(r"^from (\w+) import", text_of_script, re.M)]
        files = [PACK_ROOT / folder / script, *SHARED_OPTIONS, *(file for file in beside if file.is_file())]
        source = "\n".join(file.read_text(encoding="utf-8") for file in files)
        for option in re.findall(r"(?<=\s)--([\w-]+)", rest):
            known = rf'"--{option}"|^    {option.replace("-", "_")}: '
            assert option == "help" or re.search(known, source, re.MULTILINE), (script, option)
