"""Getting a file from the web in a way that a cancel ends at once, whatever the server does meanwhile.

The transfer is another thread's, because a server that sends its headers drop by drop keeps whoever reads them for as
long as it likes: every drop begins the patience anew.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import urllib.request
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import comfy.model_management

THREAD = "HRV download"

# Seconds without a byte after which a server counts as unreachable.
_PATIENCE = 20.0
# Seconds between two looks at whether the user cancelled.
_LOOK = 0.1
_CHUNK = 16 * 1024


def file_from_web(url: str, most: int, received: Callable[[int], None]) -> bytes:
    """The content of a file on the web, of which no more than about ``most`` bytes are taken.

    ``received`` is told how many bytes every chunk has as it comes. Raises OSError and http.client.HTTPException, and
    the host's exception once the user has cancelled.
    """
    transfer = _Transfer(url, most)
    data = bytearray()
    Thread(target=transfer.run, name=THREAD, daemon=True).start()
    try:
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            try:
                chunk = transfer.came.get(timeout=_LOOK)
            except Empty:
                continue
            if isinstance(chunk, Exception):
                raise chunk
            if not chunk:
                return bytes(data)
            data += chunk
            received(len(chunk))
    finally:
        transfer.end()


class _Transfer:
    """A request under way; ``came`` gets its chunks, then b"" or what went wrong."""

    def __init__(self, url: str, most: int):
        self.came: SimpleQueue[bytes | Exception] = SimpleQueue()
        self._url, self._most = url, most
        self._sockets: list[socket.socket] = []
        self._ended = False

    def run(self) -> None:
        try:
            with self._opener().open(self._url, timeout=_PATIENCE) as response:
                taken = 0
                while not self._ended and taken <= self._most and (chunk := response.read1(_CHUNK)):
                    taken += len(chunk)
                    self.came.put(chunk)
            self.came.put(b"")
        except Exception as error:  # noqa: BLE001 - it goes to the thread that waits for it
            self.came.put(error)

    def end(self) -> None:
        """Stop whatever the thread waits for."""
        self._ended = True
        for one in self._sockets:
            with contextlib.suppress(OSError):  # closed already
                one.shutdown(socket.SHUT_RDWR)

    def connected(self, connection: http.client.HTTPConnection) -> None:
        """Take up the socket of a connection."""
        self._sockets.append(connection.sock)
        if self._ended:
            self.end()

    def _opener(self) -> urllib.request.OpenerDirector:
        """Web access that knows http and https, the system's proxies, and no way to be sent elsewhere."""
        transfer = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                transfer.connected(self)

        class Secure(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                transfer.connected(self)

        class HTTP(urllib.request.HTTPHandler):
            def http_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(Plain, request)

        class HTTPS(urllib.request.HTTPSHandler):
            def https_open(self, request: urllib.request.Request) -> Any:
                return self.do_open(Secure, request)

        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            HTTP(),
            HTTPS(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            opener.add_handler(handler)
        return opener
