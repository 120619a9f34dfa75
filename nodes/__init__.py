"""The pack's nodes: schema and wiring, one file per job."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..host.files.folders import register_folder, register_loras
from ..host.routes.server import register_routes
from .arithmetic import Clamp, Compare, Mean, Merge, PickConcepts, Rank
from .build import BuildHRV
from .causal import BuildCausalHRV
from .concepts import Concepts
from .controls import ConceptAdjust, ConceptStrengthen
from .convergence import Convergence
from .editing import EditWords, PromptEdit
from .excitement import AttendAndExcite, AttendAndExciteReport
from .experiments import ExperimentNode
from .files import LoadHRV, SaveHRV
from .head_controls import ScaleHeads, WeakenHeads
from .heat_map import HeatMap
from .instant import InstantHRV
from .local_blend import EditMask, LocalBlend
from .mini import LoadMini
from .published import ImportConcepts, ImportNpy, Published
from .reading import ReadByConcept
from .scorers import Score, ScorerCLIP, ScorerMini, ScorerTransformers
from .side_effects import SideEffectsOfWeakening
from .text_encode import TextEncode
from .tokens import ConditioningConcat, TagConditioning, Tokens
from .weakening import OrderedWeakening, WeakeningSummary
from .weakening_checks import FactorSweep, QuickCheck

NODES: list[type[io.ComfyNode]] = [
    LoadMini,
    Concepts,
    BuildHRV,
    BuildCausalHRV,
    InstantHRV,
    SaveHRV,
    LoadHRV,
    TextEncode,
    ConceptStrengthen,
    ConceptAdjust,
    WeakenHeads,
    ScaleHeads,
    ReadByConcept,
    PromptEdit,
    EditWords,
    LocalBlend,
    EditMask,
    AttendAndExcite,
    AttendAndExciteReport,
    Tokens,
    TagConditioning,
    ConditioningConcat,
    HeatMap,
    Convergence,
    Published,
    ImportNpy,
    ImportConcepts,
    Merge,
    PickConcepts,
    Mean,
    Clamp,
    Rank,
    Compare,
    ExperimentNode,
    ScorerMini,
    ScorerCLIP,
    ScorerTransformers,
    Score,
    OrderedWeakening,
    WeakeningSummary,
    QuickCheck,
    FactorSweep,
    SideEffectsOfWeakening,
]


class HRVExtension(ComfyExtension):
    """The pack, as the host loads it."""

    async def on_load(self) -> None:
        """Make folders and routes known: the host calls this before it asks nodes for schemas, which list files."""
        register_folder()
        register_loras()
        register_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
