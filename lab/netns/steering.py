"""Which CPU receives for an interface: NAPI threads, packet steering, or the sender's.

Files in sysfs say it. Where NAPI threads cannot be had (the driver or the kernel has none), packet steering
to CPUs of the same side takes their place, and :attr:`Threads.instead` says so.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from lab.netns import namespaces as netns
from lab.netns.napi import NapiSocket, pin
from lab.netns.netlink import Netlink

THREADED = "/sys/class/net/{}/threaded"
RPS = "/sys/class/net/{}/queues/rx-*/rps_cpus"
NO_STEERING = {RPS.format("*"): "0", THREADED.format("*"): "0"}
"""Neither packet steering nor threads, for :func:`write_steering`."""
_SYSCTL = str(Path(__file__).with_name("sysctl.py"))


def write_files(namespace: str, files: Mapping[str, str | None]) -> dict[str, str]:
    """Write files inside a namespace by path or glob, only read them for ``None``; returns what was in them.

    Raises NetnsError with one reason for each file that did not take its text; the others have it.
    """
    command = [sys.executable, "-I", "-S", _SYSCTL]
    try:
        before: dict[str, str] = json.loads(netns.run(namespace, command, input=json.dumps(files)))
    except netns.NetnsError as error:
        if isinstance(error.__cause__, subprocess.CalledProcessError):
            reasons = "; ".join(error.__cause__.stderr.strip().splitlines())
            raise netns.NetnsError(f"in {namespace}: {reasons}") from error
        raise
    return before


def write_steering(namespace: str, files: Mapping[str, str]) -> None:
    """Write packet steering and threads by path; interfaces that are gone are passed over.

    An interface that goes while it is steered leaves the kernel steering for ever: every frame on the machine
    is then looked at for it, 4 % of what a forwarded copy costs (``rx_queue_release`` in
    net/core/net-sysfs.c frees the map, but only writing to ``rps_cpus`` takes it off ``rps_needed``).
    """
    if files:
        with suppress(netns.NetnsError):
            write_files(namespace, files)


def cpu_mask(cpus: tuple[int, ...]) -> str:
    """CPUs as the kernel reads a mask: 32-bit groups in hexadecimal, most significant first."""
    value = sum(1 << cpu for cpu in set(cpus))
    last = max(cpus, default=0) // 32
    return ",".join(f"{value >> 32 * group & 0xFFFFFFFF:08x}" for group in range(last, -1, -1))


class Threads:
    """The NAPI threads of interfaces in one namespace, each on its CPU.

    ``first``: before everything else there. A thread that waits its turn, behind a generator or a worker in
    the kernel or another process for a tick (4 ms), loses what its ring of 256 frames cannot hold.
    ``spread``: CPUs to which packets are steered behind the threads, or in place of them.
    """

    def __init__(
        self,
        netlink: Netlink,
        namespace: str,
        cpus: Mapping[str, int],
        *,
        first: bool,
        spread: tuple[int, ...] = (),
    ) -> None:
        self._netlink = netlink
        self._namespace = namespace
        self._cpus = cpus
        self._first = first
        self._spread = spread
        self._pids: dict[str, list[int]] = {}
        self.instead: str | None = None
        """Why something else receives, and what; ``None`` where the threads do."""
        self.start()

    def start(self) -> None:
        """Have threads receive, again if they have gone; where there are none, packet steering."""
        try:
            write_files(self._namespace, {THREADED.format(name): "1" for name in self._cpus})
            index = {link.get("ifname"): link["index"] for link in self._netlink.links()}
            with NapiSocket(self._namespace) as napi:
                self._pids = {name: napi.pids(index[name]) for name in self._cpus}
            for name, cpu in self._cpus.items():
                pin(self._pids[name], name, cpu, realtime=self._first)
        except (netns.NetnsError, ProcessLookupError) as error:
            self._steer(f"no NAPI threads for {', '.join(self._cpus)} ({error})")

    def pids(self) -> Iterator[tuple[int, list[int]]]:
        """The threads of each interface, with its CPU."""
        return ((cpu, self._pids.get(name, [])) for name, cpu in self._cpus.items())

    def lost(self) -> list[str]:
        """Interfaces with a thread that has gone: softirq on the sender's CPU receives for them."""
        return [name for name, pids in self._pids.items() if not all(map(_is_napi, pids))]

    def stop(self) -> None:
        """Take back the packet steering; threads go with their interface, or as it is given back."""
        if self.instead is not None:
            write_steering(self._namespace, {RPS.format(name): "0" for name in self._cpus})

    def _steer(self, why: str) -> None:
        self._pids = {}
        write_steering(self._namespace, {THREADED.format(name): "0" for name in self._cpus})
        try:
            masks = {RPS.format(name): cpu_mask(self._spread or (cpu,)) for name, cpu in self._cpus.items()}
            write_files(self._namespace, masks)
        except netns.NetnsError as error:
            self.instead = f"{why}, nor packet steering ({error}): the sender's CPU receives"
        else:
            self.instead = f"{why}: packet steering receives instead, on CPUs of the same side"


def _is_napi(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("napi/")
    except OSError:
        return False
