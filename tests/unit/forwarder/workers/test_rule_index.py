"""Which workers know a rule, and by which numbers, while rules come and go."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from forwarder.config.plan_options import described_rules
from forwarder.plan.host import described_host
from forwarder.plan.model import Plan, Sizing
from forwarder.plan.planner import plan
from forwarder.plan.strategy import PRESETS, Steering
from forwarder.rules.model import ForwardingRule, Output
from forwarder.workers.rule_index import FOREIGN, RuleIndex

NAMES = ["eth0", "eth1", "eth2"]


def planned(strategy: str, steering: Steering | None = None, workers: int = 3) -> Plan:
    chosen = PRESETS[strategy].customised(steering=steering)
    return plan(described_host(4, NAMES), NAMES, [], chosen, Sizing(workers=workers))


def tables(of: Plan, most_rules: int = 1000) -> RuleIndex:
    return RuleIndex(of, most_rules=most_rules, most_outputs=4, most_inputs=8)


@pytest.mark.parametrize("steering", [None, Steering.FILTER, Steering.CPU])
@pytest.mark.parametrize("strategy", ["pool", "rule-hash", "hybrid-hash", "hybrid"])
def test_what_workers_are_told_one_by_one_is_what_a_new_one_is_told(
    strategy: str, steering: Steering | None
) -> None:
    if steering is Steering.FILTER and not PRESETS[strategy].steers_by_rule:
        steering = None
    of = planned(strategy, steering)
    made, chance = tables(of), random.Random(1)
    known: dict[int, dict[int, tuple[int, int]]] = {part.partition_id: {} for part in of.partitions}
    waiting, held = described_rules(200, NAMES), list[ForwardingRule]()
    for _ in range(300):
        if waiting and (not held or chance.random() < 0.6):
            rules = [waiting.pop() for _ in range(min(len(waiting), chance.randint(1, 5)))]
            assert made.problems(rules) == ()
            for partition, added in made.add(rules).items():
                known[partition].update({one.key: (one.slot, len(one.outputs)) for one in added})
            held += rules
        else:
            rule = held.pop(chance.randrange(len(held)))
            removed = made.remove(rule)
            for partition in removed.known_to:
                del known[partition][removed.key]
            made.give_back(removed)
            waiting.append(rule)
        for partition, entries in known.items():
            contents = {one.key: (one.slot, len(one.outputs)) for one in made.contents(partition)}
            assert contents == entries
            own = [slot for slot, outputs in entries.values() if outputs]
            assert len(own) == len(set(own)) == made.held(partition)
            assert all(slot == FOREIGN for slot, outputs in entries.values() if not outputs)
            assert made.slots_used(partition) > max(own, default=-1)
    for rule in held:
        partition, slot = made.place(rule)
        assert slot in {place for place, _ in known[partition].values()}
    assert made.rules_on("eth0") == sum(rule.input_interface == "eth0" for rule in held)


def test_only_where_datagrams_may_go_astray_do_workers_know_the_rules_of_others() -> None:
    rules = described_rules(60, NAMES)
    astray, steered = tables(planned("rule-hash", Steering.CPU)), tables(planned("rule-hash"))
    astray.add(rules)
    steered.add(rules)
    assert [len(astray.contents(partition)) for partition in range(3)] == [60] * 3
    assert sum(len(steered.contents(partition)) for partition in range(3)) == 60
    assert sum(astray.held(partition) for partition in range(3)) == 60


def test_the_slot_of_a_removed_rule_is_nobodys_until_it_is_given_back() -> None:
    made = tables(planned("pool"))
    first, second = described_rules(2, NAMES)
    made.add([first])
    removed = made.remove(first)
    made.add([first])
    again = made.place(first)
    assert again != (removed.partition, removed.slot), "workers may still count in it"
    made.give_back(removed)
    made.add([second])
    assert made.place(second) == (removed.partition, removed.slot)
    assert (made.place(first), made.slots_used(removed.partition)) == (again, 2)


def test_all_that_cannot_be_placed_is_named() -> None:
    made = tables(planned("pool"), most_rules=2)
    rules = described_rules(4, ["eth0", "other", "eth1", "eth2"])
    problems = made.problems(rules)
    assert [problem.field for problem in problems] == ["rules[1].input_interface", "rules[3]"]
    assert problems[0].value == "'other' of rule 'rule-1'"
    assert problems[0].allowed.endswith("eth0, eth1, eth2")
    many = tuple(Output(group=IPv4Address("239.9.9.9"), port=1, interface=f"out{n}") for n in range(5))
    [problem] = made.problems([rules[0].model_copy(update={"outputs": many})])
    assert problem.value == "5 output interfaces"


def test_interfaces_from_rules_are_bounded() -> None:
    following = plan(described_host(2, NAMES), (), [], PRESETS["pool"], Sizing(follow_rules=True))
    made = RuleIndex(following, most_rules=100, most_outputs=4, most_inputs=2)
    rules = described_rules(3, NAMES)
    made.add(rules[:2])
    [problem] = made.problems(rules[2:])
    assert problem.value == "3 input interfaces"
    made.give_back(made.remove(rules[0]))
    assert made.problems(rules[2:]) == ()


def test_the_distribution_follows_the_rules() -> None:
    rules, of = described_rules(90, NAMES), planned("hybrid-hash")
    made = tables(of)
    assert [(found.workers, found.rules, found.most) for found in made.distributions()] == [(3, 0, 0)] * 3
    made.add(rules)
    found = made.distributions()
    assert made.distributions() is found
    assert [entry.rules for entry in found] == [30] * 3
    for entry in found:
        held = [made.held(worker.partition) for worker in of.workers if worker.group == entry.group]
        assert (entry.least, entry.most) == (min(held), max(held))
        assert entry.moved_by_one_less == held[-1]
    made.remove(rules[0])
    assert sorted(entry.rules for entry in made.distributions()) == [29, 30, 30]


def test_rules_on_every_worker_are_counted_once() -> None:
    made = tables(planned("pool"))
    made.add(described_rules(90, NAMES))
    [found] = made.distributions()
    assert (found.workers, found.rules, found.least, found.most, found.imbalance) == (3, 90, 90, 90, 1.0)
