"""How a graph makes the inputs of a node, so that another machine can make them again: nodes by name, and no tensors.

A worker runs the same loaders and patches with the same settings, whatever they are called in its ComfyUI: a checkpoint
and a LoRA are names in its own folders. Only nodes of the host and of this pack take part. What came out is compared
by digest (:mod:`.session`).
"""

from __future__ import annotations

import asyncio
import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ....hrv.errors import HRVError

_PACK = __name__.partition(".host.")[0]
_HOST_EXTRAS = re.compile(r"comfy_extras\.nodes_\w+")

Prompt = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """Nodes of a prompt as the host's API takes it, and which outputs are which inputs.

    ``nodes``  id -> class_type, inputs (values, or [id, output]) and the module of the host that has the class, which
               is empty for this pack's own.
    ``made``   name of an input -> (id, output).
    """

    nodes: Mapping[str, tuple[str, Mapping[str, Any], str]]
    made: Mapping[str, tuple[str, int]]

    def with_node(self, name: str, kind: str, inputs: Mapping[str, Any]) -> Recipe:
        """The same with the first output of one more node of this pack as the input ``name``; ``inputs`` are values."""
        return Recipe({**self.nodes, name: (kind, inputs, "")}, {**self.made, name: (name, 0)})

    def results(self) -> dict[str, Any]:
        """Run the nodes here: what each input is. Raises HRVError for a node that is not here, and one that fails."""
        outputs: dict[str, Sequence[Any]] = {}

        def value(given: Any) -> Any:
            if not _is_link(given):
                return given
            node, output = given
            if node not in outputs:
                kind, inputs, module = self.nodes[node]
                outputs[node] = _run(kind, module, {name: value(inner) for name, inner in inputs.items()})
            return outputs[node][output]

        return {name: value(list(link)) for name, link in self.made.items()}


def recipe_of(prompt: Prompt | None, node_id: str | None, names: Sequence[str]) -> Recipe:
    """How a prompt makes the inputs ``names`` of a node.

    Raises HRVError for a node of another pack among those that make them, and for a graph that does not tell.
    """
    import nodes as host_nodes

    if not prompt or node_id is None or node_id not in prompt:
        raise HRVError(
            "The workers cannot know how this model is made, because the graph does not tell. Work on this machine."
        )
    made = {name: prompt[node_id]["inputs"].get(name) for name in names}
    needed: dict[str, tuple[str, Mapping[str, Any], str]] = {}
    open_ids = [link[0] for link in made.values() if _is_link(link)]
    while open_ids:
        name = open_ids.pop()
        if name in needed:
            continue
        kind, inputs = prompt[name]["class_type"], prompt[name]["inputs"]
        needed[name] = kind, inputs, _module(kind, host_nodes.NODE_CLASS_MAPPINGS.get(kind))
        open_ids.extend(link[0] for link in inputs.values() if _is_link(link))
    return Recipe(needed, {name: (link[0], link[1]) for name, link in made.items() if _is_link(link)})


_LOADED = {"model": ("1", 0), "clip": ("1", 1), "vae": ("1", 2)}


def checkpoint_recipe(name: str) -> Recipe:
    """MODEL, CLIP and VAE of a checkpoint by its name in ComfyUI's folder."""
    return Recipe({"1": ("CheckpointLoaderSimple", {"ckpt_name": name}, "nodes")}, _LOADED)


def mini_recipe(weights: str = "") -> Recipe:
    """MODEL, CLIP and VAE of HRV-mini, or of another of the ``weights`` that its loader names."""
    return Recipe({"1": ("HRV_LoadMini", {"weights": weights} if weights else {}, "")}, _LOADED)


def _is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def _module(kind: str, found: Any) -> str:
    """Where workers find a class of nodes."""
    module = str(getattr(found, "__module__", ""))
    if module == _PACK or module.startswith(f"{_PACK}."):
        return ""
    if module == "nodes" or _HOST_EXTRAS.fullmatch(module):
        return module
    raise HRVError(
        f"The node {kind} is of another node pack, so workers may not have it. Work on this machine, or connect the "
        f"model without {kind}."
    )


def _run(kind: str, module: str, inputs: dict[str, Any]) -> Sequence[Any]:
    """The outputs of one node."""
    found = _class(kind, module)
    try:
        if hasattr(found, "EXECUTE_NORMALIZED"):
            return tuple(found.EXECUTE_NORMALIZED(**inputs).result or ())
        groups = found.INPUT_TYPES()
        known = {name for group in ("required", "optional") for name in groups.get(group, {})}
        known_inputs = {name: given for name, given in inputs.items() if name in known}
        return tuple(getattr(found(), found.FUNCTION)(**known_inputs))
    except HRVError:
        raise
    except Exception as error:  # nodes raise whatever their readers do
        raise HRVError(f"the node {kind} failed: {error}") from error


def _class(kind: str, module: str) -> Any:
    for name, found in _classes(module):
        if name == kind:
            return found
    raise HRVError(f"this ComfyUI has no node {kind}. Install the same version everywhere.")


def _classes(module: str) -> Iterator[tuple[str, Any]]:
    if module and module != "nodes" and not _HOST_EXTRAS.fullmatch(module):
        raise HRVError(f"the nodes of {module} are not the host's")
    loaded = importlib.import_module(module or f"{_PACK}.nodes")
    yield from getattr(loaded, "NODE_CLASS_MAPPINGS", {}).items()
    if hasattr(loaded, "comfy_entrypoint"):
        for found in asyncio.run(_listed(loaded.comfy_entrypoint)):
            yield found.GET_SCHEMA().node_id, found
    for found in getattr(loaded, "NODES", ()):
        yield found.GET_SCHEMA().node_id, found


async def _listed(entrypoint: Any) -> Sequence[Any]:
    extension = await entrypoint()
    listed: Sequence[Any] = await extension.get_node_list()
    return listed
