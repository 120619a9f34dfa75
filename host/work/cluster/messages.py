"""Messages between this process and the one that deals its work, over the pipes of a child."""

from __future__ import annotations

import pickle
import queue
import threading
from typing import Any, BinaryIO

Message = tuple[Any, ...]
"""A name, then plain data: builtins and arrays."""


class Channel:
    """Two streams of bytes as messages; any thread may send."""

    def __init__(self, reading: BinaryIO, writing: BinaryIO):
        self._reading, self._writing = reading, writing
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Raises OSError or ValueError if the other side is gone or the channel is closed."""
        content = pickle.dumps(message)
        with self._lock:
            self._writing.write(content)
            self._writing.flush()

    def receive(self) -> Message | None:
        """The next message; None once the other side is gone."""
        try:
            return pickle.load(self._reading)  # noqa: S301 - of our own child, or of our own parent
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return None

    def heard(self) -> queue.Queue[Message | None]:
        """All that comes, by a thread that listens from now on; None once the other side is gone."""
        messages: queue.Queue[Message | None] = queue.Queue()

        def listen() -> None:
            while True:
                message = self.receive()
                messages.put(message)
                if message is None:
                    return

        threading.Thread(target=listen, daemon=True).start()
        return messages

    def close(self) -> None:
        """Tell the other side that nothing more comes."""
        try:
            self._writing.close()
        except OSError:  # it is gone
            return
