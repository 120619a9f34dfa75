"""Scoring by a CLIP of the library transformers, from a folder below the host's models folder."""

from __future__ import annotations

import contextlib
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import comfy.model_management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ...hrv.errors import HRVError, quoted
from ...hrv.scoring.cosine import CosineScorer
from ..files.folders import below, read_user_file
from ..models.digest import model_digest
from .folder_limits import TEXT_LIMIT, read_settings, require_small_pictures, require_weights_for

# The files of a tokenizer, in its newer and in its older form.
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))


class TransformersScorer(CosineScorer):
    """Cosine between the projected vectors of a CLIPModel, images prepared by its own processor.

    ``folder`` is a path below the models folder; nothing is downloaded, and weights are read from safetensors only.
    Raises HRVError for a folder that is not there, outside, or without a whole CLIP.
    """

    def __init__(self, folder: str):
        path = _path(folder)
        model, self._processor = _load(path)
        device = comfy.model_management.text_encoder_device()
        if comfy.model_management.should_use_fp16(device):
            model.half()
        self._model = model
        # The host sets attributes on the module of a patcher, and a CLIPModel refuses some of them.
        self._patcher = ModelPatcher(
            torch.nn.ModuleList([model]),
            load_device=device,
            offload_device=comfy.model_management.text_encoder_offload_device(),
        )
        provenance = {
            "folder": path.resolve().name,
            "weights": model_digest(self._patcher),
            "settings": _settings_digest(path),
        }
        super().__init__("CLIP cosine (transformers)", provenance, model.config.text_config.max_position_embeddings - 2)

    def count_tokens(self, text: str) -> int:
        return len(self._processor.tokenizer(text)["input_ids"]) - 2

    def encode_text(self, text: str) -> torch.Tensor:
        tokens = self._processor.tokenizer(text, return_tensors="pt")["input_ids"]
        model = self._loaded()
        return model.text_projection(model.text_model(input_ids=tokens.to(model.device)).pooler_output)[0]

    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        pictures = list((images * 255).round().to(torch.uint8).numpy())
        pixels = self._processor.image_processor(images=pictures, return_tensors="pt")["pixel_values"]
        model = self._loaded()
        seen = model.vision_model(pixel_values=pixels.to(model.device, model.dtype)).pooler_output
        return model.visual_projection(seen)

    def _loaded(self) -> Any:
        """The model, on the device if the host finds room there, which may free others for it."""
        # All of it or nothing: only the host's own layers work from elsewhere.
        comfy.model_management.load_models_gpu([self._patcher], force_full_load=True)
        return self._model


def folder_stamp(folder: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of the files of a folder: another where the model has been exchanged."""
    files = sorted(file for file in _path(folder).iterdir() if file.is_file())
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _path(folder: str) -> Path:
    models = Path(folder_paths.models_dir).resolve()
    path = below(models, folder.strip())
    with contextlib.suppress(OSError, ValueError):  # a name that no folder can have
        if path is not None and path != models and path.is_dir():
            return path
    raise HRVError(
        f"There is no folder {quoted(folder)} in {models}. Put the folder of a CLIP model for transformers there, and "
        "write its path inside that folder, such as 'clip/clip-vit-large-patch14'."
    )


def _load(path: Path) -> tuple[Any, Any]:
    """The model and the processor of a folder."""
    kind = None
    if (path / "config.json").is_file():
        settings = read_settings(path)
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            kind = json.loads(settings)["model_type"]
    if not isinstance(kind, str):
        raise HRVError(
            f"The folder {path} has no config.json with the model's type, so it isn't a model for transformers."
        )
    if kind != "clip":
        raise HRVError(f"The folder {path} contains a model of type {kind[:40]!r}, not a whole CLIP ('clip').")
    if not any(path.glob("*.safetensors")):
        raise HRVError(
            f"The folder {path} has no weights in safetensors. Other files (.bin, .pt) can run code and are not read: "
            "put the model's .safetensors there."
        )
    # Without them transformers makes a tokenizer that knows no word.
    if not any(all((path / name).is_file() for name in files) for files in _TOKENIZERS):
        raise HRVError(f"The folder {path} has no tokenizer. Put the model's tokenizer.json there.")
    # Here, because it takes seconds of the host's start, and few have such a folder.
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    try:
        require_weights_for(CLIPConfig.from_pretrained(path, local_files_only=True), CLIPModel, path)
        loaded: Any = CLIPModel.from_pretrained(
            path, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        processor = CLIPProcessor.from_pretrained(path, local_files_only=True)
        require_small_pictures(processor, path)
    except HRVError:
        raise
    except Exception as error:  # transformers and what it reads with have no class in common
        raise HRVError(f"The CLIP in {path} cannot be loaded: {_first_line(error)}") from error
    model, report = loaded
    if report["missing_keys"]:
        raise HRVError(f"The weights in {path} are not complete: {min(report['missing_keys'])} is missing.")
    return model.float().eval(), processor


def _first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).partition("\n")[0][:300]


def _settings_digest(path: Path) -> str:
    """SHA-256 in hex of everything in a folder but the weights that tells how the model is used."""
    digest = sha256()
    for file in sorted(file for file in path.iterdir() if file.suffix in (".json", ".txt")):
        digest.update(read_user_file(file, TEXT_LIMIT))
    return digest.hexdigest()
