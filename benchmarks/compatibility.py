"""Sample HRV-mini with controls beside the nodes of other packs, in one real server, and print what happened.

    python benchmarks/compatibility.py FOLDER...

FOLDERs are clones of other packs: ComfyUI_IPAdapter_plus, ComfyUI-ppm, comfyui-prompt-control, sd-perturbed-attention.
Cases whose nodes are not there are left out. Needs a host on COMFYUI_PATH and, in this Python, what host and packs
require. Prints a table in Markdown; exit status 1 if a row is not as it should be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import torch
from launcher.api_client import ApiClient
from launcher.comfy_server import PACK_NAME, ComfyServer
from launcher.errors import errors_for_people
from launcher.hosts import find_host
from launcher.paths import PACK_ROOT
from launcher.prepare import interrupt_on_termination
from safetensors import safe_open
from safetensors.torch import load_file, save_file

PROMPT = "a red circle, night"
# Of more than one chunk, so that attention couple repeats the other prompts to its length.
REGION = ", ".join(["a blue square"] * 20)
TOLERANCE = 1e-4
SIDE = 128

Link = list[Any]
"""[id of a node, number of its output]."""


@dataclass
class Graph:
    """A workflow in API format under construction; the links are what the next node is connected to."""

    nodes: dict[str, dict[str, Any]] = field(default_factory=dict)
    text: str = PROMPT
    model: Link = field(default_factory=list)
    clip: Link = field(default_factory=list)
    positive: Link = field(default_factory=list)
    negative: Link = field(default_factory=list)
    region: Link = field(default_factory=list)

    def add(self, class_type: str, **inputs: Any) -> str:
        """The id of a new node."""
        name = str(len(self.nodes))
        self.nodes[name] = {"class_type": class_type, "inputs": inputs}
        return name

    def encode(self, text: str) -> Link:
        return [self.add("HRV_TextEncode", clip=self.clip, text=text), 0]

    def patch_model(self, class_type: str, **inputs: Any) -> None:
        self.model = [self.add(class_type, model=self.model, **inputs), 0]

    def control(self, target: str, strength: float) -> None:
        """Ours, on the prompt that ``target`` names: its color strengthened as Color."""
        node = self.add(
            "HRV_ConceptStrengthen",
            model=self.model,
            conditioning=getattr(self, target),
            hrv=[self.add("HRV_Load", file="hrv-mini.safetensors"), 0],
            words="blue" if target == "region" else "red",
            concept="Color",
            strength=strength,
            start=0.0,
            end=1.0,
            clamp=0.0,
            occurrence="all",
        )
        self.model = [node, 0]
        setattr(self, target, [node, 1])


Step = Callable[[Graph, bool], None]
"""Adds another pack's nodes to a graph: in effect, or set so that they change nothing."""


def nothing(graph: Graph, on: bool) -> None:
    """No node."""


@dataclass(frozen=True)
class Case:
    """A way to use another pack: nodes that come before a control (``prepare``), and nodes on either side of it."""

    pack: str
    title: str
    classes: tuple[str, ...]
    patch: Step
    prepare: Step = nothing
    target: str = "positive"
    two_orders: bool = True


def ip_adapter(graph: Graph, on: bool) -> None:
    embeds = [graph.add("IPAdapterLoadEmbeds", embeds="random.ipadpt"), 0]
    graph.patch_model(
        "IPAdapterEmbeds",
        ipadapter=[graph.add("IPAdapterModelLoader", ipadapter_file="random.safetensors"), 0],
        pos_embed=embeds,
        neg_embed=embeds,
        weight=0.8 if on else 0.0,
        weight_type="linear",
        start_at=0.0,
        end_at=1.0,
        embeds_scaling="V only",
    )


def negpip_clip(graph: Graph, on: bool) -> None:
    graph.clip = [graph.add("CLIPNegPip", model=graph.model, clip=graph.clip), 1]
    if on:
        graph.text = PROMPT.replace("night", "(night:-1.0)")


def negpip(graph: Graph, on: bool) -> None:
    graph.patch_model("CLIPNegPip", clip=graph.clip)


def ppm_couple(graph: Graph, on: bool) -> None:
    """The base prompt everywhere, another on the right half; not in effect, the other one nowhere."""
    everywhere = graph.add("SolidMask", value=1.0, width=SIDE, height=SIDE)
    nowhere = graph.add("SolidMask", value=0.0, width=SIDE, height=SIDE)
    half = graph.add("SolidMask", value=1.0, width=SIDE // 2, height=SIDE)
    right = graph.add("MaskComposite", destination=[nowhere, 0], source=[half, 0], x=SIDE // 2, y=0, operation="add")
    graph.patch_model(
        "AttentionCouplePPM",
        base_cond=graph.positive,
        base_mask=[everywhere, 0],
        cond_1=graph.region,
        mask_1=[right if on else nowhere, 0],
    )


def pc_couple(graph: Graph, on: bool) -> None:
    where = "COUPLE(0.5 1)" if on else "COUPLE(0 1, 0 1, 0)"
    encoded = [graph.add("PCTextEncode", clip=graph.clip, text=f"{graph.text} {where} {REGION}"), 0]
    graph.positive = [graph.add("HRV_TagConditioning", conditioning=encoded, clip=graph.clip, text=graph.text), 0]


def pc_batch_negative(graph: Graph, on: bool) -> None:
    node = graph.add("PCAttentionCoupleBatchNegative", positive=graph.positive, negative=graph.negative)
    graph.positive, graph.negative = [node, 0], [node, 1]


def pc_schedule(graph: Graph, on: bool) -> None:
    text = PROMPT.replace("night", "[night:sunset:0.5]") if on else PROMPT
    graph.positive = [graph.add("PCLazyTextEncode", clip=graph.clip, text=f"NODE(HRV_TextEncode, text) {text}"), 0]


GUIDE = {
    "unet_block": "input",
    "unet_block_id": 1,
    "sigma_start": -1.0,
    "sigma_end": -1.0,
    "rescale": 0.0,
    "rescale_mode": "full",
}


def pag(graph: Graph, on: bool) -> None:
    graph.patch_model("PerturbedAttention", scale=3.0 if on else 0.0, adaptive_scale=0.0, **GUIDE)


def seg(graph: Graph, on: bool) -> None:
    graph.patch_model("SmoothedEnergyGuidanceAdvanced", scale=3.0 if on else 0.0, blur_sigma=2.0, **GUIDE)


def swg(graph: Graph, on: bool) -> None:
    graph.patch_model(
        "SlidingWindowGuidanceAdvanced",
        scale=3.0 if on else 0.0,
        tile_width=SIDE // 2,
        tile_height=SIDE // 2,
        tile_overlap=SIDE // 4,
        sigma_start=-1.0,
        sigma_end=-1.0,
    )


def nag(graph: Graph, on: bool) -> None:
    graph.patch_model(
        "NormalizedAttentionGuidance",
        negative=graph.region,
        scale=2.0 if on else 0.0,
        tau=2.5,
        alpha=0.5,
        sigma_start=-1.0,
        sigma_end=-1.0,
    )


def pladis(graph: Graph, on: bool) -> None:
    graph.patch_model("PLADIS", scale=2.0 if on else 0.0, sparse_func="entmax1.5")


def in_turn(*steps: Step) -> Step:
    def run(graph: Graph, on: bool) -> None:
        for step in steps:
            step(graph, on)

    return run


IPA, PPM, PC, SPA = "ComfyUI_IPAdapter_plus", "ComfyUI-ppm", "comfyui-prompt-control", "sd-perturbed-attention"
EMBEDS, NEGPIP, COUPLE = "IPAdapterEmbeds", "CLIPNegPip", "AttentionCouplePPM"
PC_COUPLE = ("PCTextEncode", "PCAttentionCoupleBatchNegative")

CASES = [
    Case(IPA, "IPAdapter Embeds", (EMBEDS,), ip_adapter),
    Case(IPA, "two IPAdapters", (EMBEDS,), in_turn(ip_adapter, ip_adapter)),
    Case(PPM, "CLIP NegPip", (NEGPIP,), negpip, negpip_clip),
    Case(PPM, "Attention Couple", (COUPLE,), ppm_couple),
    Case(PPM, "Attention Couple, the control on its region", (COUPLE,), ppm_couple, target="region", two_orders=False),
    Case(PPM, "CLIP NegPip + Attention Couple", (NEGPIP, COUPLE), in_turn(negpip, ppm_couple), negpip_clip),
    Case(PC, "COUPLE", ("PCTextEncode",), nothing, pc_couple, two_orders=False),
    Case(PC, "COUPLE, batch negative", PC_COUPLE, pc_batch_negative, pc_couple),
    Case(PC, "schedule with NODE", ("PCLazyTextEncode",), nothing, pc_schedule, two_orders=False),
    Case(f"{PC} + {PPM}", "COUPLE + CLIP NegPip", (NEGPIP, *PC_COUPLE), negpip, in_turn(negpip_clip, pc_couple)),
    Case(SPA, "PAG", ("PerturbedAttention",), pag),
    Case(SPA, "SEG", ("SmoothedEnergyGuidanceAdvanced",), seg),
    Case(SPA, "SWG", ("SlidingWindowGuidanceAdvanced",), swg),
    Case(SPA, "NAG", ("NormalizedAttentionGuidance",), nag),
    Case(SPA, "PLADIS", ("PLADIS",), pladis),
    Case(
        f"{IPA} + {PPM} + {SPA}",
        "IPAdapter + CLIP NegPip + PAG + NAG",
        (EMBEDS, NEGPIP, "PerturbedAttention", "NormalizedAttentionGuidance"),
        in_turn(ip_adapter, negpip, pag, nag),
        negpip_clip,
    ),
    Case(
        f"{PPM} + {SPA}",
        "CLIP NegPip + Attention Couple + SEG",
        (NEGPIP, COUPLE, "SmoothedEnergyGuidanceAdvanced"),
        in_turn(negpip, ppm_couple, seg),
        negpip_clip,
    ),
]


def build(case: Case | None, on: bool = True, strength: float | None = None, ours_first: bool = True) -> Graph:
    """The workflow of one run: with the case's nodes or without, with a control or without."""
    graph = Graph()
    mini = graph.add("HRV_LoadMini")
    graph.model, graph.clip = [mini, 0], [mini, 1]
    if case:
        case.prepare(graph, on)
    graph.positive = graph.positive or graph.encode(graph.text)
    graph.negative, graph.region = graph.encode(""), graph.encode(REGION)
    steps: list[Callable[[], None]] = []
    if strength is not None:
        steps.append(lambda: graph.control(case.target if case else "positive", strength))
    if case:
        steps.insert(len(steps) if ours_first else 0, lambda: case.patch(graph, on))
    for step in steps:
        step()
    sampled = graph.add(
        "KSampler",
        model=graph.model,
        positive=graph.positive,
        negative=graph.negative,
        latent_image=[graph.add("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1), 0],
        seed=0,
        steps=4,
        cfg=5.0,
        sampler_name="euler",
        scheduler="normal",
        denoise=1.0,
    )
    graph.add("SaveLatent", samples=[sampled, 0], filename_prefix="latent")
    return graph


@dataclass(frozen=True)
class Sampler:
    """Runs workflows on a server."""

    server: ComfyServer
    api: ApiClient

    def __call__(self, graph: Graph) -> tuple[torch.Tensor, list[str]]:
        """The latent [1, 12, 16, 16], and what the pack said to the log meanwhile."""
        before = len(self.server.log())
        (record,) = self.api.run(graph.nodes, timeout=600).outputs[str(len(graph.nodes) - 1)]["latents"]
        path = self.server.base_directory / "output" / record["subfolder"] / record["filename"]
        latent = load_file(path)["latent_tensor"]
        said = [line.partition("[HRV] ")[2] for line in self.server.log()[before:] if "[WARNING] [HRV] " in line]
        return latent, said


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative distance."""
    return float((found - expected).norm() / expected.norm())


def measured(case: Case, sample: Sampler, alone: torch.Tensor) -> tuple[str, bool]:
    """A row of the table, and whether it is as it should be."""
    theirs, _ = sample(build(case))
    orders = (True, False) if case.two_orders else (True,)
    both, said = zip(*(sample(build(case, strength=1.0, ours_first=first)) for first in orders), strict=True)
    off = [sample(build(case, strength=0.0, ours_first=first))[0] for first in orders]
    idle, _ = sample(build(case, on=False, strength=1.0))
    changed, of_theirs = difference(both[0], theirs), difference(both[0], alone)
    apart, rest = difference(both[-1], both[0]), difference(idle, alone)
    same = all(torch.equal(latent, theirs) for latent in off)
    sentences = sorted({line for lines in said for line in lines})
    if case.target == "region":
        right = torch.equal(both[0], theirs) and len(sentences) == 1
    else:
        right = changed > 0.01 and rest <= TOLERANCE and not sentences
    right = right and of_theirs > 0.01 and apart <= TOLERANCE and same
    cells = (
        case.pack,
        case.title,
        f"{changed:.2f}",
        f"{of_theirs:.2f}",
        ("bit-equal" if apart == 0 else f"{apart:.0e}") if case.two_orders else "one order",
        "bit-equal" if same else "differs",
        "-" if case.target == "region" else f"{rest:.0e}" if rest else "bit-equal",
        "; ".join(sentences) or "nothing",
        "yes" if right else "NO",
    )
    return f"| {' | '.join(cells)} |", right


HEADER = """\
| pack | node | change by ours | change by theirs | other order | strength 0 | theirs off | warning | right |
|---|---|---|---|---|---|---|---|---|"""


def write_adapter(base: Path) -> None:
    """An image adapter with random weights for HRV-mini and the embedding of a random image, where IPAdapter looks."""
    generator = torch.Generator().manual_seed(0)
    with safe_open(PACK_ROOT / "hrv_presets" / "mini" / "model.safetensors", "pt") as weights:
        name = "unet.{}.transformer_blocks.0.attn2.to_v.weight"
        blocks = [f"input_blocks.{block}.1" for block in (1, 2, 4, 5, 7, 8)]
        blocks += [f"output_blocks.{block}.1" for block in range(3, 12)] + ["middle_block.1"]
        shapes = [weights.get_slice(name.format(block)).get_shape() for block in blocks]
    context, width = shapes[0][1], 32
    tensors = {
        f"ip_adapter.{2 * number + 1}.to_{part}_ip.weight": torch.randn(shape, generator=generator) / context**0.5
        for number, shape in enumerate(shapes)
        for part in "kv"
    }
    tensors["image_proj.proj.weight"] = torch.randn(4 * context, width, generator=generator)
    tensors["image_proj.proj.bias"] = torch.zeros(4 * context)
    tensors |= {"image_proj.norm.weight": torch.ones(context), "image_proj.norm.bias": torch.zeros(context)}
    (base / "models" / "ipadapter").mkdir(parents=True)
    save_file(tensors, base / "models" / "ipadapter" / "random.safetensors")
    (base / "input").mkdir()
    torch.save(torch.randn(1, width, generator=generator), base / "input" / "random.ipadpt")


def try_packs(folders: Sequence[Path], base: Path) -> bool:
    """Print the table; whether all of it is right."""
    host = find_host(None, Path(sys.executable))
    packs = {PACK_NAME: PACK_ROOT, **{folder.name: folder for folder in folders}}
    write_adapter(base)
    with ComfyServer(host.folder, packs=packs, base_directory=base) as server:
        api = ApiClient(server.address)
        sample, there = Sampler(server, api), api.object_info().keys()
        print(f"ComfyUI {host.version}\n\n{HEADER}", flush=True)
        alone, _ = sample(build(None, strength=1.0))
        rows = []
        for case in CASES:
            if there >= set(case.classes):
                row, right = measured(case, sample, alone)
                print(row, flush=True)
                rows.append(right)
    return all(rows) and bool(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="a clone of another pack")
    options = parser.parse_args()
    interrupt_on_termination()
    with errors_for_people(), tempfile.TemporaryDirectory(prefix="hrv-packs-") as base:
        right = try_packs([folder.resolve() for folder in options.folders], Path(base))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
