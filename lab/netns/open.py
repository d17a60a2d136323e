"""Make a network namespace, or open sockets in one and hand them over. Run by path, never imported.

    python -I -S open.py create NAMESPACE
    python -I -S open.py sockets NAMESPACE FAMILY PROTOCOL COUNT DESCRIPTOR

``create`` names the namespace as ``ip netns add`` does: a file in /run/netns on which it is mounted.
``sockets`` opens raw sockets inside, of the family and protocol with these numbers, and sends them through
the Unix socket ``DESCRIPTOR`` (SCM_RIGHTS). A program of its own rather than a fork of the lab: a fork shares
the lab's event queues and signal handlers, and what it does with them on its way out happens to the lab. Only
the standard library, and little of it. Exit status 1 with one line on stderr when it cannot be done.
"""

import ctypes
import fcntl
import os
import socket
import sys

CLONE_NEWNET = 0x40000000
MS_BIND = 1 << 12
MS_REC = 1 << 14
MS_SHARED = 1 << 20
DIRECTORY = "/run/netns"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _share_directory() -> None:
    """A namespace mounted in the directory must show, and go, in every mount namespace made before or after.

    Locked, as iproute2 does: two that mount the directory on itself at once would hide each other's names.
    """
    os.makedirs(DIRECTORY, mode=0o755, exist_ok=True)  # noqa: PTH103 (pathlib takes longer to import than all this)
    descriptor = os.open(DIRECTORY, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path = DIRECTORY.encode()
        if _libc.mount(b"", path, b"none", MS_SHARED | MS_REC, None) < 0:
            _check(_libc.mount(path, path, b"none", MS_BIND | MS_REC, None), f"mount {DIRECTORY}")
            _check(_libc.mount(b"", path, b"none", MS_SHARED | MS_REC, None), f"share {DIRECTORY}")
    finally:
        os.close(descriptor)


def create(namespace: str) -> None:
    _share_directory()
    path = f"{DIRECTORY}/{namespace}"
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    try:
        _check(_libc.unshare(CLONE_NEWNET), "unshare")
        _check(_libc.mount(b"/proc/self/ns/net", path.encode(), b"none", MS_BIND, None), f"mount {path}")
    except OSError:
        os.unlink(path)  # noqa: PTH108
        raise


def hand_over(namespace: str, family: int, protocol: int, count: int, descriptor: int) -> None:
    inside = os.open(f"{DIRECTORY}/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    _check(_libc.setns(inside, CLONE_NEWNET), "setns")
    opened = [socket.socket(family, socket.SOCK_RAW, protocol) for _ in range(count)]
    with socket.socket(fileno=descriptor) as lab:
        socket.send_fds(lab, [b"sockets"], [each.fileno() for each in opened])


def main(arguments: list[str]) -> int:
    try:
        match arguments:
            case ["create", namespace]:
                create(namespace)
            case ["sockets", namespace, family, protocol, count, descriptor]:
                hand_over(namespace, int(family), int(protocol), int(count), int(descriptor))
            case _:
                print(
                    "usage: open.py create NAMESPACE | sockets NAMESPACE FAMILY PROTOCOL COUNT DESCRIPTOR",
                    file=sys.stderr,
                )
                return 1
    except OSError as error:
        print(error.strerror, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
