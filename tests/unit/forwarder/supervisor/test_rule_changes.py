"""A change of rules is made as a whole; whatever fails or is cancelled, everything is as it was."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from forwarder.engines.packet.engine import SharedMemory
from forwarder.engines.packet.schema import Kind
from forwarder.net.links import InterfaceState, LinkView
from forwarder.net.memberships import Memberships
from forwarder.plan.engine import Engine
from forwarder.plan.host import HostError, described_host
from forwarder.plan.model import Plan, PlanError, Sizing, WorkerPlan
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS
from forwarder.rules.book import RuleBook
from forwarder.rules.model import ForwardingRule, RulesError
from forwarder.rules.notation import parse_rules
from forwarder.supervisor import rule_store
from forwarder.supervisor.interfaces import Interfaces
from forwarder.supervisor.kernel_path import KernelPath
from forwarder.supervisor.rule_changes import ReadersWriterLock, RuleChanges, RuleTiming, Timing
from forwarder.supervisor.rule_store import RuleStore
from forwarder.supervisor.state import ForwarderState
from forwarder.workers import receive_sockets
from forwarder.workers.handle import WorkerHandle
from forwarder.workers.pool import ForwarderSpec, WorkerPool
from forwarder.workers.rule_index import rule_key

WORKERS = 2
LOOPBACK = InterfaceState(1, "in0", up=True, mtu=65_536, mac=bytes(6), ipv4=bytes([127, 0, 0, 1]))


def rules(*numbers: int) -> list[ForwardingRule]:
    return parse_rules(
        [
            {
                "rule_id": f"r{number}",
                "input_interface": "in0",
                "input_group": f"239.1.1.{number}",
                "input_port": 5001,
                "outputs": [{"group": f"239.2.1.{number}", "port": 5001, "interface": "out0"}],
            }
            for number in numbers
        ]
    )


@dataclass
class Worker:
    """Stands for a worker slot and for its process, which holds the keys that it was sent."""

    plan: WorkerPlan
    block: Any
    keys: set[int] = field(default_factory=set)
    receivers: dict[int, Any] = field(default_factory=dict)
    replies: bool = True
    due: list[asyncio.Future[int]] = field(default_factory=list)

    @property
    def channel(self) -> Worker:
        return self

    def send(self, kind: Kind, *, count: int = 0, body: bytes = b"", **_: Any) -> asyncio.Future[int]:
        if kind in (Kind.ADD_RULES, Kind.REMOVE_RULES):
            keys = struct.unpack_from(f"={count}Q", body)
            self.keys = self.keys | {*keys} if kind is Kind.ADD_RULES else self.keys - {*keys}
        reply: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.due.append(reply)
        if self.replies:
            self.reply()
        return reply

    def reply(self) -> None:
        for reply in self.due:
            if not reply.done():
                reply.set_result(0)
        self.due.clear()


@dataclass
class FakeInterfaces:
    """Does ``next`` instead of opening interfaces with rules, and opens and closes the others."""

    state: ForwarderState
    next: Callable[[], Awaitable[None]] | None = None
    opened: set[str] = field(default_factory=set)

    async def serve(self, names: Collection[str]) -> None:
        for name in names:
            if self.state.pool.index.rules_on(name) and name not in self.opened:
                self.opened.add(name)  # as far as it came
                if self.next is not None:
                    await self.next()

    async def leave(self, names: Collection[str]) -> None:
        self.opened -= {name for name in names if not self.state.pool.index.rules_on(name)}


class Running:
    """A forwarder with two workers and two rules in force."""

    def __init__(self, directory: Path) -> None:
        self.said: list[str] = []
        self.path = directory / "state"
        self.store = RuleStore(self.path)
        chosen = plan(
            described_host(WORKERS, []), [], [], PRESETS["pool"], Sizing(workers=WORKERS, follow_rules=True)
        )
        assert chosen.follows_rules
        spec = ForwarderSpec(chosen, cast("Callable[..., Plan]", None), scale_threshold_dps=1)
        links = LinkView()
        links.update([LOOPBACK])
        pool = WorkerPool(spec, links, asyncio.ensure_future, self.said.append)
        self.memory = SharedMemory(WORKERS)
        self.workers = [Worker(one, self.memory.block(one.worker_id)) for one in chosen.workers]
        pool.workers += cast("list[WorkerHandle]", self.workers)
        kernel = KernelPath(Engine.PACKET, links, self.said.append)
        memberships = Memberships(links, self.said.append)
        self.state = ForwarderState(chosen, RuleBook(rules(1, 2)), pool, links, memberships, kernel)
        self.interfaces = FakeInterfaces(self.state)
        self.changes = RuleChanges(
            self.state, cast("Interfaces", self.interfaces), self.store, self.said.append
        )
        self.changes.load()
        self.changes.confirm()
        for worker in self.workers:
            worker.keys = {rule_key(rule, pool.index._inputs) for rule in self.state.book}
        for rule in self.state.book:
            self.state.memberships.join(rule)
        self.interfaces.opened.add("in0")
        self.state.started.set()

    def close(self) -> None:
        self.state.memberships.close()
        self.state.pool.close()
        self.store.close()
        self.memory.close()

    def everything(self) -> dict[str, Any]:
        """All that a change of rules could leave behind."""
        index, in_file = self.state.pool.index, RuleStore(self.path).read()
        assert in_file is not None
        return {
            "book": list(self.state.book),
            "index": [index.rules(worker.plan.partition) for worker in self.workers],
            "file": in_file,
            "files": sorted(entry.name for entry in self.path.parent.iterdir()),
            "workers": [sorted(worker.keys) for worker in self.workers],
            "memberships": len(self.state.memberships),
            "timing": {
                number: self.changes.timing.of(f"r{number}")
                for number in range(9)
                if f"r{number}" in self.changes.timing._asked
            },
            "interfaces": self.interfaces.opened,
            "slots": [sorted(index.place(rule)[1] for rule in self.state.book)],
            "past": self.state.past.counts(),
        }

    async def try_to_add(self, *numbers: int) -> None:
        await self.changes.add(rules(*numbers))


def run(directory: Path, work: Callable[[Running], Awaitable[None]], *, without_rules: bool = False) -> None:
    """Run work with a forwarder, which has removed its rules and closed its interface if wanted."""

    async def hold() -> None:
        running = Running(directory)
        try:
            if without_rules:
                for name in ("r1", "r2"):
                    await running.changes.remove(name)
            async with asyncio.timeout(20):
                await work(running)
        finally:
            running.close()

    asyncio.run(hold())


async def unchanged(running: Running, change: Awaitable[None], error: type[BaseException], says: str) -> None:
    """Have a change fail, with everything as it was."""
    before = running.everything()
    with pytest.raises(error, match=says):
        await change
    assert running.everything() == before


# -- adding rules --


@pytest.mark.parametrize("wrong", [(3, 1), (3, 3)])
def test_rules_that_are_wrong_change_nothing(tmp_path: Path, wrong: tuple[int, int]) -> None:
    async def work(running: Running) -> None:
        added = [rule for number in wrong for rule in rules(number)]
        await unchanged(running, running.changes.add(added), RulesError, "an id of its own")

    run(tmp_path, work)


def test_rules_that_the_workers_have_no_room_for_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> None:
        monkeypatch.setattr(running.state.pool.index, "_most_rules", 3)
        await unchanged(running, running.try_to_add(3, 4), RulesError, "at most 3 rules in a worker")
        await running.try_to_add(3)

    run(tmp_path, work)


def test_rules_that_cannot_be_written_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(running: Running) -> None:
        write = rule_store._write
        monkeypatch.setattr(rule_store, "_write", full_disk)
        await unchanged(running, running.try_to_add(3, 4), RulesError, "No space left")
        assert not any(worker.due for worker in running.workers)
        monkeypatch.setattr(rule_store, "_write", write)
        await running.try_to_add(3, 4)
        assert running.everything()["file"] == rules(1, 2, 3, 4)

    run(tmp_path, work)


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_rules_whose_request_is_cancelled_before_workers_have_replied_are_taken_back(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        before = running.everything()
        for worker in running.workers:
            worker.replies = False
        adding = asyncio.create_task(running.try_to_add(3, 4))
        while not all(worker.due for worker in running.workers):
            await asyncio.sleep(0)
        assert running.everything()["book"] == rules(1, 2, 3, 4)
        adding.cancel()
        for worker in running.workers:
            worker.replies = True
        await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert running.everything() == before
        await running.try_to_add(4, 3)
        assert running.everything()["slots"] == [[0, 1, 2, 3]], "the slots are free again"

    run(tmp_path, work)


async def no_socket() -> None:
    raise OSError(errno.ENOMEM, "no memory for rings")


async def no_machine() -> None:
    raise HostError("no CPU online")


async def fault() -> None:
    raise ZeroDivisionError("of a test")


@pytest.mark.parametrize(
    ("next_", "error", "says"),
    [
        (no_socket, RulesError, "in0; allowed: .* everything is as it was: .*no memory for rings"),
        (no_machine, RulesError, "in0; allowed: .* everything is as it was: no CPU online"),
        (fault, ZeroDivisionError, "of a test"),
    ],
)
def test_rules_whose_interface_cannot_be_opened_are_taken_back(
    tmp_path: Path, next_: Callable[[], Awaitable[None]], error: type[BaseException], says: str
) -> None:
    async def work(running: Running) -> None:
        running.interfaces.next = next_
        await unchanged(running, running.try_to_add(3, 4), error, says)
        running.interfaces.next = None
        await running.try_to_add(3, 4)
        assert running.everything()["interfaces"] == {"in0"}

    run(tmp_path, work, without_rules=True)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_rule_opens_its_new_interface_itself_where_that_failed_for_another_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    async def work(running: Running) -> None:
        state, tried = running.state, list[str]()

        def open_receivers(_: InterfaceState, name: str, *__: object) -> None:
            tried.append(name)
            if len(tried) <= failures:
                raise OSError(errno.ENOMEM, "no memory for rings")

        def replan(wanted: Sequence[ForwardingRule], _: object) -> Plan:
            sizing = Sizing(workers=WORKERS, follow_rules=True)
            return plan(described_host(WORKERS, []), [], wanted, PRESETS["pool"], sizing)

        monkeypatch.setattr(receive_sockets, "open_receivers", open_receivers)
        monkeypatch.setattr(receive_sockets, "listen", lambda *_: None)
        state.pool.spec = replace(state.pool.spec, replan=replan)
        interfaces = Interfaces(state, None, asyncio.ensure_future, running.said.append)
        changes = RuleChanges(state, interfaces, running.store, running.said.append)
        adding = [asyncio.create_task(changes.add(rules(number))) for number in (3, 4)]
        outcomes = await asyncio.gather(*adding, return_exceptions=True)
        assert [isinstance(outcome, RulesError) for outcome in outcomes] == [True, failures == 2]
        assert tried == ["in0", "in0"]
        assert list(state.book) == (rules(4) if failures == 1 else [])
        assert state.plan.interfaces == (("in0",) if failures == 1 else ())
        assert interfaces.trouble(rules(4)[0]) == (
            "output interface out0 does not exist" if failures == 1 else "input interface in0 is being opened"
        )

    run(tmp_path, work, without_rules=True)


def test_an_interface_without_rules_is_closed_though_another_change_took_it_out_of_the_plan(
    tmp_path: Path,
) -> None:
    async def work(running: Running) -> None:
        interfaces = Interfaces(running.state, None, asyncio.ensure_future, running.said.append)
        interfaces._mark_served("in0", LOOPBACK.ifindex)
        assert "in0" not in running.state.plan.interfaces
        await interfaces.leave({"in0"})
        assert interfaces.trouble(rules(1)[0]) == "input interface in0 is being opened"

    run(tmp_path, work, without_rules=True)


def test_rules_whose_request_is_cancelled_while_their_interface_is_opened_are_taken_back(
    tmp_path: Path,
) -> None:
    async def work(running: Running) -> None:
        before, opening = running.everything(), asyncio.Event()

        async def never() -> None:
            opening.set()
            await asyncio.Event().wait()

        running.interfaces.next = never
        adding = asyncio.create_task(running.try_to_add(3))
        await opening.wait()
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert running.everything() == before

    run(tmp_path, work, without_rules=True)


def test_a_rule_that_was_removed_while_it_was_added_is_neither_committed_nor_taken_back_twice(
    tmp_path: Path,
) -> None:
    async def work(running: Running) -> None:
        opening = asyncio.Event()

        async def fail_later() -> None:
            opening.set()
            await asyncio.sleep(0.01)
            raise OSError(errno.ENOMEM, "no memory for rings")

        before = running.everything()
        running.interfaces.next = fail_later
        adding = asyncio.create_task(running.try_to_add(3, 4))
        await opening.wait()
        await running.changes.remove("r3")
        with pytest.raises(RulesError, match="no memory"):
            await adding
        assert running.everything() == before

    run(tmp_path, work, without_rules=True)


def test_rules_that_are_taken_back_while_the_disk_is_full_leave_the_file_with_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> None:
        write = rule_store._write

        async def fail() -> None:
            monkeypatch.setattr(rule_store, "_write", full_disk)
            await no_socket()

        running.interfaces.next = fail
        with pytest.raises(RulesError, match="no memory"):
            await running.try_to_add(3)
        assert list(running.state.book) == []
        assert running.everything()["file"] == rules(3)
        assert "until the next change" in running.said[-1]
        running.interfaces.next = None
        monkeypatch.setattr(rule_store, "_write", write)
        await running.try_to_add(4)
        assert running.everything()["file"] == rules(4)

    run(tmp_path, work, without_rules=True)


def test_an_added_rule_is_everywhere(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        await running.try_to_add(3)
        found = running.everything()
        assert found["book"] == found["file"] == rules(1, 2, 3)
        assert set(map(tuple, found["index"])) == {tuple(rules(1, 2, 3))}
        assert [len(keys) for keys in found["workers"]] == [3] * WORKERS
        assert found["memberships"] == 3
        assert found["timing"][3].in_force_after_ns is not None

    run(tmp_path, work)


# -- removing rules --


def test_an_unknown_rule_cannot_be_removed(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        await unchanged(running, running.changes.remove("r7"), RulesError, "'r7'; allowed: the id of a rule")

    run(tmp_path, work)


def test_a_removal_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> None:
        write = rule_store._write
        monkeypatch.setattr(rule_store, "_write", full_disk)
        await unchanged(running, running.changes.remove("r1"), RulesError, "No space left")
        monkeypatch.setattr(rule_store, "_write", write)
        await running.changes.remove("r1")
        found = running.everything()
        assert found["book"] == found["file"] == rules(2)
        assert (found["memberships"], set(found["timing"])) == (1, {2})
        assert [len(keys) for keys in found["workers"]] == [1] * WORKERS

    run(tmp_path, work)


def test_a_removal_whose_request_is_cancelled_is_finished_all_the_same(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        for worker in running.workers:
            worker.replies = False
            worker.block.rule_matched[0] = 7
        removing = asyncio.create_task(running.changes.remove("r1"))
        while not all(worker.due for worker in running.workers):
            await asyncio.sleep(0)
        removing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await removing
        found = running.everything()
        assert found["book"] == found["file"] == rules(2)
        for worker in running.workers:
            worker.reply()
            worker.replies = True
        while any(worker.block.rule_matched[0].any() for worker in running.workers):
            await asyncio.sleep(0)
        await running.try_to_add(3)
        assert running.everything()["slots"] == [[0, 1]], "the slot is free again"

    run(tmp_path, work)


# -- replacing rules --


def test_replacing_rules_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> None:
        monkeypatch.setattr(rule_store, "_write", full_disk)
        async with running.changes.exclusive():
            replacing = running.changes.replace(rules(3), ["r1"], rules(2, 3))
            await unchanged(running, replacing, OSError, "No space left")

    run(tmp_path, work)


def test_replacing_rules_whose_interface_cannot_be_opened_changes_nothing(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        running.interfaces.opened.clear()
        running.interfaces.next = no_socket
        before = running.everything()
        async with running.changes.exclusive():
            with pytest.raises(RulesError, match="no memory for rings"):
                await running.changes.replace(rules(3), ["r1"], rules(2, 3))
        running.interfaces.opened.clear()  # opened for other rules, which stay
        assert running.everything() == before

    run(tmp_path, work)


def test_replaced_rules_are_in_the_file_as_a_whole(tmp_path: Path) -> None:
    async def work(running: Running) -> None:
        async with running.changes.exclusive():
            await running.changes.replace(rules(3, 4), ["r1"], rules(4, 2, 3))
        found = running.everything()
        assert found["book"] == rules(2, 3, 4)
        assert found["file"] == rules(4, 2, 3)
        assert found["memberships"] == 3

    run(tmp_path, work)


def test_replaced_rules_that_do_not_get_into_the_file_are_reported_and_written_with_the_next_change(
    tmp_path: Path,
) -> None:
    async def work(running: Running) -> None:
        aside = tmp_path / "aside"
        running.path.rename(aside)
        running.path.mkdir()
        async with running.changes.exclusive():
            await running.changes.replace(rules(3), ["r1"], rules(2, 3))
        assert "the rules are not in the state file" in running.said[-1]
        running.path.rmdir()
        aside.rename(running.path)
        await running.changes.remove("r3")
        assert running.everything()["file"] == rules(2)

    run(tmp_path, work)


def test_rules_to_begin_with_that_the_workers_cannot_hold_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(running: Running) -> None:
        monkeypatch.setattr(running.state.pool.index, "_most_rules", 1)
        with pytest.raises(PlanError, match="at most 1 rules in a worker"):
            running.changes.load()

    run(tmp_path, work, without_rules=False)


# -- the lock --


def test_whoever_holds_the_lock_alone_waits_for_those_who_share_it_and_keeps_out_the_next() -> None:
    async def work() -> None:
        lock, order = ReadersWriterLock(), list[str]()

        async def share(name: str) -> None:
            async with lock.shared():
                order.append(f"{name} in")
                await asyncio.sleep(0.01)
                order.append(f"{name} out")

        async def alone() -> None:
            async with lock.exclusive():
                order.append("alone")
                async with lock.shared():
                    order.append("both")

        async with asyncio.TaskGroup() as tasks:
            for some in (share("a"), share("b"), alone(), share("c"), alone()):
                tasks.create_task(some)
                await asyncio.sleep(0)
        assert order[:6] == ["a in", "b in", "a out", "b out", "alone", "both"]
        assert sorted(order[6:]) == ["alone", "both", "c in", "c out"]

    asyncio.run(work())


@pytest.mark.parametrize("how", ["shared", "exclusive"])
def test_whoever_is_cancelled_while_it_waits_or_holds_the_lock_leaves_it_to_others(how: str) -> None:
    async def work() -> None:
        lock = ReadersWriterLock()

        async def hold(kind: str) -> None:
            async with getattr(lock, kind)():
                await asyncio.Event().wait()

        holder = asyncio.create_task(hold(how))
        await asyncio.sleep(0)
        waiting = [asyncio.create_task(hold("exclusive")) for _ in range(3)]
        await asyncio.sleep(0)
        for task in (waiting[1], holder, waiting[0], waiting[2]):
            task.cancel()
        await asyncio.gather(holder, *waiting, return_exceptions=True)
        async with asyncio.timeout(1), lock.exclusive():
            pass

    asyncio.run(work())


# -- timing --


def test_times_count_from_the_request() -> None:
    timing = RuleTiming()
    timing.ask(["a", "b"], 1000)
    assert timing.of("a") == Timing(None, None)
    timing.put_in_force(["a", "b"], 1200)
    assert timing.of("a") == Timing(200, None)
    assert timing.of("b", first_ns=5000) == Timing(200, 4000)


def test_a_rule_removed_before_it_was_in_force_leaves_nothing_behind_for_the_next_of_its_name() -> None:
    timing = RuleTiming()
    timing.ask(["a"], 1000)
    timing.forget("a")
    timing.put_in_force(["a"], 1200)
    timing.ask(["a"], 9000)
    assert timing.of("a") == Timing(None, None)
    timing.forget("a")
