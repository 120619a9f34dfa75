"""What people read when a tool that the launcher runs fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launcher.commands import explain, run_tool
from launcher.errors import LauncherError


def test_output_is_shown_and_success_is_silent_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    run_tool("greet", [sys.executable, "-c", "print('hello')"])
    assert capsys.readouterr().out == "    hello\n"


def test_failure_says_the_purpose_and_the_last_lines() -> None:
    program = "for i in range(100): print('line', i)\nraise SystemExit('reason')"
    with pytest.raises(LauncherError) as caught:
        run_tool("count", [sys.executable, "-u", "-c", program])
    message = str(caught.value)
    assert message.startswith("Could not count: the tool failed.")
    assert "reason" in message
    assert "line 99" in message
    assert "line 1\n" not in message


def test_missing_tool_is_a_failure_too(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match="Could not start it"):
        run_tool("start it", [tmp_path / "nothing"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk is full",
        ),
        ("error: failed to write: There is not enough space on the disk. (os error 112)", "disk is full"),
        (
            "NewConnectionError: Failed to establish a new connection: [Errno 111] Connection refused",
            "reached",
        ),
        ("  Caused by: dns error: failed to lookup address information", "cannot be reached"),
        ("ProxyError('Cannot connect to proxy.', NewConnectionError(...))", "cannot be reached"),
        ("ERROR: No matching distribution found for nothing==1", "the tool failed"),
    ],
)
def test_known_reasons_are_named(line: str, reason: str) -> None:
    error = str(explain("install it", ["first", line, "last"]))
    assert reason in error
    assert line in error


def test_a_closed_network_is_recognised_by_what_pip_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "1")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), "pip==24.0"]
    with pytest.raises(LauncherError, match="package index cannot be reached"):
        run_tool("download it", [*command, "--index-url", "https://pypi.org/simple"])
