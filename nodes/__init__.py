"""The pack's nodes: schema and wiring, one file per job."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from ..host.files.folders import register_folder, register_loras

register_folder()
register_loras()

from .arithmetic import Clamp, Compare, Mean, Merge, PickConcepts, Rank  # noqa: E402 - Load HRV lists the folder
from .build import BuildHRV  # noqa: E402
from .concepts import Concepts  # noqa: E402
from .controls import ConceptAdjust, ConceptStrengthen  # noqa: E402
from .convergence import Convergence  # noqa: E402
from .editing import EditWords, PromptEdit  # noqa: E402
from .excitement import AttendAndExcite, ExcitementReport  # noqa: E402
from .experiments import ExperimentNode  # noqa: E402
from .files import LoadHRV, SaveHRV  # noqa: E402
from .head_controls import ScaleHeads, WeakenHeads  # noqa: E402
from .heat_map import HeatMap  # noqa: E402
from .local_blend import EditMask, LocalBlend  # noqa: E402
from .mini import LoadMini  # noqa: E402
from .published import ImportConcepts, ImportNpy, Published  # noqa: E402
from .scorers import Score, ScorerCLIP, ScorerMini, ScorerTransformers  # noqa: E402
from .text_encode import TextEncode  # noqa: E402
from .tokens import ConditioningConcat, TagConditioning, Tokens  # noqa: E402
from .weakening import OrderedWeakening, WeakeningSummary  # noqa: E402
from .weakening_checks import FactorSweep, QuickCheck  # noqa: E402

NODES: list[type[io.ComfyNode]] = [
    LoadMini,
    Concepts,
    BuildHRV,
    SaveHRV,
    LoadHRV,
    TextEncode,
    ConceptStrengthen,
    ConceptAdjust,
    WeakenHeads,
    ScaleHeads,
    PromptEdit,
    EditWords,
    LocalBlend,
    EditMask,
    AttendAndExcite,
    ExcitementReport,
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
]


class HRVExtension(ComfyExtension):
    """The pack, as the host loads it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES
