"""How long work stands, on the real server: while it runs, after a cancel, and for a page that opens later."""

from __future__ import annotations

from typing import Any

import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, Event, InterruptedRunError

WORKFLOW = "7a4a1f04-0000-4000-8000-000000000001"
IMAGES = 12

BUILD = {
    "mini": node("HRV_LoadMini"),
    "words": node("HRV_Concepts", concepts="Color: red, blue\nShape: star, circle"),
    "4:1": node(
        "HRV_Build", model=["mini", 0], clip=["mini", 1], concepts=["words", 0], prompts="a red star", images=IMAGES,
        seed=11, steps=2, cfg=4.0, sampler_name="euler", scheduler="normal", width=128, height=128, batch_size=1,
        negative="",
    ),
    "rank": node("HRV_Rank", hrv=["4:1", 0], concepts="", top_k=1),
}  # fmt: skip


def test_a_build_is_told_cancelled_resumed_and_remembered(api: ApiClient) -> None:
    told: list[dict[str, Any]] = []

    def listen(event: Event) -> None:
        if event["type"] == "hrv.status":
            told.append(event["data"])

    def cancel_soon(event: Event) -> None:
        listen(event)
        if event["type"] == "hrv.status" and event["data"]["hrv"]:
            api.interrupt()

    with pytest.raises(InterruptedRunError):
        api.run(BUILD, cancel_soon, workflow=WORKFLOW)
    assert {(one["workflow"], one["node"], one["unit"], one["total"]) for one in told} == {
        (WORKFLOW, "4:1", "images", IMAGES)
    }
    (cancelled,) = api.post("/hrv/status", {"workflow": WORKFLOW})["statuses"]
    assert cancelled["state"] == "cancelled" and cancelled["kept"] and 0 < cancelled["done"] < IMAGES
    assert api.post("/hrv/hrv", {"from": "run", "digest": cancelled["hrv"]})["concepts"] == ["Color", "Shape"]

    told.clear()
    api.run(BUILD, listen, workflow=WORKFLOW)
    assert told[0]["done"] >= cancelled["done"]
    (done,) = api.post("/hrv/status", {"workflow": WORKFLOW})["statuses"]
    assert (done["state"], done["done"], done["curves"]["across"]) == ("done", IMAGES, "images")
    assert done["curves"]["curves"][0]["across"][-1] <= IMAGES

    results = api.post("/hrv/results", {"workflow": WORKFLOW})
    outputs = results["outputs"]
    assert outputs.keys() == {"4:1", "rank"}
    assert api.post("/hrv/hrv", {"from": "run", "digest": outputs["4:1"]["hrv"][0]})["concepts"] == ["Color", "Shape"]
    assert results["texts"]["rank"] == outputs["rank"]["text"][0]


def test_prompts_without_a_workflow_and_others_are_nobodys(api: ApiClient) -> None:
    for workflow in ("", "another", "../..", "x" * 1000):
        assert api.post("/hrv/status", {"workflow": workflow}) == {"statuses": []}
        assert api.post("/hrv/results", {"workflow": workflow}) == {"outputs": {}, "texts": {}}
