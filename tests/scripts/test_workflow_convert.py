"""Saved graphs become prompts that the real host runs, and what cannot be converted is named."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from launcher.api_client import ApiClient
from launcher.workflow_convert import ConversionError, to_prompt


def node(number: int, kind: str, **parts: Any) -> dict[str, Any]:
    return {"id": number, "type": kind, "mode": 0, "inputs": [], "outputs": [], **parts}


def slot(name: str, kind: str, link: int | None) -> dict[str, Any]:
    return {"name": name, "type": kind, "link": link}


def widget(name: str, kind: str, link: int | None) -> dict[str, Any]:
    return {**slot(name, kind, link), "widget": {"name": name}}


# primitive 1 -> EmptyImage 2 -> ImageInvert 3 (bypassed) -> Reroute 4 -> SaveImage 5; PreviewImage 6 (muted)
GRAPH: dict[str, Any] = {
    "version": 0.4,
    "nodes": [
        node(
            5,
            "SaveImage",
            inputs=[slot("images", "IMAGE", 14)],
            widgets_values=["converted"],
            title="Keep it",
        ),
        node(1, "PrimitiveNode", widgets_values=[24, "fixed"]),
        node(
            2,
            "EmptyImage",
            inputs=[widget("width", "INT", 11), widget("height", "INT", None)],
            widgets_values=[512, 16, 1, 255],
        ),
        node(3, "ImageInvert", mode=4, inputs=[slot("image", "IMAGE", 12)]),
        node(4, "Reroute", inputs=[slot("", "*", 13)]),
        node(6, "PreviewImage", mode=2, inputs=[slot("images", "IMAGE", 15)]),
        node(7, "Note", widgets_values=["explains"]),
    ],
    "links": [
        [11, 1, 0, 2, 0, "INT"],
        [12, 2, 0, 3, 0, "IMAGE"],
        [13, 3, 0, 4, 0, "IMAGE"],
        [14, 4, 0, 5, 0, "IMAGE"],
        [15, 2, 0, 6, 0, "IMAGE"],
    ],
}


def test_only_what_runs_is_left_and_the_host_runs_it(api: ApiClient) -> None:
    known = api.object_info()
    prompt = to_prompt(GRAPH, known)
    assert prompt == {
        "5": {
            "class_type": "SaveImage",
            "inputs": {"filename_prefix": "converted", "images": ["2", 0]},
            "_meta": {"title": "Keep it"},
        },
        "2": {
            "class_type": "EmptyImage",
            "inputs": {"width": 24, "height": 16, "batch_size": 1, "color": 255},
            "_meta": {"title": known["EmptyImage"]["display_name"]},
        },
    }
    result = api.run(prompt, timeout=60)
    assert result.images("5")[0]["filename"].startswith("converted")


def test_values_of_extra_widgets_are_not_taken_for_inputs(api: ApiClient) -> None:
    sampler = node(1, "KSampler", widgets_values=[123, "randomize", 20, 7.5, "dpmpp_2m", "karras", 0.9], inputs=[])
    advanced = node(
        2,
        "KSamplerAdvanced",
        widgets_values=["enable", 7, "fixed", 12, 4, "euler", "normal", 0, 10000, "disable"],
    )
    api.upload_image("any.png", b"not read")
    image = node(3, "LoadImage", widgets_values=["any.png", "image"])
    prompt = to_prompt({"nodes": [sampler, advanced, image], "links": []}, api.object_info())
    assert prompt["1"]["inputs"] == {
        "seed": 123,
        "steps": 20,
        "cfg": 7.5,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "denoise": 0.9,
    }
    assert prompt["2"]["inputs"]["noise_seed"] == 7
    assert prompt["2"]["inputs"]["return_with_leftover_noise"] == "disable"
    assert prompt["3"]["inputs"] == {"image": "any.png"}


def test_a_muted_source_feeds_nothing(api: ApiClient) -> None:
    graph = copy.deepcopy(GRAPH)
    graph["nodes"][2]["mode"] = 2
    assert to_prompt(graph, api.object_info())["5"]["inputs"] == {"filename_prefix": "converted"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (node(1, "NoSuchNode"), r"NoSuchNode \(node 1\): ComfyUI has no such node"),
        (
            node(1, "EmptyImage", widgets_values=[1, 2, "three", 4]),
            "'three' isn't a value for the input 'batch_size'",
        ),
        (node(1, "EmptyImage", inputs=[widget("depth", "INT", None)]), "ComfyUI's node has no input depth"),
        (
            node(1, "KSampler", widgets_values=[1, 20, 7.5, "euler", "normal", 1.0]),
            "isn't a value for the input",
        ),
    ],
)
def test_what_does_not_fit_the_host_is_named(api: ApiClient, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        to_prompt({"nodes": [broken], "links": []}, api.object_info())


def test_dynamic_inputs_are_refused(api: ApiClient) -> None:
    info = api.object_info()
    dynamic = next(
        name
        for name, entry in sorted(info.items())
        if any(
            str(spec[0]).startswith("COMFY_DYNAMICCOMBO")
            for group in entry["input"].values()
            for spec in group.values()
        )
    )
    with pytest.raises(ConversionError, match="dynamic"):
        to_prompt({"nodes": [node(1, dynamic, widgets_values={})], "links": []}, info)
