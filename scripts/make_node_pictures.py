"""Make the pictures of the nodes that stand in their help pages: web/docs/pictures/NODE_CLASS.png.

    python scripts/make_node_pictures.py [NODE_CLASS ...]

They are screenshots of ComfyUI's page, so Chromium and Node.js are needed, as for its tests. All of them take some
minutes.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from launcher.browser import browser_program
from launcher.errors import LauncherError, errors_for_people
from launcher.node import install_packages, node_program
from launcher.paths import PACK_ROOT
from launcher.prepare import enter_environment, interrupt_on_termination

DRIVER = Path(__file__).with_name("node_pictures.mjs")
PICTURES = PACK_ROOT / "web" / "docs" / "pictures"


def make_pictures(host: Path, names: Sequence[str]) -> None:
    """Picture some node classes, all of the pack's if none is named. Raises LauncherError if the page fails."""
    # These need packages of the environment.
    from launcher.api_client import ApiClient
    from launcher.comfy_server import PACK_NAME, ComfyServer
    from PIL import Image

    install_packages()
    with tempfile.TemporaryDirectory(prefix="hrv-pictures-") as folder, ComfyServer(host) as server:
        found = ApiClient(server.address).object_info()
        own = [name for name, info in found.items() if info["python_module"] == f"custom_nodes.{PACK_NAME}"]
        unknown = set(names) - set(own)
        if unknown:
            raise LauncherError(f"The pack has no node {', '.join(sorted(unknown))}. It has: {', '.join(sorted(own))}.")
        command = [node_program(), str(DRIVER), server.address, browser_program(), folder, *(names or own)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise LauncherError(f"The page could not be pictured:\n{done.stderr}")
        PICTURES.mkdir(exist_ok=True)
        for name in names or own:
            # A third of the size of one with more colors; fewer would cost the slots theirs.
            picture = Image.open(Path(folder, f"{name}.png")).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            picture.save(PICTURES / f"{name}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NODE_CLASS", help="such as HRV_Load; none means all")
    options = parser.parse_args()
    interrupt_on_termination()
    with errors_for_people():
        make_pictures(enter_environment(Path(__file__).resolve(), None).folder, options.names)


if __name__ == "__main__":
    main()
