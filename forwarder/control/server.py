"""The control socket: newline-delimited JSON over a Unix socket, one answer for every request.

A request is ``{"command": NAME, …}``; an answer ``{"ok": true, "result": …}`` or ``{"ok": false, "errors":
[{"field", "value", "allowed"}]}``. Every connection is served by itself, so that a client that says nothing,
or does not read its answers, holds up nobody else.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import struct
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from forwarder.control import statistics as stats
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


class RequestError(ProblemsError):
    """A request that cannot be carried out."""


class SocketInUseError(OSError):
    """Somebody answers at the control socket's path."""


class SocketPathError(ProblemsError):
    """There can be no control socket at its path."""

    def __init__(self, path: Path, why: object) -> None:
        allowed = f"a path in a directory that can be written, of a socket or of nothing yet: {why}"
        super().__init__([Problem("--control-socket-path", shown(str(path)), allowed)])


async def serve(supervisor: Supervisor, path: Path, reconfiguration: Reconfiguration) -> asyncio.Server:
    """Listen at ``path``, mode 0600, in place of a socket that nobody answers at any more.

    Raises:
        SocketInUseError: another supervisor answers there.
        SocketPathError: there can be no socket.
    """
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)  # at once: there are programs that wait for the file
    except OSError as error:
        sock.close()
        raise SocketPathError(path, error.strerror or error) from error
    finally:
        os.umask(before)
    return await asyncio.start_unix_server(
        lambda reader, writer: _converse(supervisor, reconfiguration, reader, writer),
        sock=sock,
        limit=LINE_BYTES,
        backlog=BACKLOG,
    )


def _make_way(path: Path) -> None:
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
    raise SocketInUseError(98, f"a supervisor answers at {path} already")


async def _converse(
    supervisor: Supervisor,
    reconfiguration: Reconfiguration,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    with suppress(ConnectionError, asyncio.CancelledError):
        if _allowed(writer):
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except asyncio.IncompleteReadError:
                    break
                except asyncio.LimitOverrunError:
                    problem = Problem("request", f"more than {LINE_BYTES:,} bytes", "one line, shorter")
                    writer.write(_refusal([problem]))
                    await writer.drain()
                    break
                if line.strip():
                    writer.write(await answer(supervisor, reconfiguration, line))
                    await writer.drain()
        else:
            problem = Problem("peer", "another user", "the supervisor's own user, or root")
            writer.write(_refusal([problem]))
            await writer.drain()
    with suppress(ConnectionError):
        writer.close()


def _allowed(writer: asyncio.StreamWriter) -> bool:
    """Only the supervisor's own user, and root: the file's mode says so, and the peer's credentials."""
    sock = writer.get_extra_info("socket")
    raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _UCRED.size)
    return _UCRED.unpack(raw)[1] in (0, os.geteuid())


async def answer(supervisor: Supervisor, reconfiguration: Reconfiguration, line: bytes) -> bytes:
    """The answer to one request line."""
    try:
        request = _parse(line)
        name = request["command"]
        command, takes = _COMMANDS[name] if name != "apply" else (_applier(reconfiguration), _APPLY)
        unknown = [name for name in request if name != "command" and name not in takes]
        if unknown:
            raise RequestError(
                [
                    Problem(name, shown(request[name]), f"no such field: {', '.join(takes) or 'none'} here")
                    for name in unknown
                ]
            )
        result = await command(supervisor, request)
    except ProblemsError as error:
        return _refusal(error.problems)
    except HostError as error:
        return _refusal(
            [Problem("machine", "as it is now", f"one that can be read; all is as it was: {error}")]
        )
    except Exception as error:
        traceback.print_exc()
        said = f"this is a fault of mcrd, which has logged it: {type(error).__name__}: {error}"
        return _refusal([Problem("request", shown(line[:200]), said)])
    return json.dumps({"ok": True, "result": result}).encode() + b"\n"


def _refusal(problems: Any) -> bytes:
    errors = [
        {"field": problem.field, "value": problem.value, "allowed": problem.allowed} for problem in problems
    ]
    return json.dumps({"ok": False, "errors": errors}).encode() + b"\n"


def _parse(line: bytes) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError([Problem("request", shown(line[:200]), f"one line of JSON ({error})")]) from error
    if not isinstance(request, dict):
        raise RequestError([Problem("request", shown(request), "a JSON object")])
    if not isinstance(request.get("command"), str) or request["command"] not in (*_COMMANDS, "apply"):
        value = shown(request["command"]) if "command" in request else "(missing)"
        raise RequestError([Problem("command", value, f"one of {', '.join((*_COMMANDS, 'apply'))}")])
    return request


async def _add(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    rules = parse_rules({name: value for name, value in request.items() if name == "rules"})
    began = time.monotonic_ns()
    await supervisor.rules.add(rules)
    return {
        "in_force_after_ns": time.monotonic_ns() - began,
        "added": [
            {"rule_id": rule.rule_id, "state": "waiting" if reason else "running", "reason": reason}
            for rule in rules
            for reason in [supervisor.interfaces.trouble(rule)]
        ],
    }


async def _remove(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    rule_id = request.get("rule_id")
    if not isinstance(rule_id, str):
        raise RequestError([Problem("rule_id", shown(rule_id), "the id of a rule in force")])
    await supervisor.rules.remove(rule_id)
    return {"removed": rule_id}


async def _list(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    del request
    timing = {
        entry["rule_id"]: {name: entry[name] for name in Timing._fields} for entry in stats.rules(supervisor)
    }
    return {"rules": [rule.model_dump(mode="json") for rule in supervisor.state.book], "timing": timing}


async def _stats(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    form = request.get("format", "json")
    if form not in ("json", "prometheus"):
        raise RequestError([Problem("format", shown(form), "json or prometheus")])
    with_rules = request.get("rules", True)
    if not isinstance(with_rules, bool):
        raise RequestError([Problem("rules", shown(with_rules), "true or false")])
    found = stats.collect(supervisor, with_rules=with_rules or form == "prometheus")
    return found if form == "json" else stats.exposition(found)


async def _list_workers(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    del request
    return {"workers": stats.worker_list(supervisor), "distribution": stats.distributions(supervisor)}


async def _plan(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    form = request.get("format", "json")
    if form not in ("json", "text"):
        raise RequestError([Problem("format", shown(form), "json or text")])
    found = supervisor.live_plan()
    return plan_as_json(found) if form == "json" else plan_as_text(found)


async def _resize(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    group, workers = request.get("group"), request.get("workers")
    problems = supervisor.autoscaler.problems(group, workers)
    if problems:
        raise RequestError(problems)
    assert isinstance(group, int)
    assert isinstance(workers, int)
    before, began = len(supervisor.autoscaler.members(group)), time.monotonic_ns()
    try:
        await supervisor.autoscaler.resize(group, workers, "asked for")
    except OSError as error:
        now = len(supervisor.autoscaler.members(group)) if group in supervisor.autoscaler.groups else before
        outcome = "is as it was" if now == before else f"has {now}"
        allowed = f"as many as this machine has room for; the group {outcome}: {error}"
        raise RequestError([Problem("workers", str(workers), allowed)]) from error
    return {"group": group, "before": before, "after": workers, "took_ns": time.monotonic_ns() - began}


def _applier(reconfiguration: Reconfiguration) -> _Command:
    async def apply(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
        del supervisor
        config, dry_run = request.get("config"), request.get("dry_run", False)
        if not isinstance(config, dict):
            raise RequestError([Problem("config", shown(config), "a table of options")])
        if not isinstance(dry_run, bool):
            raise RequestError([Problem("dry_run", shown(dry_run), "true or false")])
        return await reconfiguration.apply(config, dry_run=dry_run)

    return apply


async def _ping(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    del request
    return {
        "pid": os.getpid(),
        "workers": sum(handle.state is not State.PARKED for handle in supervisor.state.pool.workers),
        "rules": len(supervisor.state.book),
    }


async def _shutdown(supervisor: Supervisor, request: Mapping[str, Any]) -> Any:
    del request
    supervisor.state.stopping.set()
    return {"stopping": True}


_Command = Callable[[Supervisor, Mapping[str, Any]], Awaitable[Any]]
_APPLY: Final = ("config", "dry_run")
_COMMANDS: Final[dict[str, tuple[_Command, tuple[str, ...]]]] = {
    "add": (_add, ("rules",)),
    "remove": (_remove, ("rule_id",)),
    "list": (_list, ()),
    "stats": (_stats, ("format", "rules")),
    "list-workers": (_list_workers, ()),
    "plan": (_plan, ("format",)),
    "resize": (_resize, ("group", "workers")),
    "ping": (_ping, ()),
    "shutdown": (_shutdown, ()),
}
