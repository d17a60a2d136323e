"""What bends figures on this machine, whatever is measured: said once for a run, and never a failure.

A file that a machine does not have (a guest has no cpufreq) is said, and is no doubt.
"""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lab.ledger.observe import STEAL_LIMIT
from lab.measure import since
from lab.measure.cpu import CpuTime, read_cpus, total
from lab.measure.processes import processor_ns
from lab.netns import namespaces as netns
from lab.netns.namespaces import NetnsError

ROOT = Path("/")
CPUS = "sys/devices/system/cpu"
STEERING = "class/net/*/queues/rx-*/rps_cpus"
SAMPLE_S = 0.5
BUSY_LIMIT, NAMED_SHARE = 0.05, 0.02
"""Shares of the processor time that others may use without a doubt, and from which a process is named."""
DEEP_US = 50
"""A CPU that takes so long to wake up shows in latencies."""
NAMED = 3
"""Interfaces and processes that a sentence names."""
NAMESPACES = 32
"""Namespaces, beside those with processes, in which steering is looked for."""


@dataclass(frozen=True)
class Condition:
    """``doubt``: what it does to figures, ``None`` where it does nothing; ``remedy``: how to mend it."""

    name: str
    found: str
    doubt: str | None = None
    remedy: str = ""


def conditions(root: Path = ROOT) -> list[Condition]:
    """Everything that bends figures here, as it is now. Takes half a second."""
    steal, load = _sampled()
    return [
        steal,
        load,
        cpus(len(os.sched_getaffinity(0))),
        governor(root),
        turbo(root),
        sleep_states(root),
        damon(root),
        steering(root),
    ]


def cpus(usable: int) -> Condition:
    why = "one CPU: generator, receivers and forwarder share it, so no rate is the forwarder's own"
    remedy = "give the machine or the container two CPUs or more"
    return Condition("usable CPUs", str(usable), why if usable == 1 else None, remedy)


def governor(root: Path) -> Condition:
    name, remedy = "CPU governor", "cpupower frequency-set -g performance"
    found = {
        text for path in root.glob(f"{CPUS}/cpu[0-9]*/cpufreq/scaling_governor") if (text := _text(path))
    }
    if not found:
        return Condition(name, "no frequency scaling (cpufreq) here")
    names = ", ".join(sorted(found))
    slow = None if found == {"performance"} else f"CPU governor {names}: a CPU's speed follows its load"
    return Condition(name, names, slow, remedy)


def turbo(root: Path) -> Condition:
    name, why = "turbo", "turbo is on: a CPU's speed depends on heat, and on what the other CPUs do"
    for path, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        if text := _text(root / CPUS / path):
            if text != on:
                return Condition(name, "off")
            off = "0" if on == "1" else "1"
            return Condition(name, "on", why, f"echo {off} > /{CPUS}/{path}")
    return Condition(name, "no switch for it here")


def sleep_states(root: Path) -> Condition:
    """C-states that CPUs may enter; those of the forwarder are kept awake while they are watched."""
    name, deepest = "sleep states", (-1, "")
    for state in root.glob(f"{CPUS}/cpu[0-9]*/cpuidle/state[0-9]*"):
        latency, called = _text(state / "latency"), _text(state / "name")
        if latency.isdigit() and _text(state / "disable") != "1":
            deepest = max(deepest, (int(latency), called))
    latency_us, called = deepest
    if latency_us < 0:
        return Condition(name, "none (cpuidle) here")
    found = f"{called}, {latency_us} µs to wake up"
    slow = (
        f"CPUs sleep as deep as {found}: latencies at low rates include it" if latency_us > DEEP_US else None
    )
    return Condition(name, found, slow, f"cpupower idle-set -D {DEEP_US}")


def damon(root: Path) -> Condition:
    threads = sorted(
        {text for path in root.glob("proc/[0-9]*/comm") if (text := _text(path)).startswith("kdamond")}
    )
    if not threads:
        return Condition("DAMON", "off")
    names = ", ".join(threads)
    remedy = "echo off > /sys/kernel/mm/damon/admin/kdamonds/0/state"
    why = f"DAMON watches memory accesses ({names}): it takes processor time from whatever runs"
    return Condition("DAMON", f"on: {names}", why, remedy)


def steering(root: Path) -> Condition:
    """Receive packet steering in any namespace: one interface that has it costs every frame a look."""
    found = sorted({*_steered(root / "sys"), *_steered_elsewhere(root)})
    if not found:
        # An interface that goes while it is steered leaves it on for ever, and no file says so.
        return Condition(
            "packet steering", "on at no interface; what one that has gone left on cannot be seen"
        )
    names = ", ".join(found[:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    why = f"packet steering is on at {names}: every frame on this machine is looked at for it"
    return Condition(
        "packet steering", f"on at {names}", why, "echo 0 > /sys/class/net/NAME/queues/rx-0/rps_cpus"
    )


def _steered(sys_directory: Path) -> Iterator[str]:
    for path in sys_directory.glob(STEERING):
        if _text(path).strip("0,"):
            yield path.parents[2].name


_LIST_STEERED = f"""
import glob
for path in glob.glob("/sys/{STEERING}"):
    if open(path).read().strip().strip("0,"):
        print(path.split("/")[4])
"""


def _steered_elsewhere(root: Path) -> Iterator[str]:
    """Interfaces of other namespaces: named ones are entered, others are seen through a process."""
    own = _namespace(root / "proc/self/ns/net")
    named = {}
    with suppress(OSError):
        named = {_namespace(path): path.name for path in (root / netns.DIRECTORY.relative_to("/")).iterdir()}
    for number, name in list(named.items())[:NAMESPACES]:
        if number not in (own, None):
            with suppress(NetnsError):
                code = [sys.executable, "-I", "-S", "-c", _LIST_STEERED]
                yield from (f"{interface} in {name}" for interface in netns.run(name, code).split())
    known = {own, None, *named}
    for process in root.glob("proc/[0-9]*"):
        number = _namespace(process / "ns/net")
        if number not in known:
            known.add(number)
            with suppress(OSError):
                inside = f"the namespace of {_text(process / 'comm')} ({process.name})"
                yield from (f"{interface} in {inside}" for interface in _steered(process / "root/sys"))


def _namespace(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _sampled() -> tuple[Condition, Condition]:
    """Steal and load, while this process does nothing."""
    before, processes = read_cpus(), _processes()
    time.sleep(SAMPLE_S)
    used = total(since(read_cpus(), before))
    now = _processes()
    spent = {pid: ns - processes.get(pid, 0) for pid, ns in now.items()}
    names = {pid: _text(Path(f"/proc/{pid}/comm")) or "one that has ended" for pid in spent if spent[pid]}
    return steal(used), load(used, spent, names)


def steal(used: CpuTime) -> Condition:
    share = used.steal_share
    why = f"the hypervisor took {share:.0%} of the processor time when the run began"
    remedy = "a host that is not shared, or a quieter hour"
    return Condition("steal", f"{share:.1%}", why if share > STEAL_LIMIT else None, remedy)


def load(used: CpuTime, spent_ns: Mapping[int, int], names: Mapping[int, str]) -> Condition:
    """What others did: all CPUs' time, and that of each process by its pid."""
    elapsed_ns = used.busy_ns + used.steal_ns + used.idle_ns
    share = used.busy_ns / elapsed_ns if elapsed_ns else 0.0
    most = sorted(spent_ns.items(), key=lambda each: -each[1])[:NAMED]
    who = [f"{names[pid]} ({pid}) {ns / elapsed_ns:.0%}" for pid, ns in most if ns > NAMED_SHARE * elapsed_ns]
    by = f": {', '.join(who)}" if who else ""
    why = f"others kept the CPUs {share:.0%} busy when the run began{by}"
    return Condition(
        "other load", f"{share:.0%} busy{by}", why if share > BUSY_LIMIT else None, "end other work"
    )


def _processes() -> dict[int, int]:
    """Processor time of every process, nanoseconds."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            found[int(path.name)] = processor_ns([int(path.name)])
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
