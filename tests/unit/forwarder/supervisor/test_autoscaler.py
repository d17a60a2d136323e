"""What an elastic group does when it cannot be resized: it stays, says why, and asks again later."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from forwarder.net.links import LinkView
from forwarder.plan.host import Host, HostError
from forwarder.plan.model import GroupPlan, WorkerPlan
from forwarder.rules.book import RuleBook
from forwarder.supervisor import autoscaler as autoscaler
from forwarder.supervisor.autoscaler import Autoscaler
from forwarder.supervisor.scaling_policy import Decision, Load
from forwarder.supervisor.state import ForwarderState
from forwarder.workers.handle import State
from forwarder.workers.pool import WorkerPool

GROUP = GroupPlan(0, ("in0",), workers=1, max_workers=2, rules=0, min_workers=1)


@dataclass
class Slot:
    plan: WorkerPlan
    state: State = State.RUNNING
    receivers: dict[int, Any] = field(default_factory=dict)


def running(*workers: Slot) -> ForwarderState:
    """A forwarder that has started, as far as resizes are concerned."""
    pool = cast("WorkerPool", SimpleNamespace(workers=list(workers)))
    unused: Any = None
    state = ForwarderState(unused, RuleBook(), pool, LinkView(), unused, unused)
    state.started.set()
    return state


def member() -> Slot:
    return Slot(WorkerPlan(worker_id=0, group=0, cpu=0, node=0, partition=0, sockets=()))


def no_host() -> Host:
    raise HostError("no CPU online that workers may use")


def test_a_machine_that_cannot_be_read_is_a_change_that_failed_and_does_not_end_the_watch() -> None:
    async def try_it() -> None:
        said = list[str]()
        scaler = Autoscaler(running(member()), [GROUP], no_host, threshold_dps=1, log=said.append)
        with pytest.raises(OSError, match="no CPU online"):
            await scaler.resize(0, 2, "asked for")
        await scaler._carry_out(0, Decision(1, 2, "a load"))
        assert [change.failed for change in scaler.histories[GROUP.interfaces].latest] == [
            "no CPU online that workers may use"
        ] * 2
        assert all("from 1 to 2 workers failed, it has 1: no CPU online" in line for line in said)
        assert scaler.sizes() == {0: 1}

    asyncio.run(try_it())


def test_while_one_group_is_resized_the_others_are_measured_and_resized(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The load of both groups is too much all the time, and the change of one never ends."""
    other = replace(GROUP, group_id=1, interfaces=("in1",))
    carried_out, measured = [], Counter[int]()

    class Hanging(Autoscaler):
        def _measure(self, group: int) -> Load:
            measured[group] += 1
            return Load(measured[group] * 400_000_000, 1e9)

        async def resize(self, group: int, workers: int, *_: object) -> None:
            carried_out.append((group, workers))
            if group == 0:
                await asyncio.Event().wait()

    async def try_it() -> None:
        scaler = Hanging(running(), [GROUP, other], no_host, threshold_dps=1, log=lambda _: None)
        watching = asyncio.create_task(scaler.watch())
        async with asyncio.timeout(10):
            while len(carried_out) < 2 or measured[0] < 8:
                await asyncio.sleep(0)
        watching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await watching

    monkeypatch.setattr(autoscaler, "SAMPLE_S", 0.0)
    asyncio.run(try_it())
    assert carried_out == [(0, 2), (1, 2)]
    assert measured[0] == measured[1]


def test_a_fault_in_a_resize_is_a_change_that_failed_and_does_not_end_the_watch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def try_it() -> None:
        said = list[str]()

        def broken() -> Host:
            raise ZeroDivisionError("of a test")

        scaler = Autoscaler(running(member()), [GROUP], broken, threshold_dps=1, log=said.append)
        await scaler._carry_out(0, Decision(1, 2, "a load"))
        assert "a fault of mcrd: ZeroDivisionError: of a test" in said[0]
        (found,) = scaler.report()
        assert (found["resizes_done"], found["resizes_failed"]) == (0, 1)

    asyncio.run(try_it())
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_resize_is_refused_once_another_plan_has_come_into_force() -> None:
    async def try_it() -> None:
        scaler = Autoscaler(running(member()), [GROUP], no_host, threshold_dps=1, log=lambda _: None)
        scaler.superseded = True
        with pytest.raises(OSError, match="another plan has come into force"):
            await scaler.resize(0, 2, "asked for")

    asyncio.run(try_it())
