"""A running forwarder is given another plan or other rules under load: nothing is lost, nothing repeated."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
import tomllib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from kernel_support.mcrd import (
    RING_FRAMES,
    Client,
    Relay,
    assert_delivered,
    counts,
    eventually,
    forwarded,
    leave_descriptors,
    load,
    mcrctl,
    program,
    relay,
    rule,
    rule_counts,
    some_cpus,
)
from kernel_support.traffic import Bench, streams
from kernel_support.wires import Port, Wiring
from process_support import children

from forwarder.engines.packet.schema import LINKS
from forwarder.plan.placement import owners
from forwarder.plan.strategy import Hashing
from lab.load.jobs import ReceiverJob, SenderJob
from lab.netns import namespaces as netns
from lab.peers.base import PeerError

RULES = 32


def written(path: Path, strategy: str, rules: Sequence[dict[str, Any]] = (), **options: Any) -> Path:
    """A configuration file for ``in0``; without rules it has none to say."""
    lines = [f"strategy = {json.dumps(strategy)}", 'interfaces = ["in0"]', "ring_frames = 32768"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    for one in rules:
        outputs = ", ".join(
            "{" + ", ".join(f"{name} = {json.dumps(value)}" for name, value in output.items()) + "}"
            for output in one["outputs"]
        )
        fields = [f"{name} = {json.dumps(value)}" for name, value in one.items() if name != "outputs"]
        lines += ["[[rules]]", *fields, f"outputs = [{outputs}]"]
    path.write_text("\n".join([*lines, ""]))
    return path


def applied(running: Relay, file: Path, *options: str) -> dict[str, Any]:
    done = mcrctl(running.forwarder.control_path, "apply", str(file), "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def falls(running: Relay, ended: Event) -> list[str]:
    """Rules whose counts were less than at the reading before, at any time until ``ended``."""
    found, before = [], dict[str, tuple[int, int]]()
    while not ended.is_set():
        now = rule_counts(running.forwarder.stats())
        found += [name for name, seen in now.items() if seen[0] < before.get(name, seen)[0]]
        before = now
    return found


@pytest.mark.serial
def test_another_strategy_and_width_take_over_under_load_and_no_datagram_is_lost(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    of = streams(RULES)
    job, receiver = load(of, 10_000, 16_000)
    plans = (
        ("rule-hash", {"num_workers": 2}, 2),
        ("rule-hash", {"num_workers": 3}, 3),
        ("pool", {"num_workers": 2}, 2),
        ("dynamic", {"max_workers_per_interface": 2}, 1),
        ("rule-hash", {"num_workers": 2, "hashing": "modulo"}, 2),
    )
    ended = Event()
    with (
        relay(mcrd_bench, "in0", *map(rule, of), strategy="fanout", workers=1) as running,
        ThreadPoolExecutor(1) as pool,
    ):
        watching = pool.submit(falls, running, ended)
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched, "the first datagram is forwarded")
            for strategy, options, workers in plans:
                file = written(tmp_path / "wanted.toml", strategy, **options)
                config = tomllib.loads(file.read_text())
                assert running.ask("apply", config=config)["workers_relieved"]
                again = running.ask("apply", config=config)
                assert (again["plan"], again["workers_relieved"]) == (None, False), "it is as wanted"
                assert running.ask("ping")["workers"] == workers
            transfer.stop()
        ended.set()
        assert watching.result() == []
        stats = running.forwarder.stats()
        seen, counted = transfer.seen, counts(stats)
        assert transfer.offered < 320_000, "all of that was under load"
        assert counted.dropped == {}
        assert counted.received == counted.matched == counted.sent == transfer.offered
        assert (sum(seen.lost), sum(seen.duplicated), sum(seen.corrupted)) == (0, 0, 0)
        (sent,) = transfer.sent
        each = zip(of, sent.per_stream, strict=True)
        assert rule_counts(stats) == {rule(one)["rule_id"]: (count, count) for one, count in each}


@pytest.mark.serial
def test_rules_change_under_load_and_others_lose_nothing(mcrd_bench: Bench, tmp_path: Path) -> None:
    of = streams(RULES)
    rules = [rule(stream) for stream in of]
    kept = of[:-1]
    job = SenderJob(interface="g0", streams=kept, count=15_500, rate_dps=15_500, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(kept, 500), payload_bytes=64)
    with relay(mcrd_bench, "in0", *rules[:-1], strategy="fanout") as running:
        before = [one["pid"] for one in running.ask("list-workers")["workers"]]
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched, "the first datagram is forwarded")
            more = written(tmp_path / "more.toml", "fanout", rules, num_workers=1)
            assert applied(running, more, "--dry-run")["rules_added"] == [rules[-1]["rule_id"]]
            assert len(running.ask("list")["rules"]) == RULES - 1, "a dry run changes nothing"
            answer = applied(running, more)
            assert answer["rules_added"] == [rules[-1]["rule_id"]]
            less = written(tmp_path / "less.toml", "fanout", rules[:-1], num_workers=1)
            assert applied(running, less)["rules_removed"] == [rules[-1]["rule_id"]]
            assert [one["pid"] for one in running.ask("list-workers")["workers"]] == before
            rules[0] = {**rules[0], "outputs": [{**rules[0]["outputs"][0], "ttl": 9}]}
            changed = written(tmp_path / "changed.toml", "fanout", rules[:-1], num_workers=1)
            assert applied(running, changed)["rules_changed"] == [rules[0]["rule_id"]]
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        assert (counted.dropped, counted.sent) == ({}, transfer.offered)
        assert (sum(seen.lost), sum(seen.duplicated)) == (0, 0)


def test_a_diff_says_how_many_rules_another_width_moves_and_changes_nothing(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    of = streams(RULES)
    keys = [(int(one.group), one.port) for one in of]
    with relay(mcrd_bench, "in0", *map(rule, of), strategy="rule-hash", workers=2) as running:
        before = running.ask("list-workers")["workers"]
        for hashing in Hashing:
            file = written(tmp_path / "wanted.toml", "rule-hash", num_workers=3, hashing=str(hashing))
            answer = mcrctl(running.forwarder.control_path, "plan", "--diff", str(file), "--json")
            found = json.loads(answer.stdout)
            old, new = owners(keys, 2), owners(keys, 3, hashing)
            assert found["rules_moved"] == sum(a != b for a, b in zip(old, new, strict=True))
            assert (found["workers_relieved"], found["applied"]) == (True, False)
            rules = [rule(stream) for stream in streams(2 * RULES)]
            file = written(tmp_path / "more.toml", "rule-hash", rules, num_workers=3, hashing=str(hashing))
            answer = mcrctl(running.forwarder.control_path, "plan", "--diff", str(file), "--json")
            more = json.loads(answer.stdout)
            assert len(more["rules_added"]) == RULES
            assert more["rules_moved"] == found["rules_moved"], "what is not in force does not move"
        assert running.ask("list-workers")["workers"] == before


def test_a_diff_is_told_in_the_words_of_a_plan_and_with_its_warnings(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    file = tmp_path / "wanted.toml"
    file.write_text('strategy = "dynamic"\ninterfaces = ["in0", "absent0"]\nmax_workers_per_interface = 3\n')
    with relay(mcrd_bench, "in0", rule(streams(1)[0])) as running:
        told = mcrctl(running.forwarder.control_path, "plan", "--diff", str(file))
        as_json = json.loads(
            mcrctl(running.forwarder.control_path, "plan", "--diff", str(file), "--json").stdout
        )
    assert told.returncode == 0, told.stderr
    said = " ".join(told.stdout.split())
    assert "strategy fanout: one-interface · width per-cpu · " in said
    assert "dynamic: per-interface · width elastic · " in said
    assert "groups group 0: in0: 1 worker group 0: in0: 1 to 3 workers" in said
    assert "group 1: absent0: 1 to 3 workers" in said
    assert "warning: Interfaces that do not exist; their rules wait until they appear: absent0." in said
    wanted = as_json["plan"]["strategy"]["wanted"]
    assert (wanted["name"], wanted["width"]) == ("dynamic", "elastic")
    assert as_json["plan"]["groups"]["now"] == [{"group": 0, "interfaces": ["in0"], "workers": 1}]
    (socket,) = as_json["plan"]["workers"]["now"][0]["sockets"]
    assert (socket["interface"], socket["ring"]["frames"]) == ("in0", RING_FRAMES)


WRONG = (
    ('interfaces = ["in0"', ["TOML"]),
    ('interfaces = ["in0"]\nnum_workers = 0\nstrategy = "best"\n', ["num_workers: 0", "strategy: 'best'"]),
    ('interfaces = ["in0"]\ncontrol_socket_path = "/elsewhere"\n', ["control_socket_path", "a new start"]),
    ('interfaces = ["in1"]\n', ["an interface that the workers serve: in1"]),
    ('interfaces = ["in0"]\nnum_workers = 2', ["half-written"]),
    ("", ["half-written"]),
    ("\n", ["config: nothing", "strategy, auto_scale, interface"]),
    ("ring_frames = 64\n", ["config: ring_frames", "strategy, auto_scale, interface"]),
)


def test_rules_for_which_there_is_no_room_until_others_have_gone_are_put_in_force_by_other_workers(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    def sending_to(first: int) -> list[dict[str, Any]]:
        rules = [rule(stream) for stream in streams(LINKS, first)]
        for number, one in enumerate(rules, start=first):
            one["rule_id"] = f"r{number}"
            one["outputs"][0]["interface"] = f"o{number}"
        return rules

    with relay(mcrd_bench, "in0") as running:
        for first, relieved in ((0, False), (LINKS, True)):
            file = written(tmp_path / "wanted.toml", "fanout", sending_to(first), num_workers=1)
            answer = applied(running, file)
            assert len(answer["rules_added"]) == LINKS
            assert answer["workers_relieved"] is relieved
        assert {one["rule_id"] for one in running.ask("list")["rules"]} == {
            f"r{LINKS + number}" for number in range(LINKS)
        }


def test_where_filters_steer_the_moment_without_listeners_loses_some_and_repeats_nothing(
    mcrd_bench: Bench,
) -> None:
    of = streams(RULES)
    job, receiver = load(of, 1000, 16_000)
    config = {"interfaces": ["in0"], "strategy": "rule-hash", "steering": "filter", "ring_frames": 32_768}
    with relay(mcrd_bench, "in0", *map(rule, of), strategy="rule-hash", workers=2) as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched, "the first datagram is forwarded")
            for workers in (2, 3):
                assert running.ask("apply", config={**config, "num_workers": workers})["workers_relieved"]
        seen, counted = transfer.seen, counts(running.forwarder.stats())
        print(f"two exchanges of plans with filters: {sum(seen.lost)} of {transfer.offered:,} lost")
        assert (counted.dropped, sum(seen.duplicated)) == ({}, 0)
        assert counted.sent + sum(seen.lost) == transfer.offered


def test_a_file_that_is_wrong_changes_nothing_and_of_two_at_once_one_is_refused(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    with relay(mcrd_bench, "in0", rule(streams(1)[0])) as running:
        path = running.forwarder.control_path
        before = running.ask("list-workers")["workers"]
        file = tmp_path / "wrong.toml"
        for content, complaints in WRONG:
            file.write_text(content)
            for command in (("apply",), ("plan", "--diff")):
                refused = mcrctl(path, *command, str(file))
                assert refused.returncode == 2
                assert all(complaint in refused.stderr for complaint in complaints), refused.stderr
        assert running.ask("list-workers")["workers"] == before
        config = json.dumps({"interfaces": ["in0", "in1"], "strategy": "pool"})
        line = f'{{"command": "apply", "config": {config}}}\n'.encode()
        with Client(path) as one, Client(path) as other:
            for client in (one, other):
                client.socket.sendall(line)
            answers = sorted((client.answer() for client in (one, other)), key=lambda found: found["ok"])
        assert answers[0]["errors"][0]["value"] == "another one is at work"
        assert answers[1]["result"]["workers_relieved"]
        assert running.ask("list")["rules"], "in1, which is not there, is waited for"


def test_after_an_apply_workers_are_added_and_replaced_and_rules_change_as_before(mcrd_bench: Bench) -> None:
    of = streams(RULES)
    config = {
        "interfaces": ["in0"],
        "strategy": "dynamic",
        "max_workers_per_interface": 2,
        "ring_frames": 4096,
    }
    with relay(mcrd_bench, "in0", *map(rule, of[:-1])) as running:
        assert running.ask("apply", config=config)["workers_relieved"]
        assert [one["group"] for one in running.ask("list-workers")["workers"]] == [0], "the former has gone"
        running.ask("resize", group=0, workers=2)
        killed = running.ask("list-workers")["workers"][-1]
        os.kill(killed["pid"], signal.SIGKILL)
        running.ask("add", rules=[rule(of[-1])])
        eventually(
            lambda: (
                killed["pid"] not in [w["pid"] for w in _running(running)] and len(_running(running)) == 2
            ),
            "another process is in its place",
        )
        job, receiver = load(of, 100, 16_000)
        with mcrd_bench.transferring([job], receiver) as transfer:
            pass
        assert (sum(transfer.seen.lost), sum(transfer.seen.duplicated)) == (0, 0)
        stats = running.forwarder.stats()
        assert set(rule_counts(stats).values()) == {(100, 100)}


def _running(running: Relay) -> list[dict[str, Any]]:
    return [one for one in running.ask("list-workers")["workers"] if one["state"] == "running"]


def test_a_newcomer_that_is_killed_takes_over_all_the_same(mcrd_bench: Bench, tmp_path: Path) -> None:
    of = streams(RULES)
    config = tomllib.loads(written(tmp_path / "wanted.toml", "pool", num_workers=2).read_text())
    job, receiver = load(of, 1000, 16_000)
    with relay(mcrd_bench, "in0", *map(rule, of)) as running, ThreadPoolExecutor(1) as pool:
        supervisor = running.forwarder.process.pid
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched, "the first datagram is forwarded")
            before = children(supervisor)
            asked = pool.submit(running.ask, "apply", config=config)
            born = eventually(lambda: children(supervisor) - before, "a worker is born")
            os.kill(min(born), signal.SIGKILL)
            assert asked.result()["workers_relieved"]
        counted = counts(running.forwarder.stats())
        assert (counted.sent, counted.dropped, sum(transfer.seen.lost)) == (32_000, {}, 0)
        assert not before & children(supervisor), "those who were relieved have ended"


@pytest.mark.parametrize("ending", ["apply", "shutdown"])
def test_what_the_ring_of_a_hanging_worker_holds_when_it_is_killed_is_counted(
    mcrd_bench: Bench, tmp_path: Path, ending: str
) -> None:
    of = streams(4)
    job, receiver = load(of, 100, 4_000)
    with relay(mcrd_bench, "in0", *map(rule, of)) as running:
        (worker,) = _running(running)
        os.kill(worker["pid"], signal.SIGSTOP)
        with mcrd_bench.transferring([job], receiver) as transfer:
            pass
        before = running.forwarder.stats()
        if ending == "apply":
            assert applied(running, written(tmp_path / "wanted.toml", "pool", num_workers=1))
            after = running.forwarder.stats()
        else:
            running.forwarder.finish()
            after = json.loads((running.forwarder.directory / "stdout").read_bytes())
    (interface,) = after["interfaces"]
    (socket,) = before["workers"][0]["sockets"]
    assert (socket["waiting_frames"], before["interfaces"][0]["abandoned_frames"]) == (400, 0)
    assert sum(transfer.seen.lost) == 400
    # If something was to be told to the worker before the plan could change, another forwarded it meanwhile.
    assert interface["abandoned_frames"] + after["totals"]["sent"] == interface["arrived_frames"] == 400
    if ending == "shutdown":
        assert interface["abandoned_frames"] == 400


def test_a_worker_that_hangs_is_replaced_when_it_is_waited_for_and_takes_nothing_with_it(
    mcrd_bench: Bench,
) -> None:
    of = streams(4)
    job, receiver = load(of, 6_000, 2_000)
    with relay(mcrd_bench, "in0", *map(rule, of)) as running:
        (worker,) = _running(running)
        with mcrd_bench.transferring([job], receiver) as transfer:
            os.kill(worker["pid"], signal.SIGSTOP)
            added = mcrctl(
                running.forwarder.control_path, "add", "--input-interface", "in0", "--input-group",
                "239.9.9.9", "--input-port", "9", "--outputs", "239.9.9.9:9:out0",
            )  # fmt: skip
            assert added.returncode == 0, added.stderr
        (now,) = running.ask("list-workers")["workers"]
        said = (running.forwarder.directory / "stderr").read_text()
        stats = running.forwarder.stats()
    assert now["pid"] != worker["pid"]
    assert (now["restarts"], now["rules"]) == (1, 5)
    assert f"process {worker['pid']} did not answer for 10 s and was killed by SIGKILL" in said
    assert_delivered(24_000, transfer.seen, counts(stats))


def test_a_forwarder_is_stopped_while_newcomers_hang(mcrd_bench: Bench) -> None:
    config = {"interfaces": ["in0"], "strategy": "pool", "num_workers": 2, "ring_frames": RING_FRAMES}
    with relay(mcrd_bench, "in0", rule(streams(1)[0])) as running, ThreadPoolExecutor(1) as pool:
        process = running.forwarder.process
        before = children(process.pid)
        asked = pool.submit(running.ask, "apply", config=config)
        for newcomer in eventually(lambda: children(process.pid) - before, "a worker is born"):
            os.kill(newcomer, signal.SIGSTOP)
        process.terminate()
        # They have nothing to forward: who stops them need not wait until they have.
        assert process.wait(8) == 0
        with suppress(PeerError, OSError):  # refused, unless they were on duty before they were stopped
            asked.result()
        said = (running.forwarder.directory / "stderr").read_text()
    assert "Traceback" not in said
    assert "never retrieved" not in said


def test_an_interface_that_goes_while_another_plan_takes_over_is_served_when_it_is_back(
    mcrd_bench: Bench, wires: Wiring
) -> None:
    of = streams(RULES)
    stays, comes = of[: RULES // 2], of[RULES // 2 :]
    near, far = Port(mcrd_bench.lab.gen, "flap-g"), Port(mcrd_bench.lab.fwd, "flap", "10.60.0.2")
    config = {"interfaces": ["in0", "flap"], "strategy": "pool", "num_workers": 2, "ring_frames": 32_768}
    rules = [*(rule(one) for one in stays), *(rule(one, input_interface="flap") for one in comes)]

    def waiting() -> int:
        return sum(entry["state"] != "running" for entry in running.forwarder.stats()["rules"])

    with relay(mcrd_bench, "in0,flap", *rules, strategy="pool") as running, ThreadPoolExecutor(1) as pool:
        before = children(running.forwarder.process.pid)
        with wires.wire(near, far):
            eventually(lambda: not waiting(), "both are served")
            asked = pool.submit(running.ask, "apply", config=config)
            eventually(
                lambda: asked.done() or children(running.forwarder.process.pid) - before, "workers are born"
            )
        refused = asked.exception()
        assert refused is None or "everything is as it was" in str(refused)
        eventually(lambda: waiting() == len(comes), "its rules wait for it")
        with wires.wire(near, far):
            eventually(lambda: not waiting(), "it is served again")
            jobs = [
                SenderJob(interface=name, streams=some, count=1600, rate_dps=8000, cpu=some_cpus()[0])
                for name, some in (("g0", stays), ("flap-g", comes))
            ]
            receiver = ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)
            assert_delivered(*running.transfer(jobs, receiver))


def at_rest(process: int) -> Counter[str]:
    """What a supervisor has open, by kind, once it speaks with nobody.

    Memory for workers' counters does not count: what was made is kept for the next who come.
    """

    def kinds() -> Counter[str]:
        found: Counter[str] = Counter()
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found[str(entry.readlink()).split(":[")[0]] += 1
        return Counter({kind: count for kind, count in found.items() if "mcrd-counters" not in kind})

    def twice_the_same() -> Counter[str] | None:
        before = kinds()
        time.sleep(0.2)
        return before if kinds() == before else None

    return eventually(twice_the_same, "the conversation is over")


def test_what_cannot_be_had_leaves_everything_as_it_was(mcrd_bench: Bench) -> None:
    of = streams(RULES)
    config = {"interfaces": ["in0"], "strategy": "pool", "num_workers": 3}
    with relay(mcrd_bench, "in0", *map(rule, of)) as running:
        before, process = running.ask("list-workers")["workers"], running.forwarder.process.pid
        counted = []
        for _ in range(2):
            highest = max(int(entry.name) for entry in Path(f"/proc/{process}/fd").iterdir())
            allowed = resource.prlimit(process, resource.RLIMIT_NOFILE)
            # A few sockets can be had, all of them cannot.
            resource.prlimit(process, resource.RLIMIT_NOFILE, (highest + 7, allowed[1]))
            with pytest.raises(PeerError, match="everything is as it was"):
                running.ask("apply", config=config)
            resource.prlimit(process, resource.RLIMIT_NOFILE, allowed)
            assert running.ask("list-workers")["workers"] == before
            counted.append(at_rest(process))
        assert counted[1] == counted[0]
        assert running.ask("apply", config=config)["workers_relieved"]
        assert running.ask("ping")["workers"] == 3


def ids(running: Relay) -> list[str]:
    return [one["rule_id"] for one in running.ask("list")["rules"]]


def test_rings_larger_than_this_machine_are_refused_and_none_is_made(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    """Half of the rings would do to bring a machine down that made them one after another."""
    rings = 2 * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // (262144 * 2048)
    file = written(tmp_path / "wanted.toml", "pool", num_workers=rings)
    file.write_text(file.read_text().replace("ring_frames = 32768", "ring_frames = 262144"))
    with relay(mcrd_bench, "in0", rule(streams(1)[0])) as running:
        before = running.ask("list-workers")
        for command in (("plan", "--diff"), ("apply",)):
            done = mcrctl(running.forwarder.control_path, *command, str(file))
            assert done.returncode == 2
            assert "everything is as it was: Cannot allocate memory: " in done.stderr
            assert f"MB of receive rings for {rings} workers, and " in done.stderr
            assert running.ask("list-workers") == before
    start = [program("mcrd"), "supervisor", "--config", str(file)]
    start += ["--control-socket-path", str(tmp_path / "control")]
    fresh = subprocess.run(
        netns.command(mcrd_bench.lab.fwd, start), capture_output=True, text=True, timeout=60, check=False
    )
    assert (fresh.returncode, "Cannot allocate memory" in fresh.stderr) == (1, True), fresh.stderr


def test_rules_that_the_state_file_has_no_room_for_leave_all_as_it_was(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    rules, state = [rule(one) for one in streams(4)], tmp_path / "state"
    config = {"interfaces": ["in0"], "strategy": "fanout", "num_workers": 1, "ring_frames": RING_FRAMES}
    with relay(mcrd_bench, "in0", *rules[:3], options=("--state-file", str(state))) as running:
        process, (first, *others) = running.forwarder.process.pid, ids(running)
        allowed = resource.prlimit(process, resource.RLIMIT_FSIZE)
        size = state.stat().st_size
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size - 1, allowed[1]))
        with pytest.raises(PeerError, match="everything is as it was"):
            running.ask("apply", config={**config, "rules": rules[1:]})
        assert ids(running) == [first, *others]
        # Room for a line that adds a rule, and for none that removes one.
        resource.prlimit(process, resource.RLIMIT_FSIZE, (size + size // 3 + 20, allowed[1]))
        running.ask("apply", config={**config, "rules": rules[2:]})
        resource.prlimit(process, resource.RLIMIT_FSIZE, allowed)
        kept = ids(running)
        assert kept == [one["rule_id"] for one in rules[2:]]
        os.kill(process, signal.SIGKILL)
        running.forwarder.process.wait()
        assert running.forwarder.again is not None
        running.forwarder.process = running.forwarder.again()
        assert ids(running) == kept


@pytest.mark.parametrize("command", ["apply", "add"])
def test_rules_whose_interface_cannot_be_served_leave_all_as_it_was(mcrd_bench: Bench, command: str) -> None:
    of = streams(2)
    here, there = rule(of[0]), rule(of[1], input_interface="in1")
    config = {"strategy": "pool", "num_workers": 2, "ring_frames": RING_FRAMES, "rules": [here, there]}
    request = {"config": config} if command == "apply" else {"rules": [there]}
    with relay(mcrd_bench, "", here, strategy="pool", workers=2) as running:
        process = running.forwarder.process.pid
        with Client(running.forwarder.control_path) as client:
            assert client.ask("ping")["ok"]
            at_rest(process)
            before = leave_descriptors(process, 1)
            refused = client.ask(command, **request)
            resource.prlimit(process, resource.RLIMIT_NOFILE, before)
            assert "everything is as it was" in refused["errors"][0]["allowed"]
            assert ids(running) == [here["rule_id"]]
            assert client.ask(command, **request)["ok"]
        jobs = [
            SenderJob(interface=name, streams=[one], count=100, rate_dps=1000, cpu=some_cpus()[0])
            for name, one in zip(("g0", "g1"), of, strict=True)
        ]
        assert_delivered(*running.transfer(jobs, ReceiverJob(flows=forwarded(of, 100), payload_bytes=64)))


def test_a_supervisor_that_was_killed_is_resumed_with_the_rules_it_had(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    of = streams(3)
    with relay(mcrd_bench, "in0", rule(of[0]), options=("--state-file", str(tmp_path / "state"))) as running:
        running.ask("add", rules=[rule(of[1])])
        config = {
            "interfaces": ["in0"],
            "strategy": "pool",
            "num_workers": 2,
            "rules": [rule(one) for one in of[1:]],
        }
        assert running.ask("apply", config=config)["rules_removed"] == [rule(of[0])["rule_id"]]
        rules = [one["rule_id"] for one in running.ask("list")["rules"]]
        os.kill(running.forwarder.process.pid, signal.SIGKILL)
        running.forwarder.process.wait()
        assert running.forwarder.again is not None
        running.forwarder.process = running.forwarder.again()
        assert [one["rule_id"] for one in running.ask("list")["rules"]] == rules
        assert len(rules) == 2
        job = SenderJob(interface="g0", streams=of[1:], count=200, rate_dps=1000, cpu=some_cpus()[0])
        receiver = ReceiverJob(flows=forwarded(of[1:], 100), payload_bytes=64)
        with mcrd_bench.transferring([job], receiver) as transfer:
            pass
        assert (sum(transfer.seen.received), sum(transfer.seen.lost)) == (200, 0)
