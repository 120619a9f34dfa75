"""Getting into a model's attention for one sampling run, and out again.

What acts on attention (:class:`~..models.families.attention_call.Wrapping`) is put in anew at every call of the model,
into that call's own options and around whatever is there by then, hooks on conditionings included
(``comfy/hooks.py``, TransformerOptionsHook): nothing of another pack is ever overwritten, whatever the order of the
nodes, nothing of ours can be, and nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.patcher_extension import WrappersMP

from ...hrv.errors import HRVError
from ..models.families.overriding import REFERENCES_KEY

_Options = dict[str, Any]
CallOptions = Callable[[torch.Tensor, "torch.Tensor | None", _Options], _Options]
"""(x [B, ...], context [B, T, C] or None, transformer options) of a call of the model to those it shall run with."""

# Where the transformer options of a pass beside a sampler's evaluations say who makes it.
_MAKER_KEY = "hrv_maker_of_pass"


def at_every_call(options: _Options, key: str, change: CallOptions, maker: Any = None) -> None:
    """Have ``change`` make the transformer options of every call of the model that runs with ``options``.

    ``options`` is a run's own model options. The host calls it with all that nodes and hooks have put there
    (``comfy/model_base.py``, BaseModel.apply_model). Passes beside the sampler's evaluations
    (:meth:`Evaluation.beside`) are left out, but for those of a ``maker``.
    """

    def apply_model(
        executor: Any,
        x: torch.Tensor,
        t: torch.Tensor,
        c_concat: Any,
        c_crossattn: torch.Tensor | None,
        control: Any,
        transformer_options: _Options,
        **kwargs: Any,
    ) -> Any:
        if kwargs.get("ref_latents"):
            transformer_options = {**transformer_options, REFERENCES_KEY: True}
        if transformer_options.get(_MAKER_KEY, maker) is maker:
            transformer_options = change(x, c_crossattn, transformer_options)
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)

    comfy.patcher_extension.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, key, apply_model, options, is_model_options=True
    )


class Evaluation(NamedTuple):
    """What the host evaluates the model for: its ``calc_cond_batch`` with the arguments (``comfy/samplers.py``).

    ``conds`` are lists of prepared conditionings, an entry of which is None or empty where there are none; ``x``
    [B, C, h, w] and ``timestep`` [B] are the latents and their sigmas, ``options`` the model options.
    """

    executor: Any
    model: Any
    conds: list[Any]
    x: torch.Tensor
    timestep: torch.Tensor
    options: _Options

    def run(self) -> Any:
        """Evaluate it: a tensor for each list."""
        return self.executor(self.model, self.conds, self.x, self.timestep, self.options)

    def telling(self, key: str, value: Any) -> Evaluation:
        """The same with one more entry in the transformer options, where layers read it."""
        of_layers = {**self.options.get("transformer_options", {}), key: value}
        return self._replace(options={**self.options, "transformer_options": of_layers})

    def beside(self, maker: Any) -> Evaluation:
        """The same as a pass of ``maker`` beside what the sampler asks for: nobody else gets into it."""
        return self.telling(_MAKER_KEY, maker)

    @property
    def is_beside(self) -> bool:
        """Whether it is such a pass."""
        return _MAKER_KEY in self.options.get("transformer_options", {})


def at_every_evaluation(options: _Options, key: str, evaluate: Callable[[Evaluation], Any]) -> None:
    """Have ``evaluate`` do every evaluation that a sampler asks for with ``options``, a run's own model options."""

    def calc_cond_batch(*arguments: Any) -> Any:
        evaluation = Evaluation(*arguments)
        return evaluation.run() if evaluation.is_beside else evaluate(evaluation)

    comfy.patcher_extension.add_wrapper_with_key(
        WrappersMP.CALC_COND_BATCH, key, calc_cond_batch, options, is_model_options=True
    )


class Reach:
    """Whether what one run puts into a model's attention is ever called there.

    The layers note it, which a compiled model does as well. A pack that saves work may skip a model whose attention was
    called before, never one that it hasn't seen yet.
    """

    def __init__(self, what: str):
        self._what = what
        self._is_put_there = self._is_called = False

    def put_there(self) -> None:
        """Note that a call of the model will run with it."""
        self._is_put_there = True

    def called(self) -> None:
        """Note that a layer called it."""
        self._is_called = True

    def require(self) -> None:
        """Raise HRVError where all calls of the model so far went by without it."""
        if self._is_put_there and not self._is_called:
            raise HRVError(
                f"Another node runs the attention of this model in its own way, so {self._what} can't act on its "
                "heads. Take that node off the model."
            )


@contextmanager
def own_options(guider: Any) -> Iterator[_Options]:
    """Give a guider a copy of its model options inside the block, and its own ones back whatever happens."""
    original = guider.model_options
    guider.model_options = comfy.model_patcher.create_model_options_clone(original)
    guider.model_options.setdefault("transformer_options", {})
    try:
        yield guider.model_options
    finally:
        guider.model_options = original
