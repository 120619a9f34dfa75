"""The example workflows as the real server lists them and as links name them."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hrv_pack.host.routes.templates import FORMER_NAMES, link_name
from launcher.api_client import ApiClient, RefusedError
from launcher.comfy_server import PACK_NAME
from launcher.paths import PACK_ROOT

GRAPHS = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (PACK_ROOT / "example_workflows").glob("*.json")
}


def test_each_is_listed_once_and_by_its_file_alone(api: ApiClient) -> None:
    assert Counter(api.get("/workflow_templates")[PACK_NAME]) == Counter(list(GRAPHS))


def test_links_are_names_that_the_page_takes(api: ApiClient) -> None:
    assert link_name("16 Z-Image, strengthen a word") == "z-image-strengthen-a-word"
    for stem, graph in GRAPHS.items():
        assert api.get(f"/api/workflow_templates/{PACK_NAME}/{link_name(stem)}.json") == graph


def test_every_former_name_still_leads_to_its_workflow(api: ApiClient) -> None:
    by_link = {link_name(stem): graph for stem, graph in GRAPHS.items()}
    for name in FORMER_NAMES:
        _, _, link = name.partition("-")
        assert api.get(f"/api/workflow_templates/{PACK_NAME}/{name}.json") == by_link[link]
    with pytest.raises(RefusedError, match="404"):
        api.get(f"/api/workflow_templates/{PACK_NAME}/13-never-was.json")
