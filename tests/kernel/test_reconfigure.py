"""A running forwarder is given another plan or other rules under load: nothing is lost, nothing repeated."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kernel_support.mcrd import (
    Client,
    Relay,
    counts,
    eventually,
    forwarded,
    mcrctl,
    relay,
    rule,
    rule_counts,
    some_cpus,
)
from kernel_support.traffic import Bench, streams

from lab.traffic.receiver import ReceiverJob
from lab.traffic.sender import SenderJob

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
    path.write_text("\n".join(lines))
    return path


def applied(running: Relay, file: Path, *options: str) -> dict[str, Any]:
    done = mcrctl(running.forwarder.control_path, "apply", str(file), "--json", *options)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_another_strategy_and_width_take_over_under_load_and_no_datagram_is_lost(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    of = streams(RULES)
    job = SenderJob(interface="g0", streams=of, count=64_000, rate_dps=16_000, cpu=some_cpus()[0])
    receiver = ReceiverJob(flows=forwarded(of, 2000), payload_bytes=64)
    plans = (
        ("rule-hash", {"num_workers": 2}, 2),
        ("rule-hash", {"num_workers": 3}, 3),
        ("pool", {"num_workers": 2}, 2),
        ("dynamic", {"max_workers_per_interface": 2}, 1),
        ("rule-hash", {"num_workers": 2, "hashing": "modulo"}, 2),
    )
    with relay(mcrd_bench, "in0", *map(rule, of), strategy="fanout", workers=1) as running:
        with mcrd_bench.transferring([job], receiver) as transfer:
            eventually(lambda: counts(running.forwarder.stats()).matched, "the first datagram is forwarded")
            for strategy, options, workers in plans:
                file = written(tmp_path / "wanted.toml", strategy, **options)
                config = tomllib.loads(file.read_text())
                assert running.ask("apply", config=config)["workers_relieved"]
                again = running.ask("apply", config=config)
                assert (again["plan"], again["workers_relieved"]) == (None, False), "it is as wanted"
                assert running.ask("ping")["workers"] == workers
            assert counts(running.forwarder.stats()).matched < 64_000, "all of that was under load"
        stats = running.forwarder.stats()
        seen, counted = transfer.seen, counts(stats)
        assert (transfer.offered, counted.dropped) == (64_000, {})
        assert (counted.received, counted.matched, counted.sent) == (64_000, 64_000, 64_000)
        assert (sum(seen.lost), sum(seen.duplicated), sum(seen.corrupted)) == (0, 0, 0)
        assert set(rule_counts(stats).values()) == {(2000, 2000)}


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


WRONG = (
    ('interfaces = ["in0"', ["TOML"]),
    ('interfaces = ["in0"]\nnum_workers = 0\nstrategy = "best"', ["num_workers: 0", "strategy: 'best'"]),
    ('interfaces = ["in0"]\ncontrol_socket_path = "/elsewhere"', ["control_socket_path", "a new start"]),
    ('interfaces = ["in1"]', ["an interface that the workers serve: in1"]),
)


def test_a_file_that_is_wrong_changes_nothing_and_of_two_at_once_one_is_refused(
    mcrd_bench: Bench, tmp_path: Path
) -> None:
    with relay(mcrd_bench, "in0", rule(streams(1)[0])) as running:
        path = running.forwarder.control_path
        before = running.ask("list-workers")["workers"]
        file = tmp_path / "wrong.toml"
        for content, complaints in WRONG:
            file.write_text(content)
            refused = mcrctl(path, "apply", str(file))
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
