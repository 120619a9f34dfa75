"""Images of an ordered weakening analysis as small pictures and as files."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from ..drawing.paper import Pixels
from ..errors import HRVError
from ..relevance.orders import RANDOM
from ..scoring.experiments import Case
from ..storage.atomic_files import reason, write_atomically
from .plan import Cell


def small_picture(image: torch.Tensor, size: tuple[int, int]) -> Pixels:
    """An image [height, width, 3] in 0..1 as uint8 pixels of another (height, width)."""
    picture = Image.fromarray(_pixels(image))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.LANCZOS))


def image_name(cases: Sequence[Case], case: int, seed: int, cell: Cell) -> PurePosixPath:
    """The file of an image, by concept, prompt, seed, order, number of heads and factor."""
    (order, factor, draw, backwards), heads = cell
    turn = f"-{draw + 1}{'-backwards' if backwards else ''}" if order == RANDOM else ""
    prompt = f"{case + 1:03}-{_plain(cases[case].prompt)}"
    what = f"{_plain(order)}{turn}-{heads}-heads-factor{factor:+g}.png"
    return PurePosixPath(_plain(cases[case].concept), prompt, f"seed-{seed}", what)


def png_of(image: torch.Tensor) -> bytes:
    """An image [height, width, 3] in 0..1 as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(_pixels(image)).save(content, "PNG")
    return content.getvalue()


def save_png(content: bytes, path: Path) -> None:
    """Write the content of an image's file, with the folders it needs. Raises HRVError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise HRVError(f"Cannot save the image {path}: {reason(error)}.") from error


def _pixels(image: torch.Tensor) -> Pixels:
    return (image * 255).round().to(torch.uint8).numpy()


def _plain(text: str) -> str:
    """Text as a part of a file name on any system."""
    return re.sub(r"[^0-9A-Za-z]+", "-", text).strip("-")[:60].lower() or "x"
