"""One browser session with the real front end for all tests here: ``drive.mjs`` looks, the tests judge."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hrv_pack.tests.support.page_languages import LANGUAGES, expected_in
from hrv_pack.tests.support.screenshots import SCREENSHOTS
from hrv_pack.tests.support.sentence_piece import write_gemma
from launcher.api_client import ApiClient
from launcher.browser import browser_program
from launcher.comfy_server import PACK_NAME, ComfyServer
from launcher.node import install_packages, node_program
from launcher.paths import PACK_ROOT

DRIVER = Path(__file__).with_name("drive.mjs")
DRIVE_SECONDS = 1500

# Small enough for any machine: what is tested is the way from the page to the result.
LIGHT: dict[str, Any] = {
    "KSampler": {"steps": 1},
    "BasicScheduler": {"steps": 2},
    "EmptyLatentImage": {"batch_size": 2},
    "HRV_Build": {"images": 2, "steps": 1, "batch_size": 2},
    "HRV_BuildCausal": {"pairs": 2, "steps": 1},
    "HRV_OrderedWeakening": {"seeds": 1, "prompts": 2, "steps": 1, "head_counts": "50%", "random_orders": 0},
    "HRV_QuickCheck": {"seeds": 1, "prompts": 2, "steps": 1},
    "HRV_AttendAndExcite": {"iterations": 1},
}

# What a workflow needs to run here: the model that comes with the pack.
EMBEDDED = "HRV_LoadMini"

# What somebody might type who does not know the node's name.
SEARCHES = {
    "demo model": "Load HRV-mini",
    "concept words": "HRV Concepts",
    "make hrv": "Build HRV",
    "causal relevance": "Build Causal HRV",
    "value contrast": "Instant HRV",
    "export hrv": "Save HRV",
    "import hrv": "Load HRV",
    "clip text encode": "CLIP Text Encode (HRV)",
    "concept strengthening": "Apply Concept Strengthen",
    "misinterpretation": "Concept Adjust",
    "show heads": "HRV Heat Map (image)",
    "paper hrv": "Published HRV",
    "category_vectors": "Import HRV (.npy)",
    "word list": "Import HRV Concepts (.csv)",
    "add counts": "Merge HRVs",
    "average hrv": "HRV Mean",
    "filter hrv": "Pick Concepts",
    "limit hrv": "HRV Clamp",
    "top heads": "HRV Rank",
    "split half": "HRV Convergence (image)",
    "cosine": "Compare HRVs (image)",
    "ordered weakening": "Weaken Heads by Order",
    "manual heads": "Scale Heads",
    "mix prompts": "Read by Concept",
    "word swap": "Prompt Edit (P2P-HRV)",
    "reweight words": "Edit Words (P2P-HRV)",
    "keep background": "Local Blend (P2P-HRV)",
    "local blend mask": "Edit Mask (P2P-HRV)",
    "missing object": "Attend and Excite (HRV)",
    "subject masks": "Attend and Excite Report",
    "show tokens": "HRV Tokens",
    "foreign conditioning": "Tag Conditioning (HRV)",
    "join conditioning": "Conditioning Concat (HRV)",
    "prompt templates": "HRV Experiment",
    "ground truth": "Scorer: HRV-mini's Truth",
    "image text cosine": "Scorer: CLIP",
    "local clip": "Scorer: CLIP from a folder",
    "rate images": "Score Images",
    "ablation study": "Ordered Weakening Analysis",
    "evaluate all concepts": "Ordered Weakening of All Concepts",
    "does it hold": "HRV Quick Check",
    "uniform baseline": "Ordered Weakening by Factor",
    "concept matrix": "Side Effects of Weakening",
}

# What people type who look for no HRV, and a node of the pack that should be offered.
COMMON_SEARCHES = {
    "prompt": "CLIP Text Encode (HRV)",
    "clip text encode": "CLIP Text Encode (HRV)",
    "attention": "Apply Concept Strengthen",
    "concept": "Concept Adjust",
    "style": "Read by Concept",
    "mini model": "Load HRV-mini",
}

# Nodes that show text on themselves.
TEXTS: dict[str, Any] = {
    "1": {"class_type": "HRV_Load", "inputs": {"file": "hrv-mini.safetensors"}},
    "2": {"class_type": "HRV_Rank", "inputs": {"hrv": ["1", 0], "concepts": "Color, Shape", "top_k": 3}},
    "3": {"class_type": "HRV_Rank", "inputs": {"hrv": ["1", 0], "concepts": "", "top_k": 128}},
    "4": {"class_type": "HRV_Save", "inputs": {"hrv": ["1", 0], "name": "texts/kept"}},
}

Graph = dict[str, Any]


@pytest.fixture(scope="session")
def examples() -> dict[str, Graph]:
    """The example workflows by name, as saved."""
    files = sorted((PACK_ROOT / "example_workflows").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


@pytest.fixture(scope="session")
def object_info(comfy_server: ComfyServer) -> dict[str, Any]:
    """The host's description of every node class."""
    return ApiClient(comfy_server.address).object_info()


@pytest.fixture(scope="session")
def own_nodes(object_info: dict[str, Any]) -> dict[str, Any]:
    """The descriptions of the pack's own node classes."""
    module = f"custom_nodes.{PACK_NAME}"
    return {name: info for name, info in object_info.items() if info["python_module"] == module}


@pytest.fixture(scope="session")
def report(
    comfy_server: ComfyServer,
    examples: dict[str, Graph],
    own_nodes: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """What ``drive.mjs`` saw: every example opened, and run if its model is here; searches made, help pages read."""
    browser = browser_program()
    install_packages()
    write_gemma(comfy_server.base_directory / "models" / "text_encoders" / "gemma.safetensors")
    folder = tmp_path_factory.mktemp("frontend")
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    SCREENSHOTS.mkdir(parents=True)
    task = {
        "address": comfy_server.address,
        "browser": browser,
        "profile": str(folder / "profile"),
        "screenshots": str(SCREENSHOTS),
        "pack": PACK_NAME,
        "workflows": examples,
        "light": LIGHT,
        "runs": [name for name, graph in examples.items() if any(node["type"] == EMBEDDED for node in graph["nodes"])],
        "broken": without_hrv_file(examples["03 Strengthen a concept"]),
        "texts": TEXTS,
        "searches": SEARCHES,
        "commonSearches": COMMON_SEARCHES,
        "help": list(own_nodes),
        "languages": {language: expected_in(language) for language in LANGUAGES},
    }
    (folder / "task.json").write_text(json.dumps(task), encoding="utf-8")
    command = [node_program(), str(DRIVER), str(folder / "task.json"), str(folder / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DRIVE_SECONDS)
    if done.returncode != 0:
        pytest.fail(f"The page could not be driven. Screenshots are in {SCREENSHOTS}.\n{done.stderr}", pytrace=False)
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


def without_hrv_file(graph: Graph) -> Graph:
    """A copy of ``graph`` that loads a file which is not there."""
    broken = copy.deepcopy(graph)
    for node in broken["nodes"]:
        if node["type"] == "HRV_Load":
            node["widgets_values"] = ["gone.safetensors"]
    return broken
