"""What the commands that make an HRV of a checkpoint share: their options, files, progress and errors."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from host_process import enter_host
from launcher.errors import LauncherError, errors_for_people
from launcher.prepare import interrupt_on_termination
from pack_import import PACK_ROOT, import_pack
from tqdm import tqdm

VOCABULARIES = PACK_ROOT / "hrv_presets" / "vocabularies"
DEFAULT_CONCEPTS = VOCABULARIES / "paper-34-concepts.txt"
MINI, MINI_TRANSFORMER = "hrv-mini", "hrv-mini-t"


def at_least(least: int) -> Callable[[str], int]:
    """Reads whole numbers from ``least`` on."""

    def read_number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} isn't a whole number of {least} or more")
        return int(text)

    return read_number


def shard(text: str) -> tuple[int, int]:
    """ "2/8" as (2, 8)."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} isn't a shard: write the second of eight as 2/8")
    return int(index), int(count)


def add_model_and_files(parser: argparse.ArgumentParser) -> None:
    """The options for the model, the concepts and the file to write."""
    parser.add_argument(
        "--checkpoint", required=True, help=f"file, name in ComfyUI's models/checkpoints, {MINI} or {MINI_TRANSFORMER}"
    )
    parser.add_argument("--concepts", type=Path, default=DEFAULT_CONCEPTS, help='file of lines "Color: red, blue"')
    parser.add_argument("--out", type=Path, required=True, help="HRV file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the HRV file if it is there")
    add_places(parser)


def add_places(parser: argparse.ArgumentParser) -> None:
    """The options for the machines and devices that do the work."""
    parser.add_argument(
        "--run-on",
        default="this machine",
        help='"this machine", "all GPUs of this machine", or the address of a Ray cluster (docs/many-gpus.md)',
    )
    parser.add_argument("--gpu", action="store_true", help="let ComfyUI choose the device instead of using the CPU")


def require_place(out: Path, *, overwrite: bool) -> None:
    """Raise LauncherError for a file that is there already, or that has no folder to be in."""
    if out.exists() and not overwrite:
        raise LauncherError(f"{out} already exists. Choose another --out, or add --overwrite.")
    if not out.parent.is_dir():
        raise LauncherError(f"There is no folder {out.parent} for the HRV file. Create it, or choose another --out.")


def _shipped() -> dict[str, str]:
    """The models that ship, by what commands call them."""
    from hrv_pack.host.mini import loader

    return {MINI: loader.MINI, MINI_TRANSFORMER: loader.MINI_TRANSFORMER}


def load_model(name: str) -> tuple[Any, Any]:
    """MODEL and CLIP of a checkpoint."""
    return load_parts(name, vae=False)[:2]


def load_parts(name: str, *, vae: bool = True) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and, if ``vae``, VAE of a checkpoint."""
    import comfy.sd
    import folder_paths
    from hrv_pack.host.mini.loader import SHIPPED, load_mini

    if name in _shipped():
        return load_mini(SHIPPED[_shipped()[name]])
    path = name if Path(name).is_file() else folder_paths.get_full_path("checkpoints", name)
    if path is None:
        folders = ", ".join(folder_paths.get_folder_paths("checkpoints"))
        raise LauncherError(f"There is no checkpoint {name!r}, neither as a file nor in {folders}.")
    try:
        model, clip, found, *_ = comfy.sd.load_checkpoint_guess_config(
            path, output_vae=vae, embedding_directory=folder_paths.get_folder_paths("embeddings")
        )
    except Exception as error:  # the host passes on whatever its readers raise
        raise LauncherError(f"{path} cannot be loaded as a checkpoint: {error}") from error
    if model is None or clip is None or (vae and found is None):
        raise LauncherError(f"{path} is not a complete checkpoint: it needs a diffusion model and a text encoder.")
    return model, clip, found


@contextmanager
def executor_of(options: argparse.Namespace, scorer: tuple[str, dict[str, Any]] | None = None) -> Iterator[Any]:
    """The executor of the place that was chosen; ``scorer`` is the node that gives the scorer, and its inputs."""
    import folder_paths
    from hrv_pack.host.work.cluster.recipe import Recipe, checkpoint_recipe, mini_recipe
    from hrv_pack.host.work.places import executor_at

    def recipe() -> Recipe:
        model = loaded()
        return model.with_node("scorer", *scorer) if scorer else model

    def loaded() -> Recipe:
        if options.checkpoint in _shipped():
            return mini_recipe(_shipped()[options.checkpoint])
        if folder_paths.get_full_path("checkpoints", options.checkpoint) is None:
            raise LauncherError(
                f"Workers find a checkpoint by its name in models/checkpoints, so {options.checkpoint} has to be there."
            )
        return checkpoint_recipe(options.checkpoint)

    with executor_at(options.run_on, recipe, tqdm.write) as executor:
        yield executor


def read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LauncherError(f"Cannot read {path}: {error}.") from error


@contextmanager
def progress_bar(unit: str) -> Iterator[Any]:
    """A bar in the terminal that shows the progress which the host is told."""
    import comfy.utils

    with tqdm(unit=unit, dynamic_ncols=True) as bar:

        def show(value: int, total: int, *_: Any, **__: Any) -> None:
            bar.total, bar.n = total, value
            bar.refresh()

        comfy.utils.set_progress_bar_global_hook(show)
        yield bar


def run_in_host(options: argparse.Namespace, command: Callable[[argparse.Namespace], None]) -> None:
    """Run a command with the host importable, its errors as sentences, and Ctrl-C and SIGTERM as an end in order."""
    interrupt_on_termination()
    with errors_for_people():
        enter_host(gpu=options.gpu)
        import_pack()
        from hrv_pack.hrv.errors import HRVError

        try:
            command(options)
        except HRVError as error:
            raise LauncherError(str(error)) from error
