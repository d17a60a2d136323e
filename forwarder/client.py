"""Asking a supervisor: one request over its control socket, one answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from forwarder.problems import Problem, ProblemsError


class RefusedError(ProblemsError):
    """The supervisor would not do what it was asked."""


class UnreachableError(OSError):
    """No supervisor answers; the message says where it was looked for, and what to do."""


def ask(path: Path, command: str, *, timeout_s: float = 10.0, **fields: Any) -> Any:
    """The result of one command.

    Raises:
        RefusedError: with everything that the supervisor found wrong.
        UnreachableError: nobody answers at ``path``.
    """
    request = json.dumps({"command": command, **fields}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(request)
            with client.makefile("rb") as stream:
                line = stream.readline()
    except FileNotFoundError as error:
        raise UnreachableError(f"no control socket at {path}: is a supervisor running with it?") from error
    except ConnectionRefusedError as error:
        raise UnreachableError(f"nobody answers at {path}: the supervisor is gone") from error
    except OSError as error:
        raise UnreachableError(f"no answer at {path}: {error}") from error
    if not line:
        raise UnreachableError(f"the supervisor at {path} closed the connection without an answer")
    answer = json.loads(line)
    if not answer["ok"]:
        raise RefusedError([Problem(**problem) for problem in answer["errors"]])
    return answer["result"]
