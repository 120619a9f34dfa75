"""Getting published HRVs: from a web server on this machine, from files put there by hand, and every way to fail.

The server has the authors' files where they are at hand, and else files of the same kind.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import comfy.model_management
import comfy.utils
import numpy as np
import pytest
from hrv_pack.host.files.catalog import PublishedHRV, RemoteFile, obtain, paper_concepts, read_catalog
from hrv_pack.host.files.download import THREAD
from hrv_pack.hrv.errors import LONGEST_MESSAGE, HRVError
from hrv_pack.hrv.heads.families import FAMILIES
from hrv_pack.hrv.relevance.files import load_hrv, save_hrv
from hrv_pack.hrv.relevance.published import hrv_from_npy
from hrv_pack.hrv.relevance.vectors import HRV
from launcher.comfy_server import free_port
from pack_import import PACK_ROOT

PUBLISHED = PACK_ROOT.parent / "shared" / "data" / "published"
SHORT_NAMES = {"stable-diffusion-v1-4": "sd_v1_4", "stable-diffusion-xl-base-1.0": "sd_xl_base_1_0"}


def contents(entry: PublishedHRV) -> tuple[bytes, bytes]:
    """Both files of an entry: the authors', or made up where these are not at hand."""
    if PUBLISHED.exists():
        stem = SHORT_NAMES[entry.name]
        paths = PUBLISHED / f"{stem}.category_vectors.npy", PUBLISHED / f"{stem}.head_index.npy"
        return paths[0].read_bytes(), paths[1].read_bytes()
    layout = next(family.layout() for family in FAMILIES if family.name == entry.family)
    values = np.random.default_rng(0).exponential(size=(34, layout.head_count)).astype(np.float32)
    files = io.BytesIO(), io.BytesIO()
    np.save(files[0], values / values.mean(axis=1, keepdims=True))
    np.save(files[1], np.array(layout.head_names()))
    return files[0].getvalue(), files[1].getvalue()


Answer = Callable[[BaseHTTPRequestHandler], None]


class Web:
    """A web server on the loopback: what it shall answer to which path, and what it was asked for."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Answer] = {}
        self.asked: list[str] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.asked.append(self.path)
                answer = web.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif callable(answer):
                    answer(self)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def offer(self, entry: PublishedHRV) -> PublishedHRV:
        """The entry with its files on this server."""
        data = contents(entry)
        vectors, head_index = map(self.host, entry.files, data)
        digest = hrv_from_npy(*data, entry.concepts).digest_without_provenance
        return dataclasses.replace(entry, vectors=vectors, head_index=head_index, digest=digest)

    def host(self, file: RemoteFile, data: bytes) -> RemoteFile:
        """Answer with ``data`` to the file's name; the same file, here."""
        self.answers[f"/{file.name}"] = data
        return RemoteFile(f"{self.address}/{file.name}", hashlib.sha256(data).hexdigest(), len(data))


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web()
    thread = Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.server.shutdown()
    web.server.server_close()
    thread.join()


@pytest.fixture
def entry(web: Web) -> PublishedHRV:
    return web.offer(read_catalog()["stable-diffusion-v1-4"])


@contextlib.contextmanager
def progress_hook(hook: Callable[..., None]) -> Iterator[None]:
    """What the server does at its start: it is told of the progress of all nodes."""
    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        yield
    finally:
        comfy.utils.set_progress_bar_global_hook(None)


def test_the_catalog_names_the_published_files_at_their_fixed_commit() -> None:
    catalog = read_catalog()
    assert set(catalog) == set(SHORT_NAMES)
    for name, entry in catalog.items():
        assert entry.concepts == paper_concepts() and len(entry.concepts) == 34
        assert (entry.name, entry.license) == (name, "Apache-2.0") and "2412.02237" in entry.citation
        for file, data in zip(entry.files, contents(entry), strict=True):
            assert file.url.startswith(
                "https://raw.githubusercontent.com/SNU-DRL/HRV/414122f1ddc0005fcca20d02575a019ebe7c7310/final_result/"
            )
            if PUBLISHED.exists():
                found = hrv_from_npy(*contents(entry), entry.concepts)
                assert found.digest_without_provenance == entry.digest
                assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_the_help_page_links_every_file() -> None:
    page = (PACK_ROOT / "web" / "docs" / "HRV_Published.md").read_text(encoding="utf-8")
    for entry in read_catalog().values():
        line = next(line for line in page.splitlines() if line.startswith(f"| `{entry.name}` |"))
        assert all(f"]({file.url})" in line for file in entry.files)


def test_messages_about_the_catalogs_own_names_have_room_in_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their files have names of 100 characters; with a folder of 90."""
    monkeypatch.chdir(tmp_path)
    folder = Path("m" * 90)
    for entry in read_catalog().values():
        messages = [refused(entry, folder)]
        folder.mkdir(exist_ok=True)
        for file in entry.files:
            (folder / file.name).write_bytes(b"0" * file.size)
            messages.append(refused(entry, folder))
        for message in messages:
            assert len(message) < LONGEST_MESSAGE and str(folder) in message and "help page" in message


def refused(entry: PublishedHRV, folder: Path) -> str:
    with pytest.raises(HRVError) as caught:
        obtain(entry, folder, download=False)
    return str(caught.value)


@pytest.mark.parametrize("name", SHORT_NAMES)
def test_a_download_is_converted_and_kept(web: Web, tmp_path: Path, name: str) -> None:
    entry = web.offer(read_catalog()[name])
    folder = tmp_path / "models" / "published"
    seen: list[tuple[int, int]] = []
    with progress_hook(lambda value, total, preview, node_id: seen.append((value, total))):
        hrv = obtain(entry, folder, download=True)
    assert seen[-1] == (entry.vectors.size + entry.head_index.size,) * 2
    values = np.load(io.BytesIO(contents(entry)[0]), allow_pickle=False)
    np.testing.assert_array_equal(hrv.values, values)
    assert hrv.concepts == paper_concepts()
    assert hrv.layout == next(family.layout() for family in FAMILIES if family.name == entry.family)
    assert hrv.provenance["license"] == "Apache-2.0" and hrv.provenance["citation"] == entry.citation
    assert [path.name for path in folder.iterdir()] == [f"{name}.safetensors"]
    assert load_hrv(folder / f"{name}.safetensors").same_as(hrv)

    asked = len(web.asked)
    for download in (True, False):
        assert obtain(entry, folder, download=download).same_as(hrv)
    assert len(web.asked) == asked == 2


def test_nothing_is_fetched_unless_asked_for(web: Web, entry: PublishedHRV, tmp_path: Path) -> None:
    with pytest.raises(HRVError, match="Turn on 'download'") as caught:
        obtain(entry, tmp_path, download=False)
    assert str(tmp_path) in str(caught.value) and "help page" in str(caught.value)
    assert web.asked == [] and list(tmp_path.iterdir()) == []


def test_files_put_there_by_hand_need_no_network(web: Web, entry: PublishedHRV, tmp_path: Path) -> None:
    vectors, names = contents(entry)
    (tmp_path / entry.vectors.name).write_bytes(vectors)
    with pytest.raises(HRVError, match=rf"not on this machine.* Only {entry.head_index.name} is missing\."):
        obtain(entry, tmp_path, download=False)
    (tmp_path / entry.head_index.name).write_bytes(names)
    by_hand = obtain(entry, tmp_path, download=False)
    assert web.asked == []
    assert by_hand.same_as(obtain(entry, tmp_path / "other", download=True))


def test_only_what_is_missing_is_fetched(web: Web, entry: PublishedHRV, tmp_path: Path) -> None:
    (tmp_path / entry.vectors.name).write_bytes(contents(entry)[0])
    obtain(entry, tmp_path, download=True)
    assert web.asked == [f"/{entry.head_index.name}"]


def test_a_file_put_there_by_hand_is_checked_too(entry: PublishedHRV, tmp_path: Path) -> None:
    (tmp_path / entry.vectors.name).write_bytes(contents(entry)[1])
    with pytest.raises(HRVError, match="isn't the published file") as caught:
        obtain(entry, tmp_path, download=True)
    assert f"The file {entry.vectors.name}" in str(caught.value) and str(tmp_path) in str(caught.value)
    assert not (tmp_path / f"{entry.name}.safetensors").exists()


def test_another_hrv_under_the_name_is_not_taken_for_it(entry: PublishedHRV, tmp_path: Path) -> None:
    layout = FAMILIES[0].layout()
    path = tmp_path / f"{entry.name}.safetensors"
    save_hrv(HRV(np.ones((1, 128), dtype=np.float32), ("Color",), layout), path)
    with pytest.raises(HRVError, match=r"is not the published HRV 'stable-diffusion-v1-4'\. Move or rename it"):
        obtain(entry, tmp_path, download=True)
    path.write_bytes(b"damaged")
    with pytest.raises(HRVError, match="Cannot load the HRV"):
        obtain(entry, tmp_path, download=True)


def test_an_hrv_that_only_claims_to_be_the_published_one_is_not_taken_for_it(
    entry: PublishedHRV, tmp_path: Path
) -> None:
    """The file that was found: another's values, with the digests of the published files in its provenance."""
    genuine = obtain(entry, tmp_path, download=True)
    path = tmp_path / f"{entry.name}.safetensors"
    other = dataclasses.replace(genuine, values=genuine.values[::-1].copy())
    assert other.provenance["sha256"] == entry.digests
    save_hrv(other, path, overwrite=True)
    with pytest.raises(HRVError, match="is not the published HRV 'stable-diffusion-v1-4'"):
        obtain(entry, tmp_path, download=False)


def test_the_published_hrv_is_known_by_its_values_whatever_its_provenance_says(
    entry: PublishedHRV, tmp_path: Path
) -> None:
    genuine = obtain(entry, tmp_path, download=True)
    claims = dataclasses.replace(genuine, provenance={"license": "none", "sha256": "0"})
    save_hrv(claims, tmp_path / f"{entry.name}.safetensors", overwrite=True)
    assert obtain(entry, tmp_path, download=False).same_as(genuine)


def redirect(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path.replace("/", "/elsewhere/"))
    handler.end_headers()


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def promise_more(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "17536")
    handler.end_headers()
    handler.wfile.write(b"\x93NUMPY")


def never_end(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(ConnectionError):
        while True:
            handler.wfile.write(bytes(65536))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda handler: handler.send_error(404), "HTTP Error 404"),
        (lambda handler: handler.send_error(500), "HTTP Error 500"),
        (redirect, "HTTP Error 302"),
        (hang_up, "Remote end closed connection"),
        (promise_more, "isn't the published file: it has 6 bytes"),
        (never_end, "isn't the published file"),
        (b"<html>Please sign in to this network</html>", "isn't the published file: it has 43 bytes"),
        (b"", "it has 0 bytes"),
    ],
    ids=["not found", "server error", "redirect", "hangs up", "cut off", "endless", "login page", "empty"],
)
def test_a_failed_download_says_how_to_do_it_by_hand(
    web: Web, entry: PublishedHRV, tmp_path: Path, answer: bytes | Answer, message: str
) -> None:
    web.answers[f"/{entry.vectors.name}"] = answer
    with pytest.raises(HRVError, match=message) as caught:
        obtain(entry, tmp_path, download=True)
    assert str(tmp_path) in str(caught.value) and "help page" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_it_says_so(entry: PublishedHRV, tmp_path: Path) -> None:
    vectors = dataclasses.replace(entry.vectors, url=f"http://127.0.0.1:{free_port()}/{entry.vectors.name}")
    message = r"cannot be downloaded: .*refused.*\. Or download .*help page, and put them into"
    with pytest.raises(HRVError, match=message):
        obtain(dataclasses.replace(entry, vectors=vectors), tmp_path, download=True)


def test_a_cancel_stops_the_download_and_leaves_nothing(web: Web, entry: PublishedHRV, tmp_path: Path) -> None:
    def interrupt(*args: Any, **kwargs: Any) -> None:
        comfy.model_management.interrupt_current_processing(True)

    with progress_hook(interrupt), pytest.raises(comfy.model_management.InterruptProcessingException):
        obtain(entry, tmp_path, download=True)
    assert list(tmp_path.iterdir()) == []
    assert obtain(entry, tmp_path, download=True).concepts == paper_concepts()


class Drip:
    """Answers with some bytes and then with one more and one more without end, until the other side hangs up."""

    def __init__(self, beginning: bytes):
        self.beginning = beginning
        self.dripped, self.hung_up = Event(), Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(self.beginning)
        drops = 0
        with contextlib.suppress(ConnectionError):
            # Slower than the header's longest line would be filled, faster than any patience.
            while not self.hung_up.wait(0.005):
                handler.wfile.write(b"a")
                drops += 1
                if drops == 10:
                    self.dripped.set()
        self.hung_up.set()


@pytest.mark.parametrize(
    "beginning",
    [b"HTTP/1.0 200 O", b"HTTP/1.0 200 OK\r\nX-Slow: ", b"HTTP/1.0 200 OK\r\n\r\n"],
    ids=["status", "headers", "content"],
)
def test_a_server_that_drips_can_be_cancelled(web: Web, entry: PublishedHRV, tmp_path: Path, beginning: bytes) -> None:
    """The one that was found: a header that never ends kept the node, and its cancel, for hours."""
    drip = Drip(beginning)
    web.answers[f"/{entry.vectors.name}"] = drip
    # However much comes, it is not enough.
    entry = dataclasses.replace(entry, vectors=dataclasses.replace(entry.vectors, size=1 << 40))

    def cancel() -> None:
        drip.dripped.wait()
        comfy.model_management.interrupt_current_processing(True)

    canceller = Thread(target=cancel)
    canceller.start()
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            obtain(entry, tmp_path, download=True)
        assert drip.hung_up.wait(30), "the connection stays open"
    finally:
        drip.hung_up.set()
        drip.dripped.set()
        canceller.join()
        comfy.model_management.interrupt_current_processing(False)
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(30)
            assert not thread.is_alive()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_sentence(entry: PublishedHRV, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HRVError, match="Cannot make the folder"):
        obtain(entry, tmp_path / "file" / "folder", download=True)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/a.npy", "data:,a", "a.npy"])
def test_only_web_addresses_are_followed(url: str) -> None:
    with pytest.raises(HRVError, match="only contain http and https addresses"):
        RemoteFile(url, "0" * 64, 1)
