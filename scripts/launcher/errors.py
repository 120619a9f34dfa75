"""Errors of the command-line tools: each is a sentence for the person at the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


class LauncherError(Exception):
    """Something the tools need is missing or failed; the message says what, where and what to do."""


def stop(error: LauncherError) -> NoReturn:
    """Print ``error`` and end the process with status 1."""
    print(f"\nerror: {error}", file=sys.stderr, flush=True)
    raise SystemExit(1)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn a :class:`LauncherError` into a sentence and status 1, and an interruption into status 130."""
    try:
        yield
    except LauncherError as error:
        stop(error)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
