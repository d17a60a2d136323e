"""Every kind of step is registered once, what it records is known, and planning stays light."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from importlib import import_module
from typing import get_args

from lab.results import AnyRecord, Check, RunEnded, RunStarted, Trial
from lab.steps import kinds
from lab.steps.plan import KINDS
from lab.steps.step import Step


def test_each_module_of_kinds_has_one_kind_and_each_is_registered() -> None:
    found = {
        name: [
            value
            for value in vars(import_module(f"{kinds.__name__}.{name}")).values()
            if isinstance(value, type) and issubclass(value, Step) and value.__module__.endswith(f".{name}")
        ]
        for _, name, _ in pkgutil.iter_modules(kinds.__path__)
    }
    assert all(len(steps) == 1 for steps in found.values()), found
    assert {step for steps in found.values() for step in steps} == set(KINDS)
    assert len(set(KINDS)) == len(KINDS)


def test_each_record_is_written_by_one_kind_of_step() -> None:
    written = [record for kind in KINDS for record in kind.records]
    every = set(get_args(get_args(AnyRecord)[0]))
    assert set(written) == every - {RunStarted, RunEnded, Trial, Check}
    assert len(set(written)) == len(written)


def test_planning_loads_nothing_that_is_slow_or_touches_the_kernel() -> None:
    slow = [
        "numpy",
        "scipy",
        "numba",
        "scapy",
        "pyroute2",
        "MLRsearch",
        "lab.netns",
        "lab.peers",
        "lab.trial",
    ]
    code = f"import sys, lab.steps.plan; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
