"""The demo's workflow on other seeds: how often the word is read as intended, and how clean the shape is.

    python benchmarks/demo_on_other_seeds.py [--images 64] [--out FOLDER]

Starts ComfyUI with the pack as ``scripts/demo.py`` does and queues the same workflow with the same settings, but with
other noise and more images. Writes ``demo_on_other_seeds.md``.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from launcher.errors import errors_for_people
from launcher.prepare import enter_environment, interrupt_on_termination

FIRST_SEED = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="images of each row")
    parser.add_argument("--out", type=Path, default=Path("benchmark-results"))
    options = parser.parse_args()
    interrupt_on_termination()
    with errors_for_people(), tempfile.TemporaryDirectory() as output:
        host = enter_environment(Path(__file__).resolve(), None)

        # These need packages of the environment, which is entered only now.
        from demo_run import count, demo_prompt, labels, saved_rows, what_is_asked
        from launcher.api_client import ApiClient
        from launcher.comfy_server import ComfyServer
        from launcher.progress import ProgressBar
        from pack_import import import_pack

        import_pack()
        from hrv_pack.mini.evaluation import table, wilson_interval

        with ComfyServer(host.folder, output_directory=Path(output)) as server:
            api = ApiClient(server.address)
            prompt = demo_prompt(api)
            for entry in prompt.values():
                if entry["class_type"] == "KSampler":
                    entry["inputs"]["seed"] = FIRST_SEED
                if entry["class_type"] == "EmptyLatentImage":
                    entry["inputs"]["batch_size"] = options.images
            with ProgressBar(prompt, api.titles()) as bar:
                result = api.run(prompt, bar.show)
            rows, asked = saved_rows(api, prompt, result), what_is_asked(prompt)
        lines = []
        for row, label in labels(asked).items():
            counts = count(rows[row], asked, row)
            cells = []
            for number in (counts.read, counts.clean):
                low, high = wilson_interval(number, counts.images)
                cells.append(f"{number / counts.images:.2f} ({low:.2f} to {high:.2f})")
            lines.append([label, *cells])
        head = [f"“{asked.text}”", f"{asked.word} only a {asked.desired.lower()}", "the one shape asked for, no other"]
        machine = platform.processor() or platform.machine()
        text = f"{table(head, lines)}\n{options.images} images a row, 95 % intervals; {machine}.\n"
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "demo_on_other_seeds.md").write_text(text, encoding="utf-8")
        print(text)


if __name__ == "__main__":
    main()
