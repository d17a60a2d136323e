"""Expectations: what passes, what fails, and what says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
from record_support import trial_record

from lab.ledger.expectation import checks, least_share, miscounted, unfit
from lab.results import Drop, InputSample, Ledger, Setting, Stage, Streams, Trial, WorkerSample
from lab.scenario.tables import Expect


def trial(
    *,
    delivered: int = 200,
    duplicated: int = 0,
    copies_max: int = 1,
    drops: dict[tuple[str, str], int] | None = None,
    matched: tuple[int, ...] = (60, 40),
    held: tuple[int, ...] = (3, 5),
    groups: tuple[tuple[int, ...], ...] = ((0, 0, 1), (0, 0, 1)),
    layout: Mapping[str, Any] | None = None,
    lost_of_inputs: tuple[int, ...] = (0, 0),
    **changes: Any,
) -> Trial:
    """100 datagrams, two outputs, two inputs, two workers, eight rules.

    ``groups``: of each worker its group, then the numbers of its inputs.
    """
    dropped = [Drop(place=p, reason=r, count=n) for (p, r), n in (drops or {}).items()]
    arrived = 100 - sum(drop.count for drop in dropped)
    measured = trial_record(
        setting=Setting(payload_bytes=64, inputs=2, outputs=2, rules=8, **(layout or {})),
        asked_dps=1000,
        duration_ns=100_000_000,
        delivered=delivered,
        expected=200,
        ledger=Ledger(
            ingress=Stage(entered=100, left=arrived, drops=dropped),
            egress=Stage(entered=2 * arrived, left=2 * arrived),
        ),
        streams=Streams(
            streams=2,
            checked=delivered + duplicated,
            lost=200 - delivered,
            duplicated=duplicated,
            reordered=0,
            copies_max=copies_max,
        ),
        workers=[
            WorkerSample(
                worker_id=n,
                cpu=n,
                group=group,
                interfaces=tuple(f"in{into}" for into in inputs),
                received=count,
                matched=count,
                rules=rules,
            )
            for n, (count, rules, (group, *inputs)) in enumerate(zip(matched, held, groups, strict=False))
        ],
        inputs=[
            InputSample(interface=f"in{n}", offered=50, expected=100, delivered=100 - lost, duplicated=0)
            for n, lost in enumerate(lost_of_inputs)
        ],
    )
    return measured.model_copy(update=changes)


apart = partial(trial, groups=((0, 0), (1, 1)), layout={"strategy": "fanout-per-interface", "workers": 1})
shared = partial(trial, layout={"strategy": "fanout", "workers": 2, "flows": 100})
four = partial(
    trial,
    matched=(25, 25, 25, 25),
    groups=((0, 0), (0, 0), (1, 1), (1, 1)),
    layout={"strategy": "hybrid-hash", "groups": 2, "workers": 2},
)
WRONG = {("forwarder", "wrong_worker"): 10}


@pytest.mark.parametrize(
    ("expected", "met", "missed"),
    [
        ({"copies": 1}, trial(), trial(delivered=199)),
        ({"copies": 1}, trial(), trial(duplicated=1, copies_max=2)),
        ({"copies": 2}, trial(duplicated=200, copies_max=2), trial()),
        # As many in all, but one datagram three times and another once.
        ({"copies": 2}, trial(duplicated=200, copies_max=2), trial(duplicated=200, copies_max=3)),
        ({"lost": 0}, trial(duplicated=3, copies_max=2), trial(delivered=199)),
        ({"lost": "some"}, trial(delivered=199), trial()),
        ({"others_lost": 0}, trial(lost_of_inputs=(40, 0)), trial(lost_of_inputs=(40, 1))),
        ({"wrong_worker": 0}, trial(), trial(drops=WRONG)),
        ({"wrong_worker": "some"}, trial(drops=WRONG), trial()),
        ({"every_worker": 0.8}, apart(), apart(matched=(61, 39))),
        ({"every_worker": 0.5}, shared(matched=(75, 25)), shared(matched=(76, 24))),
        ({"rules_held": "all"}, trial(held=(8, 8)), trial(held=(8, 7))),
        ({"rules_held": "all"}, apart(held=(4, 4)), apart(held=(8, 8))),
        ({"rules_held": "all"}, apart(held=(4, 4)), apart(held=(4, 4), groups=((0, 0), (0, 0)))),
        ({"rules_held": "part"}, shared(held=(3, 5)), shared(held=(8, 8))),
        ({"rules_held": "part"}, shared(held=(3, 5)), shared(held=(3, 4))),
        ({"rules_held": "part"}, four(held=(1, 3, 2, 2)), four(held=(1, 2, 2, 3))),
        ({"rules_held": "part"}, four(held=(1, 3, 2, 2)), four(held=(4, 0, 2, 2))),
    ],
)
def test_an_expectation_is_met_or_missed(expected: dict[str, Any], met: Trial, missed: Trial) -> None:
    wanted = Expect(case="c", dps=1000, **expected)
    passed, failed = checks(wanted, met)[-1], checks(wanted, missed)[-1]
    assert (passed.passed, failed.passed) == (True, False)
    ((key, value),) = expected.items()
    assert passed.expected == failed.expected == f"{key} = {str(value).lower()}"
    assert passed.observed != failed.observed


def test_each_key_is_a_check_and_says_under_which_load() -> None:
    wanted = Expect(case="c", dps=20_000, copies=1, every_worker=0.5, wrong_worker=0)
    made = checks(wanted, shared())
    keys = ["workers = 2", "copies = 1", "wrong_worker = 0", "every_worker = 0.5"]
    assert [check.expected for check in made] == keys
    assert all(check.passed for check in made)
    assert {check.case for check in made} == {"c, at 20,000 dps"}
    flooded = trial(setting=Setting(payload_bytes=64, inputs=2, skew=8))
    assert checks(Expect(case="c", lost=0), flooded)[0].case == "c, flat out, in0 gets 8 times the others"


@pytest.mark.parametrize(
    ("layout", "running", "wrong"),
    [
        ({"strategy": "rule-hash", "workers": 2}, 2, False),
        ({"strategy": "rule-hash", "workers": 2}, 1, True),
        ({"strategy": "full-fanout", "workers": 2}, 4, False),
        ({"strategy": "full-fanout", "workers": 2}, 2, True),
        ({"strategy": "dynamic", "workers": 2}, 2, False),
        ({"strategy": "dynamic", "workers": 2}, 4, False),
        ({"strategy": "dynamic", "workers": 2}, 1, True),
        ({"strategy": "dynamic", "workers": 2}, 5, True),
    ],
)
def test_another_number_of_workers_than_the_strategy_makes_is_a_failure(
    layout: dict[str, Any], running: int, wrong: bool
) -> None:
    worker = WorkerSample(worker_id=0, cpu=0, group=0, received=0, matched=0)
    parked = worker.model_copy(update={"group": None})
    seen = trial(layout=layout, workers=[*running * [worker], parked])
    assert (miscounted(seen) is not None) == wrong
    number, copies = checks(Expect(case="c", copies=1, aim=True), seen)
    assert (number.passed, number.aim) == (not wrong, False)
    assert copies.aim, "a number of workers is a fact, whatever is only hoped for"


@pytest.mark.parametrize(
    ("flows", "workers", "least"),
    [(80, 1, 0.5), (80, 2, 0.5), (80, 4, 0.2254), (80, 40, 0.0), (4000, 8, 0.5)],
)
def test_no_more_is_demanded_of_each_worker_than_chance_leaves(
    flows: int, workers: int, least: float
) -> None:
    setting = Setting(payload_bytes=64, strategy="fanout", workers=workers, flows=flows)
    assert least_share(0.5, setting) == pytest.approx(least, abs=1e-4)


def test_a_check_that_fails_says_where_the_datagrams_went() -> None:
    (check,) = checks(Expect(case="c", lost=0), trial(delivered=180, drops=WRONG))
    assert check.observed == "20 of 200 copies lost (forwarder: wrong_worker, 10)"


@pytest.mark.parametrize("dropped", [("softnet", "input backlog full"), ("receiver", "capture ring full")])
def test_what_others_lost_says_nothing_about_the_subject(dropped: tuple[str, str]) -> None:
    why = unfit(trial(drops={dropped: 3}))
    assert why is not None
    assert dropped[1] in why


def test_a_trial_that_offered_too_little_says_nothing() -> None:
    assert unfit(trial(validity="invalid", warnings=["offered 80 of 100"])) == "offered 80 of 100"
    assert unfit(trial(drops=WRONG)) is None
