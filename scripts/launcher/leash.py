"""Run a Python script that ends when the process holding the other end of its standard input ends.

    python leash.py SCRIPT [ARGUMENTS]

However the holder dies (even killed outright), the system closes the pipe, and nothing stays behind.
"""

from __future__ import annotations

import _thread
import os
import runpy
import signal
import sys
import threading
import time
from pathlib import Path

GRACE_SECONDS = 3


def follow_holder() -> None:
    """Wait for the end of standard input, then ask the main thread to stop, then insist."""
    while os.read(0, 1024):
        pass
    if hasattr(signal, "pthread_kill"):
        # A real signal, for it also ends a wait of the main thread on a lock.
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        signal.pthread_kill(main_thread, signal.SIGINT)
    else:
        _thread.interrupt_main()
    time.sleep(GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    # A shell starts background jobs with interrupts ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=follow_holder, daemon=True).start()
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")
