"""The machine and the software that a run's figures come from."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from lab.results import Provenance

ROOT = Path(__file__).resolve().parents[2]

SYSCTLS = (
    "kernel.io_uring_disabled",
    "kernel.sched_autogroup_enabled",
    "net.core.bpf_jit_enable",
    "net.core.busy_poll",
    "net.core.dev_weight",
    "net.core.netdev_budget",
    "net.core.netdev_budget_usecs",
    "net.core.netdev_max_backlog",
    "net.core.optmem_max",
    "net.core.rmem_default",
    "net.core.rmem_max",
    "net.core.wmem_default",
    "net.core.wmem_max",
    "net.ipv4.igmp_max_memberships",
)
"""Settings that change how fast packets move or how many are queued."""

PACKAGES = ("liburing", "MLRsearch", "mcastlab", "numba", "numpy", "pyroute2", "scapy", "scipy")


def gather(command: list[str] | None = None) -> Provenance:
    """Describe this machine and its software as they are now."""
    commit, dirty = _git()
    return Provenance(
        kernel=f"{platform.release()} {platform.version()}",
        machine=platform.machine(),
        cpu_model=_cpu_model(),
        cpus=len(os.sched_getaffinity(0)),
        numa_nodes=max(1, len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        mitigations=_directory(Path("/sys/devices/system/cpu/vulnerabilities")),
        sysctls={name: value for name in SYSCTLS if (value := sysctl(name)) is not None},
        packages={name: version for name in PACKAGES if (version := _version(name)) is not None},
        python=platform.python_version(),
        commit=commit,
        dirty=dirty,
        command=sys.argv if command is None else command,
    )


def machine_of(provenance: Provenance) -> str:
    """The properties that two runs must share for their absolute figures to be comparable."""
    gigabytes = provenance.memory_bytes / 1e9
    kernel = provenance.kernel.split()[0]
    return f"{provenance.cpu_model}, {provenance.cpus} CPUs, {gigabytes:.0f} GB, Linux {kernel}"


def sysctl(name: str) -> str | None:
    """The value of a sysctl; ``None`` if the kernel does not have it."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Processor", "cpu model"):
            return value.strip()
    return platform.processor() or "unknown"


def _directory(path: Path) -> dict[str, str]:
    """Names and contents of the readable files in a sysfs directory."""
    found = {}
    for entry in sorted(path.glob("*")):
        try:
            found[entry.name] = entry.read_text().strip()
        except OSError:
            continue
    return found


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> tuple[str | None, bool | None]:
    """The commit of this checkout, and whether tracked files differ from it; ``None`` outside a checkout."""
    if not (ROOT / ".git").exists():
        return None, None
    try:
        commit = _run_git("rev-parse", "HEAD")
        return commit, bool(_run_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None, None


def _run_git(*arguments: str) -> str:
    # Unless told to, git does not read a tree of another user, such as a checkout in which root runs the lab.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
