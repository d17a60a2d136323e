"""Whether a trial shows what its scenario expects of it. Pure: one trial in, one check for each key out."""

import math
from collections.abc import Iterator

from forwarder.plan.strategy import RulePlacement
from lab.load.flows import rules_on
from lab.results import Check, Setting, Trial, WorkerSample
from lab.scenario.layout import (
    groups_in,
    is_elastic,
    least_workers,
    receivers_of,
    strategy_of,
    workers_in_all,
)
from lab.scenario.tables import Expect

OUTSIDE = frozenset({("softnet", "input backlog full"), ("receiver", "capture ring full")})
"""Drops (place, reason) before the subject sees a datagram, or after it has let go of a copy."""
CHANCE = 4.0
"""Standard deviations below its mean that chance leaves a worker: less once in 30,000 times."""


def unfit(trial: Trial) -> str | None:
    """Why a trial proves nothing and should be repeated; ``None`` if it does."""
    return trial.warnings[0] if trial.validity == "invalid" else lost_elsewhere(trial)


def lost_elsewhere(trial: Trial) -> str | None:
    """Drops outside the subject, in words; ``None`` without any."""
    drops = (*trial.ledger.ingress.drops, *trial.ledger.egress.drops)
    outside = [f"{d.place}: {d.reason}, {d.count:,}" for d in drops if (d.place, d.reason) in OUTSIDE]
    return f"lost by others than the subject: {'; '.join(outside)}" if outside else None


def name_of(expect: Expect, setting: Setting) -> str:
    """Name of a check: the case and its load."""
    rate = "flat out" if expect.dps is None else f"at {expect.dps:,} dps"
    inputs = f", in0 gets {setting.skew} times the others" if setting.skew > 1 else ""
    return f"{expect.case}, {rate}{inputs}"


def checks(expect: Expect, trial: Trial) -> list[Check]:
    """The number of workers where there are any, then one for each key of ``expect``, in their order."""
    judges = (_pace, _copies, _lost, _others_lost, _wrong_worker, _every_worker, _rules_held)
    judged = {judge.__name__.removeprefix("_"): judge for judge in judges}
    made = [
        (key, str(wanted).lower(), *judged[key](wanted, trial), expect.aim)
        for key, wanted in expect.expected.items()
    ]
    if trial.setting.workers is not None:
        right, running = miscounted(trial) is None, str(len(_active(trial)))
        made.insert(0, ("workers", _count_text(trial.setting), right, running, False))
    return [
        Check(
            scenario=trial.scenario,
            case=name_of(expect, trial.setting),
            passed=passed,
            expected=f"{key} = {wanted}",
            observed=observed,
            aim=aim,
        )
        for key, wanted, passed, observed, aim in made
    ]


def miscounted(trial: Trial) -> str | None:
    """Why the number of workers is not what the strategy makes; ``None`` if it is, or that is not known."""
    setting, count = trial.setting, len(_active(trial))
    if setting.workers is None or trial.purpose == "change":
        return None
    if least_workers(setting) <= count <= workers_in_all(setting):
        return None
    return f"{count} workers, where the strategy makes {_count_text(setting)}"


def _count_text(setting: Setting) -> str:
    least, most = least_workers(setting), workers_in_all(setting)
    return f"{least} to {most}" if is_elastic(setting) and most > least else f"{least}"


def _active(trial: Trial) -> list[WorkerSample]:
    """Without those that an elastic group has no use for."""
    return [worker for worker in trial.workers if worker.group is not None]


Judgement = tuple[bool, str]


def _pace(wanted: object, trial: Trial) -> Judgement:
    asked = trial.asked_dps or 0
    away = abs(trial.offered_dps / asked - 1) if asked else 1.0
    late = f", {trial.generated.late_ns_max / 1000:,.0f} µs late at most" if trial.generated else ""
    text = f"{trial.offered_dps:,.0f} of {asked:,} dps{late}"
    return isinstance(wanted, float) and away <= wanted, text


def _copies(wanted: object, trial: Trial) -> Judgement:
    """Each came exactly ``wanted`` times: the sum is right, none is missing, and none came more often."""
    streams = trial.streams
    if streams is None or not isinstance(wanted, int):
        return False, "nothing was received"
    again, most = streams.duplicated, streams.copies_max or 0
    exactly = trial.delivered == trial.expected and again == (wanted - 1) * trial.expected and most == wanted
    text = f"{trial.delivered:,} of {trial.expected:,} arrived, {again:,} again, at most {most} times"
    return exactly, text + _drops(trial)


def _lost(wanted: object, trial: Trial) -> Judgement:
    lost = trial.expected - trial.delivered
    return _amount(wanted, lost), f"{lost:,} of {trial.expected:,} copies lost{_drops(trial)}"


def _others_lost(wanted: object, trial: Trial) -> Judgement:
    flooded, *others = trial.inputs
    lost = sum(sample.expected - sample.delivered for sample in others)
    due = sum(sample.expected for sample in others)
    of_flooded = f"{flooded.expected - flooded.delivered:,} of {flooded.expected:,}"
    text = f"{lost:,} of {due:,} copies lost; of {flooded.interface} {of_flooded}"
    return _amount(wanted, lost) and due > 0, text


def _wrong_worker(wanted: object, trial: Trial) -> Judgement:
    wrong = sum(drop.count for drop in trial.ledger.ingress.drops if drop.reason == "wrong_worker")
    return _amount(wanted, wrong), f"{wrong:,} of {trial.offered:,} datagrams"


def _every_worker(wanted: object, trial: Trial) -> Judgement:
    matched = [worker.matched for worker in _active(trial)]
    if not matched or not isinstance(wanted, float):
        return False, "no workers"
    share, even = least_share(wanted, trial.setting), max(1, sum(matched) / len(matched))
    text = f"matched {_listed(matched)}: {min(matched) / even:.0%} of the even share at least"
    return min(matched) >= share * even, text + (f", {share:.0%} is left by chance" if share < wanted else "")


def least_share(wanted: float, setting: Setting) -> float:
    """``wanted`` of an even share, or what chance may leave of it where it deals flows to workers."""
    workers = setting.workers or 1
    if workers == 1 or setting.strategy is None or receivers_of(setting) > 1:
        return wanted
    axes = strategy_of(setting.strategy, setting.placement, setting.steering, setting.hashing)
    # Flows of a rule stay together where rules have their workers.
    dealt = setting.flows if axes.placement is not RulePlacement.HASH else min(setting.flows, setting.rules)
    each = dealt / groups_in(setting.strategy, setting.inputs, setting.groups) / workers
    return max(0.0, min(wanted, 1 - CHANCE * math.sqrt((1 - 1 / workers) / each)))


def _rules_held(wanted: object, trial: Trial) -> Judgement:
    right, texts, rules = True, [], 0
    for members in _groups(trial):
        interfaces = {name for worker in members for name in worker.interfaces}
        due, held = sum(rules_on(name, trial.setting) for name in interfaces), [w.rules for w in members]
        alone = wanted == "all" or len(held) == 1
        right &= set(held) == {due} if alone else sum(held) == due and max(held) < due
        rules += due
        texts.append(f"{_listed(held)} of {due:,} rules")
    return right and rules == trial.setting.rules, "; ".join(dict.fromkeys(texts)) or "no workers"


def _groups(trial: Trial) -> Iterator[list[WorkerSample]]:
    """The workers of each group."""
    workers = _active(trial)
    for group in sorted({worker.group or 0 for worker in workers}):
        yield [worker for worker in workers if worker.group == group]


LISTED = 8


def _listed(counts: list[int]) -> str:
    """Each of a few numbers, the ends of many."""
    few = len(counts) <= LISTED
    return ", ".join(f"{n:,}" for n in counts) if few else f"{min(counts):,} to {max(counts):,}"


def _amount(wanted: object, count: int) -> bool:
    return count > 0 if wanted == "some" else count == wanted


def _drops(trial: Trial) -> str:
    drops = (*trial.ledger.ingress.drops, *trial.ledger.egress.drops)
    return f" ({'; '.join(f'{d.place}: {d.reason}, {d.count:,}' for d in drops)})" if drops else ""
