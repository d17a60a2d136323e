"""``mcrctl`` without a supervisor: what it can know of itself, and what it says of nobody's answering."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forwarder.cli.mcrctl import app
from forwarder.control import client


def test_a_path_that_is_no_socket_a_socket_of_nobody_and_no_path_are_told_apart(tmp_path: Path) -> None:
    left_behind = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left_behind))
    for path, told in (
        (tmp_path, "is no control socket"),
        (left_behind, "the supervisor is gone"),
        (tmp_path / "none.sock", "is a supervisor running with it?"),
    ):
        with pytest.raises(client.UnreachableError, match=told):
            client.request(path, "ping")


def test_a_supervisor_that_does_not_answer_is_told_and_that_a_change_may_still_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "REPLY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(client, "CHANGE_TIMEOUT_S", 0.02)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path := tmp_path / "silent.sock"))
        silent.listen()
        with pytest.raises(client.UnreachableError, match=r"silent\.sock in 0\.01 s: it may be starting"):
            client.request(path, "ping")
        with pytest.raises(
            client.UnreachableError, match=r"in 0\.02 s, and what was asked may still be done"
        ):
            client.request(path, "resize", group=0, workers=2)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("stats --json --prometheus", "error: --prometheus: given; allowed: left out, as --json is there"),
        ("apply /nowhere/mcrd.toml", "error: FILE: /nowhere/mcrd.toml; allowed: a readable file"),
    ],
)
def test_what_needs_no_supervisor_to_be_wrong_is_refused_first(arguments: str, told: str) -> None:
    result = CliRunner().invoke(app, ["--socket-path", "/nowhere/mcrd.sock", *arguments.split()])
    assert result.exit_code == 2
    assert told in result.stderr
