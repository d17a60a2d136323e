"""Whether a trial shows what its scenario expects of it. Pure: one trial in, one check for each key out."""

from lab.results import Check, Setting, Trial
from lab.scenario.tables import Expect

OUTSIDE = frozenset({("softnet", "input backlog full"), ("receiver", "capture ring full")})
"""Drops (place, reason) before the subject sees a datagram, or after it has let go of a copy."""


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
    """One for each key that ``expect`` has, in their order."""
    judges = (_pace, _copies, _lost, _others_lost, _wrong_worker, _every_worker, _rules_held)
    judged = {judge.__name__.removeprefix("_"): judge for judge in judges}
    made = []
    for key, wanted in expect.expected.items():
        passed, observed = judged[key](wanted, trial)
        case, expected = name_of(expect, trial.setting), f"{key} = {str(wanted).lower()}"
        made.append(
            Check(scenario=trial.scenario, case=case, passed=passed, expected=expected, observed=observed)
        )
    return made


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


def _every_worker(_: object, trial: Trial) -> Judgement:
    matched = [worker.matched for worker in trial.workers]
    return bool(matched) and min(matched) > 0, f"matched {', '.join(f'{count:,}' for count in matched)}"


def _rules_held(wanted: object, trial: Trial) -> Judgement:
    held, rules = [worker.rules for worker in trial.workers], trial.setting.rules
    right = set(held) == {rules} if wanted == "all" else sum(held) == rules and max(held) < rules
    return right, f"{', '.join(f'{count:,}' for count in held)} of {rules:,} rules"


def _amount(wanted: object, count: int) -> bool:
    return count > 0 if wanted == "some" else count == wanted


def _drops(trial: Trial) -> str:
    drops = (*trial.ledger.ingress.drops, *trial.ledger.egress.drops)
    return f" ({'; '.join(f'{d.place}: {d.reason}, {d.count:,}' for d in drops)})" if drops else ""
