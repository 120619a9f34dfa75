"""Make docs/pictures/shape-heads.png: one prompt while ever more heads are weakened.

    python scripts/make_contact_sheet.py

It is the contact sheet of the template "Does this HRV hold", run on the embedded model with the causal HRV.
Takes about two minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

from launcher.errors import errors_for_people
from launcher.paths import PACK_ROOT
from launcher.prepare import enter_environment, interrupt_on_termination

WORKFLOW = PACK_ROOT / "example_workflows" / "13 Does this HRV hold.json"
PICTURE = PACK_ROOT / "docs" / "pictures" / "shape-heads.png"
CHANGES: dict[str, dict[str, Any]] = {
    "HRV_Load": {"file": "hrv-mini-causal.safetensors"},
    "HRV_OrderedWeakening": {"factor": -2.0, "head_counts": "4, 12, 32"},
}
"""What of the template's inputs is changed, by the node's class."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), None)

        # These need packages of the environment, which is entered only now.
        from launcher.api_client import ApiClient
        from launcher.comfy_server import ComfyServer
        from launcher.progress import ProgressBar
        from launcher.workflow_convert import to_prompt
        from PIL import Image

        with ComfyServer(host.folder) as server:
            api = ApiClient(server.address)
            prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), api.object_info())
            for node in prompt.values():
                for name, value in CHANGES.get(node["class_type"], {}).items():
                    assert name in node["inputs"], f"{node['class_type']} has no input {name}"
                    node["inputs"][name] = value
            with ProgressBar(prompt, api.titles()) as bar:
                result = api.run(prompt, bar.show)
            (shown,) = (number for number, node in prompt.items() if node["class_type"] == "PreviewImage")
            (record,) = result.images(shown)
            Image.open(io.BytesIO(api.view(record))).convert("RGB").save(PICTURE, optimize=True)
            print(f"Wrote {PICTURE.relative_to(PACK_ROOT)}.")


if __name__ == "__main__":
    main()
