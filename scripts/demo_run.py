"""What the demo shows once a server with the pack runs."""

from __future__ import annotations

from pathlib import Path

from launcher.api_client import ApiClient, Prompt
from launcher.progress import ProgressBar

SMOKE: Prompt = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0x3366CC},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "smoke"}},
}


def run_demo(api: ApiClient, output: Path) -> None:
    """Queue the demo's workflow, wait for it with a progress bar, and say what it left in ``output``."""
    with ProgressBar(SMOKE, api.titles()) as bar:
        result = api.run(SMOKE, bar.show)
    for image in result.images("2"):
        print(f"  {output / image['subfolder'] / image['filename']}")
