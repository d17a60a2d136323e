"""Enter a network namespace, then become another program. Run by path; who has forked calls its functions.

    python -I -S enter.py NAMESPACE PARENT_PID CPUS -- PROGRAM [ARGUMENT…]

``PARENT_PID`` is the process to die with (0: outlive it), ``CPUS`` a comma-separated list of CPUs to run on
(``-``: all). It does what ``ip netns exec`` does: the network namespace, and a mount namespace of its own
whose ``/sys`` shows that network namespace's interfaces. The program replaces this process, so its pid is the
one that the lab got from ``Popen``. Only the standard library, and little of it: this runs before every
process of a trial. Exit status 126 with one line on stderr when the namespace cannot be entered, 127 when the
program cannot be started.

Python 3.11 has no ``os.setns`` (it came with 3.12), hence libc through ctypes.
"""

import ctypes
import os
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_REC = 0x4000
MS_SLAVE = 1 << 19
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
NETNS_DIRECTORY = "/run/netns"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter(namespace: str) -> None:
    """Move this process into ``namespace``, with a ``/sys`` that shows it."""
    descriptor = os.open(f"{NETNS_DIRECTORY}/{namespace}", os.O_RDONLY | os.O_CLOEXEC)
    _check(_libc.setns(descriptor, CLONE_NEWNET), "setns")
    os.close(descriptor)
    _check(_libc.unshare(CLONE_NEWNS), "unshare the mount namespace")
    # Slave: our mounts stay here, the host's later unmounts still reach us (a namespace can be removed).
    _check(_libc.mount(b"", b"/", b"none", MS_SLAVE | MS_REC, None), "make / a slave mount")
    _libc.umount2(b"/sys", MNT_DETACH)
    _check(_libc.mount(namespace.encode(), b"/sys", b"sysfs", 0, None), "mount /sys")


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread of ``parent`` that started it ends (prctl(2))."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
    if os.getppid() != parent:
        raise SystemExit(f"the parent process {parent} has gone")


def main(arguments: list[str]) -> None:
    namespace, parent, cpus, separator, *program = arguments
    if separator != "--" or not program:
        raise SystemExit("usage: enter.py NAMESPACE PARENT_PID CPUS -- PROGRAM [ARGUMENT...]")
    try:
        if int(parent):
            die_with(int(parent))
        enter(namespace)
        if cpus != "-":
            os.sched_setaffinity(0, {int(cpu) for cpu in cpus.split(",")})
    except OSError as error:
        print(f"cannot enter network namespace {namespace}: {error}", file=sys.stderr)
        raise SystemExit(126) from error
    try:
        os.execvp(program[0], program)
    except OSError as error:
        print(f"cannot start {program[0]}: {error}", file=sys.stderr)
        raise SystemExit(127) from error


if __name__ == "__main__":
    main(sys.argv[1:])
