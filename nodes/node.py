"""What every node of the pack is: a node of the host that looks at its inputs before it works with them.

The host checks what is typed into widgets. What comes through links it passes on as it is: from nodes of other packs,
from lists, from sockets that take anything. So values are checked here, in one place, by the node's own schema.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from numbers import Integral, Real
from typing import Any

import torch
from comfy_api.latest import io

from ..host.page.texts import showing_errors
from ..host.prompts.encoding import NO_TEXT_ENCODER
from ..host.scoring.clip import NO_VISION_MODEL
from ..hrv.attend_and_excite.report import ReportLog
from ..hrv.errors import HRVError, listed, quoted, require_encodable, short
from ..hrv.relevance.vectors import HRV
from ..hrv.relevance.vocabulary import Vocabulary
from ..hrv.scoring.experiments import Experiment
from .sockets import ConceptsSocket, ExperimentSocket, HRVSocket, ReportSocket, ScorerSocket

LONGEST_TEXT = 1_000_000
"""Characters of a text field at most; what reads them takes time in proportion."""

# What becomes no infinity in single precision.
_LARGEST_FLOAT = float(torch.finfo(torch.float32).max)


class FileChoice(io.Combo.Input):
    """A choice among files. Whoever opens the file says where it should be, so that it isn't checked here."""


class Node(io.ComfyNode):
    """Base of all nodes of the pack.

    Their ``execute`` raises HRVError for inputs that aren't what the schema says, and shows any HRVError on the node.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        execute = cls.__dict__.get("execute")
        # The host copies a class with all that it has for every run.
        if isinstance(execute, classmethod) and not hasattr(execute.__func__, "checks_inputs"):
            cls.execute = classmethod(showing_errors(_checking(execute.__func__)))


def _checking(execute: Callable[..., io.NodeOutput]) -> Callable[..., io.NodeOutput]:
    """``execute`` with its inputs checked first."""
    names = list(signature(execute).parameters)[1:]

    @wraps(execute)
    def execute_checked(node: type[io.ComfyNode], /, *given: Any, **named: Any) -> io.NodeOutput:
        inputs = {**dict(zip(names, given, strict=False)), **named}
        return execute(node, **checked_inputs(node.SCHEMA or node.GET_SCHEMA(), inputs))

    execute_checked.checks_inputs = True  # type: ignore[attr-defined]
    return execute_checked


def checked_inputs(schema: io.Schema, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a node as its schema says; HRVError for the first that isn't.

    An optional input that is None is left out, as if nothing were connected.
    """
    known = {given.id: given for given in schema.inputs}
    checked = {}
    for name, value in inputs.items():
        given = known.get(name)
        growing = known.get(name.partition(".")[0])
        if isinstance(growing, io.Autogrow.Input) and growing is not given:
            # Connections beyond the most that the host lets grow arrive under their own names.
            raise _too_many(growing.template.max)
        if given is None:
            raise HRVError(f"{schema.display_name} has no input {quoted(name)}: remove the node and add it again.")
        if value is not None or not given.optional:
            checked[name] = _checked(given, value)
    return checked


def _checked(given: Any, value: Any) -> Any:
    if isinstance(given, io.Autogrow.Input):
        return _checked_several(given, value)
    kind = given.get_io_type()
    if kind in _WIDGETS:
        return _WIDGETS[kind](given, value)
    what, fits = _SOCKETS[kind]
    if value is None and kind in _ABSENT:
        raise HRVError(_ABSENT[kind])
    if not fits(value):
        raise HRVError(f"The input {quoted(given.id)} takes {what}, but gets {_described(value)}.")
    return value


def _checked_several(given: Any, values: Any) -> dict[str, Any]:
    """The values of an input that grows, by name."""
    template = given.template
    if not isinstance(values, Mapping):
        raise HRVError(f"The inputs {quoted(given.id)} are missing: connect at least {template.min}.")
    found = {name: value for name, value in values.items() if value is not None}
    if len(found) > template.max:
        raise _too_many(template.max)
    return {name: _checked(template.input, value) for name, value in found.items()}


def _too_many(most: int) -> HRVError:
    return HRVError(
        f"This node takes at most {most} inputs, and more are connected. Use several such nodes, and another one for "
        "their results."
    )


def _checked_text(given: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise HRVError(f"The input {quoted(given.id)} takes a text, but gets {_described(value)}.")
    if len(value) > LONGEST_TEXT:
        raise HRVError(
            f"The text of {quoted(given.id)} has {len(value):,} characters, and at most {LONGEST_TEXT:,} can be read. "
            "Shorten it."
        )
    require_encodable(given.id, value)
    return value


def _checked_int(given: Any, value: Any) -> int:
    if not isinstance(value, Integral):
        raise HRVError(f"The input {quoted(given.id)} takes a whole number, but gets {_described(value)}.")
    number = int(value)
    if not given.min <= number <= given.max:
        shown = number if abs(number) < 10**20 else "a far greater number"
        raise HRVError(f"{quoted(given.id)} must be from {given.min} to {given.max}, not {shown}.")
    return number


def _checked_float(given: Any, value: Any) -> float:
    """Only that it is finite: through a link may come more than the widget offers, and whoever uses it has limits."""
    if not isinstance(value, Real):
        raise HRVError(f"The input {quoted(given.id)} takes a number, but gets {_described(value)}.")
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not abs(number) <= _LARGEST_FLOAT:
        raise HRVError(f"{quoted(given.id)} must be a finite number, not {number:g}.")
    return number


def _checked_boolean(given: Any, value: Any) -> bool:
    if not isinstance(value, Integral):
        raise HRVError(f"The input {quoted(given.id)} takes true or false, but gets {_described(value)}.")
    return bool(value)


def _checked_choice(given: Any, value: Any) -> str:
    if not isinstance(value, str):
        raise HRVError(f"The input {quoted(given.id)} takes the name of a choice, but gets {_described(value)}.")
    if value not in given.options and not isinstance(given, FileChoice):
        raise HRVError(f"{quoted(given.id)} can't be {quoted(value)}: choose one of {listed(given.options)}.")
    return value


_WIDGETS: dict[str, Callable[[Any, Any], Any]] = {
    io.String.io_type: _checked_text,
    io.Int.io_type: _checked_int,
    io.Float.io_type: _checked_float,
    io.Boolean.io_type: _checked_boolean,
    io.Combo.io_type: _checked_choice,
}


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _has(*names: str) -> Callable[[Any], bool]:
    """Other packs have classes of their own for models; they have to be able to do what we ask of them."""
    return lambda value: not isinstance(value, type) and all(hasattr(value, name) for name in names)


def _is_conditioning(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(entry, (list, tuple)) and len(entry) == 2 for entry in value)
        and all(_is_tensor(tensor, 3) and isinstance(extras, dict) for tensor, extras in value)
    )


def _is_latent(value: Any) -> bool:
    return isinstance(value, dict) and _is_tensor(value.get("samples"), 4, 5)


def _is_tensor(value: Any, *axes: int) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim in axes and value.numel() > 0


_SOCKETS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    HRVSocket.io_type: ("an HRV, as from Load HRV or Build HRV", _is(HRV)),
    ConceptsSocket.io_type: ("concepts, as from HRV Concepts", _is(Vocabulary)),
    ExperimentSocket.io_type: ("an experiment, as from HRV Experiment", _is(Experiment)),
    ScorerSocket.io_type: ("a scorer, as from one of the Scorer nodes", _has("name", "provenance", "check", "score")),
    ReportSocket.io_type: ("a report, as from Attend and Excite", _is(ReportLog)),
    io.Model.io_type: ("a MODEL", _has("clone", "get_model_object", "model_options")),
    io.Clip.io_type: ("a CLIP", _has("tokenize", "encode_from_tokens_scheduled", "cond_stage_model")),
    io.Vae.io_type: ("a VAE", _has("decode", "encode")),
    io.ClipVision.io_type: ("a CLIP_VISION", _has("encode_image", "model_type", "config", "model", "patcher")),
    io.Conditioning.io_type: ("a CONDITIONING", _is_conditioning),
    io.Latent.io_type: ("a LATENT", _is_latent),
    io.Image.io_type: ("an IMAGE", lambda value: _is_tensor(value, 4) and value.shape[-1] >= 3),
}

_ABSENT = {
    io.Clip.io_type: NO_TEXT_ENCODER,
    io.ClipVision.io_type: NO_VISION_MODEL,
    io.Vae.io_type: "There is no VAE: the checkpoint contains none. Use Load VAE.",
}


def _described(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return f"the text {quoted(value)}"
    return f"something else ({short(type(value).__name__)})"
