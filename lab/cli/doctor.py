"""What this machine can and cannot do for the lab, and how to get what is missing.

Each check tries the thing itself, in a throw-away namespace or a child process, instead of guessing from
versions. A *needed* check that fails stops a run; an *optional* one is only noted. What bends figures here is
noted with them, and stops nothing.
"""

import os
import platform
import re
import resource
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.journal.provenance import sysctl
from lab.measure.conditions import Condition, conditions
from lab.netns import namespaces as netns
from lab.netns.netlink import Netlink
from lab.peers import PEERS
from lab.peers.base import Located, Peer

CHILD_TIMEOUT_S = 60
OLDEST_KERNEL = (6, 6)
NEEDED_BYTES = 3 << 30
"""Eight benches at 300 MB, the lab itself, and the capture rings of one trial."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. ``remedy`` says how to get what is missing; empty when nothing is."""

    check: str
    ok: bool
    needed: bool
    found: str
    remedy: str = ""
    doubt: str = ""
    """What it does to figures; a run is marked with it."""


@dataclass(frozen=True)
class Checkup:
    name: str
    probe: Callable[[], str]
    """Returns what was found; raises when it is missing, with the reason as the message."""
    remedy: str
    needed: bool = True


def examine() -> list[Finding]:
    """Every check, in order; none stops the next."""
    return [*map(check, CHECKUPS), *map(judged, conditions())]


def judged(condition: Condition) -> Finding:
    """A condition that bends figures as a finding; none of them is needed."""
    doubt = condition.doubt
    ok, remedy = doubt is None, "" if doubt is None else condition.remedy
    return Finding(condition.name, ok, False, doubt or condition.found, remedy, doubt or "")


def report_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each finding, and one below it that says what to do when something is missing."""
    width = max(len(finding.check) for finding in findings)
    for finding in findings:
        bad = "MISSING" if finding.needed else "bends" if finding.doubt else "absent"
        mark = "ok" if finding.ok else bad
        yield f"{mark:8} {finding.check:{width}}  {finding.found}"
        if finding.remedy:
            yield f"{'':8} {'':{width}}  → {finding.remedy}"
    missing = [finding.check for finding in findings if finding.needed and not finding.ok]
    bent = sum(bool(finding.doubt) for finding in findings)
    marked = f"; {bent} that bend figures (runs are marked with them)" if bent else ""
    ready = "ready: all that a run needs is here"
    yield (f"not ready: {', '.join(missing)} missing" if missing else ready) + marked


def check(checkup: Checkup) -> Finding:
    try:
        found = checkup.probe()
    except Exception as error:  # a check that fails in any way is a finding, not a crash
        reason = str(error) or type(error).__name__
        return Finding(checkup.name, False, checkup.needed, reason, checkup.remedy)
    return Finding(checkup.name, True, checkup.needed, found)


def _system() -> str:
    found = f"Linux {platform.release()} on {platform.machine()}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
    if platform.machine() != "x86_64" or numbers < OLDEST_KERNEL:
        raise RuntimeError(found)
    return found


def _root() -> str:
    if os.geteuid():
        raise RuntimeError(f"effective user id {os.geteuid()}")
    return "user id 0"


def _cpus() -> str:
    usable = len(os.sched_getaffinity(0))
    if usable < 2:
        raise RuntimeError(f"{usable} usable CPU: generator and forwarder would share it")
    return f"{usable} usable CPUs"


def _memory() -> str:
    (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if "MemAvailable" in line)
    available = int(line.split()[1]) << 10
    if available < NEEDED_BYTES:
        raise RuntimeError(f"{available >> 20:,} MiB available")
    return f"{available >> 20:,} MiB available"


_space = partial(netns.namespace, "doctor")


@contextmanager
def _pair() -> Iterator[str]:
    """A namespace with the two ends of a veth, up."""
    with _space() as name, Netlink(name) as netlink:
        netlink.add_veth({"ifname": "d0"}, {"ifname": "d1"}, name)
        for link in netlink.links():
            netlink.set_up(link["index"])
        yield name


def _inside(place: Callable[[], AbstractContextManager[str]], code: str, found: str) -> str:
    """Run a few lines of Python, standard library only, in a namespace; returns what is ``found`` then."""
    with place() as name:
        netns.run(name, [sys.executable, "-I", "-S", "-c", code])
    return found


def _in_child(code: str, found: str = "") -> str:
    """Run a few lines of Python in another process; returns what is ``found``, or what they printed.

    A wheel built for AVX-512 dies with SIGILL: only a child process can find that out.
    """
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False
    )
    if finished.returncode < 0:
        raise RuntimeError(f"killed by signal {-finished.returncode}")
    if finished.returncode:
        raise RuntimeError((finished.stderr.strip().splitlines() or ["failed"])[-1])
    return found or finished.stdout.strip()


_TPACKET = "TPACKET_V2 ring with virtio_net_hdr; fanout with an id that the kernel chose"
_PACKET = """
import socket, struct
SOL_PACKET, VERSION, RX_RING, VNET_HDR, FANOUT, IGNORE_OUTGOING = 263, 10, 5, 15, 18, 23
def opened():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    s.bind(("d0", 3))
    return s
s = opened()
s.setsockopt(SOL_PACKET, VERSION, 1)
s.setsockopt(SOL_PACKET, VNET_HDR, 1)
s.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
s.setsockopt(SOL_PACKET, RX_RING, struct.pack("IIII", 4096, 16, 2048, 32))
a, b = opened(), opened()
UNIQUE, CPU = 0x2000, 2
a.setsockopt(SOL_PACKET, FANOUT, (CPU | UNIQUE) << 16)
group = a.getsockopt(SOL_PACKET, FANOUT) & 0xFFFF
b.setsockopt(SOL_PACKET, FANOUT, group | CPU << 16)
"""


_MROUTE = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IGMP)
s.setsockopt(socket.IPPROTO_IP, 200, 1)
"""


def _io_uring_allowed() -> str:
    value = sysctl("kernel.io_uring_disabled")
    if value == "2" or (value == "1" and os.geteuid()):
        raise RuntimeError(f"kernel.io_uring_disabled = {value}")
    return f"kernel.io_uring_disabled = {value or 'absent'}"


_RING = """
import liburing
ring = liburing.io_uring()
liburing.io_uring_queue_init(8, ring, 0)
sqe = liburing.io_uring_get_sqe(ring)
liburing.io_uring_prep_nop(sqe)
liburing.io_uring_submit_and_wait(ring, 1)
liburing.io_uring_queue_exit(ring)
"""


def _numba_cache() -> str:
    directory = Path(
        _in_child("from numba.core import config; import forwarder.abi.jit; print(config.CACHE_DIR)")
    )
    directory.mkdir(parents=True, exist_ok=True)
    probe = directory / f".doctor-{os.getpid()}"
    probe.write_bytes(b"")
    probe.unlink()
    return str(directory)


_LIVE = """
# Nothing is asked of the program, so it gives each frame back.
from forwarder.abi.bpf_object import Object
from lab.bpf import GENERATE
with Object(GENERATE) as loaded:
    loaded.run_live("generate", bytes(64), 2, 1)
"""


def _open_files() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4096:
        raise RuntimeError(f"at most {hard}")
    return f"{soft} now, up to {hard}"


def _processes() -> str:
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if soft != resource.RLIM_INFINITY and soft < 2500:
        raise RuntimeError(f"at most {soft}")
    return "no limit" if soft == resource.RLIM_INFINITY else f"up to {soft}"


def _multicast_loop() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        member = struct.pack("4s4si", socket.inet_aton("239.255.255.254"), bytes(4), 1)
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
    return "joined a group on the loopback interface"


def _presence(peer: Peer) -> str:
    if why := peer.missing():
        raise RuntimeError(why)
    return "is here"


CHECKUPS = (
    Checkup("system", _system, "Linux 6.6 or later on x86-64"),
    Checkup("root", _root, "run as root (sudo): namespaces and packet sockets need it"),
    Checkup("CPUs", _cpus, "give the machine or the container two CPUs or more (docker: --cpuset-cpus)"),
    Checkup(
        "memory",
        _memory,
        f"free some: a run keeps up to eight forwarders with their senders and receivers, and large capture "
        f"rings; {NEEDED_BYTES >> 20:,} MiB must be available",
    ),
    Checkup(
        "network namespaces",
        partial(_inside, _space, "", "created, entered and removed one"),
        "a kernel with CONFIG_NET_NS; in a container also --privileged, or --cap-add SYS_ADMIN and NET_ADMIN",
    ),
    Checkup(
        "veth", partial(_inside, _pair, "", "created a pair"), "modprobe veth (a kernel with CONFIG_VETH)"
    ),
    Checkup(
        "AF_PACKET",
        partial(_inside, _pair, _PACKET, _TPACKET),
        "modprobe af_packet (Linux 5.0 or later, CONFIG_PACKET)",
    ),
    Checkup("IGMP", _multicast_loop, "a kernel with CONFIG_IP_MULTICAST"),
    Checkup("io_uring allowed", _io_uring_allowed, "sysctl -w kernel.io_uring_disabled=0"),
    Checkup(
        "liburing works",
        partial(_in_child, _RING, "opened a ring and completed an operation"),
        "apt-get install -y gcc make python3-dev && pip install --no-binary liburing liburing==2024.5.3 "
        "(built here: the wheels of later releases need AVX-512)",
    ),
    Checkup(
        "compiled code's cache",
        _numba_cache,
        "set XDG_CACHE_HOME to a directory that can be written and holds 100 MB",
    ),
    Checkup("open files", _open_files, "ulimit -Hn 65536 (in /etc/security/limits.conf: root hard nofile)"),
    Checkup("processes", _processes, "ulimit -u 8192: the largest footprint starts 1,920 workers"),
    Checkup(
        "multicast routing",
        partial(_inside, _space, _MROUTE, "the MRT socket API answers"),
        "a kernel with CONFIG_IP_MROUTE; without it a run leaves the subject kernel out",
        needed=False,
    ),
    Checkup(
        "eBPF",
        partial(_in_child, _LIVE, "libbpf loads programs, the kernel runs them on live frames"),
        "apt-get install libbpf1, and root with CAP_BPF and CAP_NET_ADMIN; without it packet sockets send "
        "where live frames are asked for, receivers capture into rings, and results say so",
        needed=False,
    ),
    *(
        Checkup(
            f"subject {name}", partial(_presence, peer), "without it a run leaves it out, and says so", False
        )
        for name, peer in PEERS.items()
        if isinstance(peer, Located)
    ),
)
