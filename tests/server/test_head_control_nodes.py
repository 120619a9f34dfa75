"""Head controls, tokens, tags and joined prompts on the real server, older graphs without an occurrence included."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hrv_pack.tests.support.graphs import node
from launcher.api_client import ApiClient, WorkflowError
from PIL import Image

Graph = dict[str, dict[str, Any]]

WINDOW = {"strength": 1.0, "start": 0.0, "end": 1.0}


def graph() -> Graph:
    """Two prompts, one of them from the host's encoder, each with a control; joined, shown and sampled."""
    made: Graph = {
        "mini": node("HRV_LoadMini"),
        "load": node("HRV_Load", file="hrv-mini.safetensors"),
        "first": node("HRV_TextEncode", clip=["mini", 1], text="a red circle"),
        "plain": node("CLIPTextEncode", clip=["mini", 1], text="night, a red star"),
        "second": node("HRV_TagConditioning", conditioning=["plain", 0], clip=["mini", 1], text="night, a red star"),
        "weaken": node(
            "HRV_WeakenHeads",
            model=["mini", 0],
            conditioning=["first", 0],
            hrv=["load", 0],
            words="*",
            concept="Color",
            order="most relevant first",
            heads=31,
            factor=-2.0,
            seed=0,
            **WINDOW,
        ),
        "scale": node(
            "HRV_ScaleHeads",
            model=["weaken", 0],
            conditioning=["second", 0],
            words="red",
            heads="mid\nup3-5:0,7",
            factor=0.0,
            **WINDOW,
        ),
        "join": node("HRV_ConditioningConcat", conditioning_to=["weaken", 1], conditioning_from=["scale", 1]),
        "strengthen": node(
            "HRV_ConceptStrengthen",
            model=["scale", 0],
            conditioning=["join", 0],
            hrv=["load", 0],
            words="red",
            concept="Color",
            clamp=0.0,
            occurrence="2",
            **WINDOW,
        ),
        "tokens": node("HRV_Tokens", conditioning=["strengthen", 1]),
        "show": node("PreviewAny", source=["tokens", 0]),
        "latent": node("EmptyLatentImage", width=128, height=128, batch_size=1),
        "host join": node("ConditioningConcat", conditioning_to=["first", 0], conditioning_from=["plain", 0]),
    }
    for name, model, positive in (
        ("plain image", ["mini", 0], ["host join", 0]),
        ("steered image", ["strengthen", 0], ["strengthen", 1]),
    ):
        made[f"sample {name}"] = node(
            "KSampler",
            model=model,
            positive=positive,
            negative=["plain", 0],
            latent_image=["latent", 0],
            seed=3,
            steps=2,
            cfg=4.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
        )
        made[f"decode {name}"] = node("VAEDecode", samples=[f"sample {name}", 0], vae=["mini", 2])
        made[name] = node("PreviewImage", images=[f"decode {name}", 0])
    return made


def test_all_of_them_in_one_graph(api: ApiClient) -> None:
    result = api.run(graph(), timeout=300)
    (text,) = result.outputs["tokens"]["text"]
    assert result.outputs["show"]["text"] == [text]
    assert text.splitlines() == [
        "a: 1",
        "red: 2",
        "circle: 3",
        "night: 78",
        ",: 79",
        "a: 80",
        "red: 81",
        "star: 82",
        "",
        'weaken 31 heads of Color, most relevant first: "a red circle"; strength 1; progress 0 to 1',
        'scale mid up3-5:0,7 by 0: "red"; strength 1; progress 0 to 1',
        'strengthen Color: "red"; strength 1; progress 0 to 1',
    ]
    plain, steered = (
        np.asarray(Image.open(io.BytesIO(api.view(result.images(name)[0]))))
        for name in ("plain image", "steered image")
    )
    assert np.abs(plain.astype(int) - steered).mean() > 1


@pytest.mark.parametrize(
    ("at", "changes", "sentence"),
    [
        ("weaken", {"heads": 129}, "128 heads in 16 .* 0 to 128 heads can be weakened, not 129"),
        ("weaken", {"heads": -1}, "smaller than min"),
        ("weaken", {"order": "alphabetical"}, "not in list"),
        ("scale", {"heads": "mid up0"}, r"'up0' picks no layer of this model\. There are up3\.0, up4\.0"),
        ("scale", {"words": "blue"}, 'The prompt does not contain "blue".*"night", ",", "a", "red", "star"'),
        ("strengthen", {"occurrence": "3"}, '"red" only 2 times, so there is no occurrence 3'),
        ("join", {"conditioning_from": ["plain", 0]}, "conditioning_from does not say which token belongs"),
        ("second", {"text": "star " * 80}, "has 77 tokens, but this text has 154"),
        ("tokens", {"conditioning": ["plain", 0]}, "does not say which token belongs to which word"),
    ],
)
def test_refusals_are_sentences(api: ApiClient, at: str, changes: dict[str, Any], sentence: str) -> None:
    made = graph()
    made[at]["inputs"].update(changes)
    with pytest.raises(WorkflowError, match=sentence) as caught:
        api.run(made, timeout=300)
    assert caught.value.class_type == made[at]["class_type"]
