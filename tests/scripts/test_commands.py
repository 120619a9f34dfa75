"""What people read when a tool that the launcher runs fails."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from launcher.commands import explain, run_tool
from launcher.errors import LauncherError


def test_output_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    run_tool("greet", [sys.executable, "-c", "print('hello')"])
    assert capsys.readouterr().out == "    hello\n"


def test_failure_names_the_purpose_under_what_the_tool_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(LauncherError, match=r"^Could not count: the tool failed"):
        run_tool("count", [sys.executable, "-c", "raise SystemExit('the reason')"])
    assert "the reason" in capsys.readouterr().out


def test_missing_tool_is_a_failure_too(tmp_path: Path) -> None:
    with pytest.raises(LauncherError, match=r"Could not start it: .*nothing"):
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
    assert reason in str(explain("install it", ["first", line, "last"]))


def test_a_closed_network_is_recognised_by_what_pip_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("PIP_RETRIES", "1")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(tmp_path), "pip==24.0"]
    with pytest.raises(LauncherError, match="package index cannot be reached"):
        run_tool("download it", [*command, "--index-url", "https://pypi.org/simple"])
