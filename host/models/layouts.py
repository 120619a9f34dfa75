"""The head positions of a loaded model, and whether an HRV is for them."""

from __future__ import annotations

import logging
from typing import Any

from ...hrv.errors import short
from ...hrv.heads.layout import HeadLayout, require_same_layout
from ...hrv.relevance.vectors import HRV
from .architectures import architecture_of
from .capabilities import Capability


def head_layout(model: Any, capability: Capability | None = None) -> HeadLayout:
    """The head layout of a MODEL, in canonical order.

    Raises HRVError for an unsupported architecture, and for one that lacks the ``capability`` that is needed.
    """
    return architecture_of(model, capability).layout


def describe_model(model: Any) -> str:
    """The host's name of a MODEL's architecture."""
    return type(model.model.model_config).__name__


def require_fitting(hrv: HRV, model: Any, capability: Capability | None = None) -> None:
    """Raise HRVError for an HRV of another head layout than the MODEL's; log for which models it is fine.

    It raises HRVError as :func:`head_layout` does, too.

    Fine-tunes and other relatives have the heads of the model that an HRV was made with, and it is meant for them too.
    """
    layout = head_layout(model, capability)
    require_same_layout(hrv.layout, layout)
    logging.info(
        "[HRV] This HRV, made with %s, fits this model, %s: both have %s. A different model with the same layout, such "
        "as a fine-tune, is fine.",
        short(str(hrv.provenance.get("model", "a model that its file does not name"))),
        describe_model(model),
        layout.describe(),
    )
