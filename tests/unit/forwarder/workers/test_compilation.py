"""What workers run is compiled by a process of its own, once."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from process_support import children

from forwarder.abi import jit
from forwarder.workers import compilation


@pytest.fixture
def incomplete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that nothing is known of."""
    marker = tmp_path / "complete"
    monkeypatch.setattr(jit, "complete_marker", lambda: marker)
    return marker


@pytest.fixture
def python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of the interpreter: the first line of a script."""
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(script))
    return script


@pytest.mark.timeout(300)
def test_a_process_of_its_own_compiles_and_says_so() -> None:
    jit.complete_marker().unlink(missing_ok=True)
    before = children(os.getpid())
    asyncio.run(compilation.compile_apart())
    assert jit.complete_marker().exists()
    assert children(os.getpid()) <= before


def test_what_was_compiled_before_is_not_again(incomplete: Path, python: Path) -> None:
    ran = python.with_name("ran")
    with python.open("a") as script:
        script.write(f"touch {shlex.quote(str(ran))}\n")
    incomplete.touch()
    asyncio.run(compilation.compile_apart())
    assert not ran.exists()
    incomplete.unlink()
    asyncio.run(compilation.compile_apart())
    assert ran.exists()


def test_where_no_process_can_be_had_it_is_left_to_who_needs_it(
    monkeypatch: pytest.MonkeyPatch, incomplete: Path
) -> None:
    tried = list[object]()

    def refused(command: list[str], **_: object) -> None:
        tried.append(command[-2:])
        raise OSError(errno.EAGAIN, "no process to be had")

    monkeypatch.setattr(subprocess, "Popen", refused)
    asyncio.run(compilation.compile_apart())
    assert tried == [["forwarder.workers.compilation", str(os.getpid())]]
    assert not incomplete.exists(), "so whoever needs the code compiles it"


def test_what_is_known_of_a_cache_is_known_of_its_sources_and_of_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = jit.complete_marker()
    assert jit.complete_marker() == before
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        jit.Path,
        "read_bytes",
        lambda path: read_bytes(path) + b"#" * (path.name == "entry_point.py"),
    )
    assert jit.complete_marker() != before
    monkeypatch.undo()
    monkeypatch.setattr(jit.Path, "absolute", lambda path: Path(f"/elsewhere{path}"))
    monkeypatch.setattr(jit.Path, "read_bytes", lambda _: b"")
    elsewhere = jit.complete_marker()
    monkeypatch.setattr(jit.Path, "absolute", lambda path: path)
    assert jit.complete_marker() != elsewhere


def test_a_cache_is_a_directory_that_can_be_written_and_is_made_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert not compilation._can_be_written(tmp_path / "file" / "in it")
    assert compilation._can_be_written(tmp_path / "made" / "now")


@pytest.mark.usefixtures("incomplete")
def test_who_is_stopped_meanwhile_ends_it(python: Path) -> None:
    with python.open("a") as script:
        script.write("exec sleep 60\n")
    before = children(os.getpid())

    async def stopped() -> None:
        compiled = asyncio.create_task(compilation.compile_apart())
        while not children(os.getpid()) - before and not compiled.done():
            await asyncio.sleep(0.001)
        compiled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compiled

    began = time.monotonic()
    asyncio.run(stopped())
    assert children(os.getpid()) <= before
    assert time.monotonic() - began < 30


def test_a_process_ends_with_who_started_it() -> None:
    own = "import os, sys, time; from forwarder.abi.libc import die_with; die_with(int(sys.argv[1]))"
    script = (
        "import os, subprocess, sys\n"
        f"own = {own!r} + '; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "subprocess.Popen([sys.executable, '-c', own, str(os.getpid())])\n"
        "sys.stdin.readline()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script], stdin=pipe, stdout=pipe, text=True) as parent:
        assert parent.stdout
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([child], [], [], 20)  # readable when it has ended (pidfd_open(2))
    os.close(child)
    assert ended
    orphan = subprocess.run([sys.executable, "-c", own, "-1"], check=False)
    assert orphan.returncode == 1, "its parent had ended before it could ask"
