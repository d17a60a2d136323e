"""What bends figures on a machine, read from files as the kernel has them, and what is no doubt."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.measure.conditions import CPUS, damon, governor, load, sleep_states, steal, steering, turbo
from lab.measure.cpu import CpuTime


def write(root: Path, **files: str) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_what_a_machine_does_not_have_is_said_and_is_no_doubt(tmp_path: Path) -> None:
    found = [judge(tmp_path) for judge in (governor, turbo, sleep_states, damon, steering)]
    assert [each.doubt for each in found] == [None] * 5
    assert all(each.found for each in found)


@pytest.mark.parametrize(
    ("names", "doubtful"), [(("performance",) * 2, False), (("performance", "schedutil"), True)]
)
def test_a_governor_that_follows_the_load(tmp_path: Path, names: tuple[str, ...], doubtful: bool) -> None:
    for cpu, name in enumerate(names):
        write(tmp_path, **{f"{CPUS}/cpu{cpu}/cpufreq/scaling_governor": name})
    found = governor(tmp_path)
    assert (found.doubt is not None) == doubtful
    assert all(name in found.found for name in names)


@pytest.mark.parametrize(
    ("file", "text", "on"),
    [
        ("intel_pstate/no_turbo", "0", True),
        ("intel_pstate/no_turbo", "1", False),
        ("cpufreq/boost", "1", True),
        ("cpufreq/boost", "0", False),
    ],
)
def test_turbo(tmp_path: Path, file: str, text: str, on: bool) -> None:
    write(tmp_path, **{f"{CPUS}/{file}": text})
    found = turbo(tmp_path)
    assert (found.found, found.doubt is not None) == ("on" if on else "off", on)
    if on:
        assert found.remedy == f"echo {1 - int(text)} > /{CPUS}/{file}"


def test_a_sleep_state_counts_if_it_is_deep_and_allowed(tmp_path: Path) -> None:
    states = {"POLL": ("0", "0"), "C1": ("2", "0"), "C6": ("133", "1")}
    for number, (name, (latency, disabled)) in enumerate(states.items()):
        state = f"{CPUS}/cpu0/cpuidle/state{number}"
        write(tmp_path, **{f"{state}/name": name, f"{state}/latency": latency, f"{state}/disable": disabled})
    shallow = sleep_states(tmp_path)
    assert (shallow.found, shallow.doubt) == ("C1, 2 µs to wake up", None)
    write(tmp_path, **{f"{CPUS}/cpu0/cpuidle/state2/disable": "0"})
    assert "C6, 133 µs to wake up" in (sleep_states(tmp_path).doubt or "")


def test_damon_is_found_by_its_threads(tmp_path: Path) -> None:
    write(tmp_path, **{"proc/7/comm": "kdamond.0", "proc/8/comm": "bash"})
    assert damon(tmp_path).found == "on: kdamond.0"
    assert damon(tmp_path).doubt


def test_steering_of_an_interface_here(tmp_path: Path) -> None:
    write(tmp_path, **{"sys/class/net/eth0/queues/rx-0/rps_cpus": "00000000,00000000"})
    assert steering(tmp_path).doubt is None
    write(tmp_path, **{"sys/class/net/eth0/queues/rx-1/rps_cpus": "00000000,00000010"})
    assert steering(tmp_path).found == "on at eth0"
    assert steering(tmp_path).doubt


def test_steering_in_a_namespace_that_only_a_process_is_in(tmp_path: Path) -> None:
    write(tmp_path, **{"proc/self/ns/net": "", "proc/9/ns/net": "", "proc/9/comm": "container"})
    write(tmp_path, **{"proc/9/root/sys/class/net/veth1/queues/rx-0/rps_cpus": "3"})
    assert steering(tmp_path).found == "on at veth1 in the namespace of container (9)"


def test_steal_and_load_are_doubts_from_a_share_on() -> None:
    used = CpuTime(30, 10, 0, 0, 10, 950)
    assert steal(used).doubt is None
    assert (load(used, {1: 3, 2: 36}, {1: "small", 2: "pytest"}).found, load(used, {}, {}).doubt) == (
        "4% busy: pytest (2) 4%",
        None,
    )
    used = CpuTime(100, 0, 0, 0, 30, 870)
    assert steal(used).doubt == "the hypervisor took 3% of the processor time when the run began"
    assert load(used, {}, {}).doubt == "others kept the CPUs 10% busy when the run began"
    assert load(CpuTime(0, 0, 0, 0, 0, 0), {}, {}).doubt is None, "no tick yet"
