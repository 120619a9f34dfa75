"""Kill a build again and again, then let it end: ``python tests/support/killed_builds.py FOLDER KILLS``.

Every attempt is a forked child that kills itself without warning when it comes to a random one of its file operations
or sampling steps. Prints as JSON how many images were saved after each, and whether the end is the build in one piece.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from host_process import enter_host
from pack_import import import_pack


def die_at(moment: int, states: Path) -> None:
    """Let this process kill itself at its ``moment``-th file operation in ``states`` or progress report."""
    import comfy.utils

    events = 0

    def count(*_: object, **__: object) -> None:
        nonlocal events
        events += 1
        if events >= moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(event: str, arguments: tuple[object, ...]) -> None:
        if event in ("open", "os.rename", "os.remove", "os.scandir") and str(states) in str(arguments[0]):
            count()

    sys.addaudithook(audited)
    comfy.utils.set_progress_bar_global_hook(count)


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    enter_host()
    import_pack()
    import torch

    torch.set_num_threads(1)
    from hrv_pack.host.building.build import BuildSettings, build_hrv
    from hrv_pack.host.work import states as kept_states
    from hrv_pack.hrv.relevance.vectors import HRV
    from hrv_pack.hrv.relevance.vocabulary import parse_vocabulary
    from hrv_pack.tests.support.small_host import small_clip_sd15, small_sd15
    from safetensors import safe_open

    kept_states.SAVE_EVERY = 0.0
    model, clip = small_sd15(), small_clip_sd15()
    vocabulary = parse_vocabulary("Color: red, blue\nShape: circle, star")
    settings = BuildSettings(100, 1, 2, 3.0, "euler", "normal", 32, 32, batch_size=2)

    def build(states: Path) -> HRV:
        with torch.inference_mode():
            return build_hrv(model, clip, vocabulary, ["a red car", "a dog"], settings, states=states)

    draw = random.Random(0)
    states, done = folder / "states", []
    for _ in range(kills):
        moment = draw.randint(1, 30)
        child = os.fork()
        if not child:
            die_at(moment, states)
            build(states)
            os._exit(3)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit(f"A child ended by itself (status {status}): the kills come too late.")
        saved = 0
        for path in states.glob("*.safetensors"):
            with safe_open(path, "numpy") as file:
                saved = int(file.metadata()["hrv.build.done"])
        done.append(saved)
    ended, whole = build(states), build(folder / "whole")
    left = len(list(states.glob(".*.tmp")))
    print(json.dumps({"kills": kills, "done": done, "equal": ended.same_as(whole), "left": left}))


if __name__ == "__main__":
    main()
