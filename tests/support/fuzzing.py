"""Fuzzers: tests that draw hostile inputs, few in the suite and many with ``scripts/fuzz.py``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ...hrv.errors import LONGEST_MESSAGE, HRVError, printable

TIMES = int(os.environ.get("HRV_FUZZ_TIMES", "1"))
"""How many times as many examples as in the suite are drawn; ``scripts/fuzz.py`` sets it."""


def fuzz(examples: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make a test with hypothesis' ``@given`` a fuzzer, with so many examples in the suite; goes above ``@given``.

    In the suite the examples are the same every time. Fixtures that it shares among them, such as ``tmp_path``, must
    not remember them.
    """

    def decorate(test: Callable[..., Any]) -> Callable[..., Any]:
        budget = settings(
            max_examples=examples * TIMES,
            derandomize=TIMES == 1,
            print_blob=TIMES > 1,
            suppress_health_check=list(HealthCheck),
        )
        return pytest.mark.fuzz(budget(test))

    return decorate


TEXTS = st.text(st.characters(categories=["L", "N", "P", "S", "Z", "Cc", "Cf", "Cs"]), max_size=60) | st.builds(
    "".join,
    st.lists(st.sampled_from(["red", "->", "{word}", *",:\n <>{|}[]()*#%\\"])),
)
"""Texts that break parsers: any letters and half characters, and the signs that some text of this pack means."""


def assert_for_people(error: HRVError) -> None:
    """A message can be shown, logged and read: it is printable, short, and all there.

    One whose middle was left out has exactly the longest length.
    """
    message = str(error)
    assert message == printable(message) and 0 < len(message) < LONGEST_MESSAGE, message
    message.encode("utf-8")
