"""One request to a supervisor over its control socket, and the reply."""

import json
import socket
from pathlib import Path
from typing import Any, Final

from forwarder.problems import Problem, ProblemsError

REPLY_TIMEOUT_S: Final = 10.0
CHANGE_TIMEOUT_S: Final = 300.0
"""A change may have to wait for another one, and for many workers to start."""
_CHANGES: Final = ("add", "remove", "resize", "apply")


class RefusedError(ProblemsError):
    """The supervisor refused the request, with everything that it found wrong."""


class UnreachableError(OSError):
    """No reply from a supervisor; the message says where, and what to do."""


def request(path: Path, command: str, **fields: Any) -> Any:
    """The result of one command; raises :class:`RefusedError` or :class:`UnreachableError`."""
    changes = command in _CHANGES
    timeout_s = CHANGE_TIMEOUT_S if changes else REPLY_TIMEOUT_S
    line = json.dumps({"command": command, **fields}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(timeout_s)
            client.connect(str(path))
            client.sendall(line)
            with client.makefile("rb") as stream:
                received = stream.readline()
    except FileNotFoundError as error:
        raise UnreachableError(f"no control socket at {path}: is a supervisor running with it?") from error
    except ConnectionRefusedError as error:
        if not path.is_socket():
            raise UnreachableError(f"{path} is no control socket") from error
        raise UnreachableError(f"nobody answers at {path}: the supervisor is gone") from error
    except TimeoutError as error:
        later = (
            ", and what was asked may still be done: look before you ask again"
            if changes
            else ": it may be starting, which takes half a minute the first time"
        )
        raise UnreachableError(f"no answer at {path} in {timeout_s:g} s{later}") from error
    except OSError as error:
        raise UnreachableError(f"no answer at {path}: {error}") from error
    if not received:
        raise UnreachableError(f"the supervisor at {path} closed the connection without an answer")
    reply = json.loads(received)
    if not reply["ok"]:
        raise RefusedError([Problem(**problem) for problem in reply["errors"]])
    return reply["result"]
