"""The pack's own socket types."""

from __future__ import annotations

from comfy_api.latest import io

HRVSocket = io.Custom("HRV")
ConceptsSocket = io.Custom("HRV_CONCEPTS")
ScorerSocket = io.Custom("HRV_SCORER")
ExperimentSocket = io.Custom("HRV_EXPERIMENT")
ReportSocket = io.Custom("HRV_EXCITEMENT_REPORT")
