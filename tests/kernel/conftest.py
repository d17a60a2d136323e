"""Kernel tests: every test here is marked, none may leave a namespace behind, and each needs root and netns.

They are skipped only where the kernel really cannot do it: not root, or no right to make a namespace.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel_support.mcrd import Relay, relay, some_cpus
from kernel_support.namespaces import own_names
from kernel_support.traffic import Bench, bench
from kernel_support.wires import Wiring, wiring

from lab.load.topology import Topology
from lab.netns import namespaces as netns
from lab.netns.clean import clean

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = what_is_missing() if any(HERE in item.path.parents for item in items) else None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.kernel)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def what_is_missing() -> str | None:
    """Why kernel tests cannot run here, if they cannot."""
    if os.geteuid() != 0:
        return "kernel tests need root"
    try:
        with netns.namespace("probe"):
            return None
    except netns.NetnsError as error:
        return f"kernel tests need network namespaces: {error}"


@pytest.fixture(scope="session", autouse=True)
def _no_leftovers_of_killed_runs() -> None:
    """What an earlier, killed run left must not disturb this one."""
    clean()


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """Fail a test that leaves a namespace behind, and remove it so that the next one starts clean.

    What module-wide fixtures hold is there before the test and stays.
    """
    before = set(own_names())
    yield
    leaked = sorted(set(own_names()) - before)
    for name in leaked:
        netns.remove(name)
    if leaked:
        pytest.fail(f"namespaces left behind: {', '.join(leaked)}")


_runs = itertools.count()


@pytest.fixture
def run_id() -> str:
    """A name for a lab, unique within this process."""
    return f"test{next(_runs)}"


@pytest.fixture(scope="session")
def mcrd_bench() -> Iterator[Bench]:
    """Three inputs and three outputs."""
    with bench(Topology(inputs=3, outputs=3), "mcrd") as made:
        yield made


@pytest.fixture(scope="session")
def shared_relay(mcrd_bench: Bench) -> Iterator[Relay]:
    """A forwarder on ``in0``, a worker on each CPU that tests use; each test brings its own rules."""
    with relay(mcrd_bench, "in0", workers=len(some_cpus())) as made:
        yield made


@pytest.fixture(scope="session")
def wires() -> Iterator[Wiring]:
    """Links that tests make for themselves."""
    with wiring() as made:
        yield made
