"""Where windows of sampling progress begin and end on the noise levels of one model."""

from __future__ import annotations

from typing import Any

from ...hrv.progress import Window


class WindowEnds:
    """The noise levels of windows in one sampling run, each asked for once.

    The host's ``percent_to_sigma`` (comfy/model_sampling.py) reads a number from the device: on a GPU each answer is a
    wait for it.
    """

    def __init__(self, model: Any):
        self._sampling = model.get_model_object("model_sampling")
        self._ends: dict[Window, tuple[float, float]] = {}

    def of(self, window: Window) -> tuple[float, float]:
        """The sigmas of a window's start and of its end, the smaller one; it is open at ``end < sigma <= start``."""
        if window not in self._ends:
            percent_to_sigma = self._sampling.percent_to_sigma
            self._ends[window] = float(percent_to_sigma(window.start)), float(percent_to_sigma(window.end))
        return self._ends[window]

    def is_open(self, window: Window, sigma: float) -> bool:
        """Whether a window is open at a noise level."""
        start, end = self.of(window)
        return end < sigma <= start
