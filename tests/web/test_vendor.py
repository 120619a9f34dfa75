"""What is copied from elsewhere is what its package has, in the version that is pinned, with its licence."""

from __future__ import annotations

import json

from launcher.node import MODULES, install_packages
from launcher.paths import PACK_ROOT

VENDOR = PACK_ROOT / "web" / "hrv" / "vendor"
COPIES = {"uPlot.esm.js": "dist/uPlot.esm.js", "uPlot.min.css": "dist/uPlot.min.css", "uPlot.LICENSE": "LICENSE"}
OURS = {"uPlot.esm.d.ts"}


def test_copies_are_those_of_the_pinned_package() -> None:
    install_packages()
    assert {file.name for file in VENDOR.iterdir()} == COPIES.keys() | OURS
    for copy, original in COPIES.items():
        assert (VENDOR / copy).read_bytes() == (MODULES / "uplot" / original).read_bytes(), copy


def test_the_docs_name_version_and_licence() -> None:
    version = json.loads((PACK_ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]["uplot"]
    assert f"uPlot {version} (MIT" in (PACK_ROOT / "docs" / "development.md").read_text(encoding="utf-8")
