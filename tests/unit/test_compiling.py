"""What workers run is compiled by a process of its own, once."""

from __future__ import annotations

import asyncio
import os
import select
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forwarder import compiling
from forwarder.abi import jit


def started(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.fixture
def incomplete(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache that nothing is known of."""
    monkeypatch.setattr(jit, "COMPLETE", tmp_path / "complete")
    return tmp_path / "complete"


@pytest.mark.timeout(300)
def test_a_process_of_its_own_compiles_and_says_so() -> None:
    jit.COMPLETE.unlink(missing_ok=True)
    before = started(os.getpid())
    asyncio.run(compiling.compile_apart())
    assert jit.COMPLETE.exists()
    assert started(os.getpid()) <= before


def test_what_was_compiled_before_is_not_again(incomplete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python, ran = incomplete.with_name("python"), incomplete.with_name("ran")
    python.write_text(f"#!/bin/sh\ntouch {shlex.quote(str(ran))}\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    incomplete.touch()
    asyncio.run(compiling.compile_apart())
    assert not ran.exists()
    incomplete.unlink()
    asyncio.run(compiling.compile_apart())
    assert ran.exists()


@pytest.mark.usefixtures("incomplete")
def test_where_no_process_can_be_had_it_is_left_to_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    asyncio.run(compiling.compile_apart())


def test_what_is_known_of_a_cache_is_known_of_its_sources_and_of_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = jit._whole()
    assert jit._whole() == before
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        jit.Path, "read_bytes", lambda path: read_bytes(path) + (b"#" if path.name == "worker.py" else b"")
    )
    assert jit._whole() != before
    monkeypatch.undo()
    monkeypatch.setattr(jit.Path, "absolute", lambda path: Path(f"/elsewhere{path}"))
    monkeypatch.setattr(jit.Path, "read_bytes", lambda _: b"")
    elsewhere = jit._whole()
    monkeypatch.setattr(jit.Path, "absolute", lambda path: path)
    assert jit._whole() != elsewhere


def test_a_cache_that_cannot_be_written_is_left_to_who_needs_it(
    incomplete: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "COMPLETE", incomplete / "no directory" / "complete")
    incomplete.touch()
    assert not compiling._can_be_told()
    monkeypatch.setattr(jit, "COMPLETE", incomplete.parent / "made" / "now" / "complete")
    assert compiling._can_be_told()


def test_who_is_stopped_meanwhile_ends_it(incomplete: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = incomplete.with_name("python")
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(python))
    before = started(os.getpid())

    async def stopped() -> None:
        compiled = asyncio.create_task(compiling.compile_apart())
        while not started(os.getpid()) - before and not compiled.done():
            await asyncio.sleep(0.001)
        compiled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compiled

    began = time.monotonic()
    asyncio.run(stopped())
    assert started(os.getpid()) <= before
    assert time.monotonic() - began < 30


def test_a_process_ends_with_who_started_it() -> None:
    own = "import os, sys, time; from forwarder.process import die_with; die_with(int(sys.argv[1]))"
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
