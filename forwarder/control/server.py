"""The control socket: newline-delimited JSON over a Unix socket, one reply to each request.

Requests are in :mod:`forwarder.control.requests`. A reply is ``{"ok": true, "result": …}`` or
``{"ok": false, "errors": [{"field", "value", "allowed"}]}``. Each connection has its own task: a client that
is silent, or does not read its replies, does not delay others.
"""

import asyncio
import errno
import json
import os
import socket
import stat
import struct
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from forwarder.control import requests
from forwarder.control import statistics as stats
from forwarder.control.requests import Request, RequestError, parse
from forwarder.plan.host import HostError
from forwarder.plan.rendering import plan_as_json, plan_as_text
from forwarder.problems import Problem, ProblemsError, shown
from forwarder.rules.notation import parse_rules
from forwarder.supervisor.reconfigure import Reconfiguration
from forwarder.supervisor.rule_changes import Timing
from forwarder.supervisor.supervisor import Supervisor
from forwarder.workers.handle import State

BACKLOG: Final = 512
LINE_BYTES: Final = 16 * 1024 * 1024
"""The longest request: room for some 50,000 rules."""
_SO_PEERCRED: Final = 17
_UCRED: Final = struct.Struct("=iII")
"""pid, uid, gid"""


class SocketPathError(ProblemsError):
    """The control socket cannot be made at this path."""

    def __init__(self, path: Path, why: object) -> None:
        allowed = f"a path in a directory that can be written, of a socket or of nothing yet: {why}"
        super().__init__([Problem("--control-socket-path", shown(str(path)), allowed)])


async def serve(supervisor: Supervisor, path: Path, reconfiguration: Reconfiguration) -> asyncio.Server:
    """Listen at ``path``, mode 0600; a socket left behind by a supervisor that is gone is replaced.

    Raises OSError: another supervisor serves it; SocketPathError: no socket can be made there.
    """
    _remove_stale_socket(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)  # before anything else: programs wait for the file to appear
    except OSError as error:
        sock.close()
        raise SocketPathError(path, error.strerror or error) from error
    finally:
        os.umask(before)
    return await asyncio.start_unix_server(
        lambda reader, writer: _serve_connection(supervisor, reconfiguration, reader, writer),
        sock=sock,
        limit=LINE_BYTES,
        backlog=BACKLOG,
    )


def _remove_stale_socket(path: Path) -> None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketPathError(path, error.strerror) from error
    if not stat.S_ISSOCK(mode):
        raise SocketPathError(path, "it exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except OSError as error:  # AF_UNIX path too long
            raise SocketPathError(path, error) from error
    raise OSError(errno.EADDRINUSE, f"a supervisor answers at {path} already")


async def _serve_connection(
    supervisor: Supervisor,
    reconfiguration: Reconfiguration,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    async def send(line: bytes) -> None:
        writer.write(line)
        await writer.drain()

    with suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
        try:
            if not (allowed := _allowed(writer)):
                await send(_refusal([Problem("peer", "another user", "the supervisor's own user, or root")]))
            while allowed:
                if (line := await reader.readuntil(b"\n")).strip():
                    await send(await reply(supervisor, reconfiguration, line))
        except asyncio.LimitOverrunError:
            problem = Problem("request", f"more than {LINE_BYTES:,} bytes", "one line, shorter")
            await send(_refusal([problem]))
    with suppress(ConnectionError):
        writer.close()


def _allowed(writer: asyncio.StreamWriter) -> bool:
    """Whether the peer is the supervisor's own user or root; the file's mode keeps others out as well."""
    sock = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(raw)[1] in (0, os.geteuid())


async def reply(supervisor: Supervisor, reconfiguration: Reconfiguration, line: bytes) -> bytes:
    try:
        result = await _perform(supervisor, reconfiguration, parse(line))
    except ProblemsError as error:
        return _refusal(error.problems)
    except HostError as error:
        allowed = f"a machine that can be read; nothing was changed: {error}"
        return _refusal([Problem("machine", "as it is now", allowed)])
    except Exception as error:
        traceback.print_exc()
        said = f"this is a fault of mcrd, which has logged it: {type(error).__name__}: {error}"
        return _refusal([Problem("request", shown(line[:200]), said)])
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


def _refusal(problems: Iterable[Problem]) -> bytes:
    return json.dumps({"ok": False, "errors": [asdict(problem) for problem in problems]}).encode() + b"\n"


async def _perform(supervisor: Supervisor, reconfiguration: Reconfiguration, request: Request) -> Any:
    match request:
        case requests.Add():
            wanted, began_ns = parse_rules(request.rules), time.monotonic_ns()
            await supervisor.rules.add(wanted)
            took_ns = time.monotonic_ns() - began_ns
            added = [stats.condition(supervisor, rule) for rule in wanted]
            return {"in_force_after_ns": took_ns, "added": added}
        case requests.Remove():
            await supervisor.rules.remove(request.rule_id)
            return {"removed": request.rule_id}
        case requests.WithoutFields(command="list"):
            rules = [rule.model_dump(mode="json") for rule in supervisor.state.book]
            found = stats.rules(supervisor)
            timing = {one["rule_id"]: {name: one[name] for name in Timing._fields} for one in found}
            engines = {
                one["rule_id"]: {name: one[name] for name in ("engine", "engine_reason")} for one in found
            }
            return {"rules": rules, "timing": timing, "engines": engines}
        case requests.Stats(format="prometheus"):
            return stats.exposition(stats.collect(supervisor))
        case requests.Stats():
            return stats.collect(supervisor, with_rules=request.rules)
        case requests.WithoutFields(command="list-workers"):
            workers, distribution = stats.worker_list(supervisor), stats.distributions(supervisor)
            return {"workers": workers, "distribution": distribution}
        case requests.ShowPlan():
            plan = supervisor.live_plan()
            return plan_as_text(plan) if request.format == "text" else plan_as_json(plan)
        case requests.Resize():
            return await _resize(supervisor, request.group, request.workers)
        case requests.Apply():
            return await reconfiguration.apply(request.config, dry_run=request.dry_run)
        case requests.WithoutFields(command="ping"):
            running = sum(handle.state is not State.PARKED for handle in supervisor.state.pool.workers)
            return {"pid": os.getpid(), "workers": running, "rules": len(supervisor.state.book)}
        case requests.WithoutFields(command="shutdown"):
            supervisor.state.stopping.set()
            return {"stopping": True}


async def _resize(supervisor: Supervisor, group: int, workers: int) -> dict[str, Any]:
    scaler = supervisor.autoscaler
    if problems := scaler.problems(group, workers):
        raise RequestError(problems)
    before, began = len(scaler.members(group)), time.monotonic_ns()
    try:
        await scaler.resize(group, workers, "asked for")
    except OSError as error:
        now = len(scaler.members(group)) if group in scaler.groups else before
        outcome = "is unchanged" if now == before else f"has {now}"
        allowed = f"as many as this machine has room for; the group {outcome}: {error}"
        raise RequestError([Problem("workers", str(workers), allowed)]) from error
    return {"group": group, "before": before, "after": workers, "took_ns": time.monotonic_ns() - began}
