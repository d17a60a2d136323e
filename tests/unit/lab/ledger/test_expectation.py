"""Expectations: what passes, what fails, and what says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from record_support import trial_record

from lab.ledger.expectation import checks, unfit
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
    lost_of_inputs: tuple[int, ...] = (0, 0),
    **changes: Any,
) -> Trial:
    """100 datagrams, two outputs, two inputs, two workers, eight rules."""
    dropped = [Drop(place=p, reason=r, count=n) for (p, r), n in (drops or {}).items()]
    arrived = 100 - sum(drop.count for drop in dropped)
    measured = trial_record(
        setting=Setting(payload_bytes=64, inputs=2, outputs=2, rules=8),
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
            WorkerSample(worker_id=n, cpu=n, received=count, matched=count, rules=rules)
            for n, (count, rules) in enumerate(zip(matched, held, strict=True))
        ],
        inputs=[
            InputSample(interface=f"in{n}", offered=50, expected=100, delivered=100 - lost, duplicated=0)
            for n, lost in enumerate(lost_of_inputs)
        ],
    )
    return measured.model_copy(update=changes)


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
        ({"every_worker": True}, trial(), trial(matched=(100, 0))),
        ({"rules_held": "all"}, trial(held=(8, 8)), trial(held=(8, 7))),
        ({"rules_held": "part"}, trial(held=(3, 5)), trial(held=(8, 8))),
        ({"rules_held": "part"}, trial(held=(3, 5)), trial(held=(3, 4))),
    ],
)
def test_an_expectation_is_met_or_missed(expected: dict[str, Any], met: Trial, missed: Trial) -> None:
    wanted = Expect(case="c", dps=1000, **expected)
    (passed,), (failed,) = checks(wanted, met), checks(wanted, missed)
    assert (passed.passed, failed.passed) == (True, False)
    ((key, value),) = expected.items()
    assert passed.expected == failed.expected == f"{key} = {str(value).lower()}"
    assert passed.observed != failed.observed


def test_each_key_is_a_check_and_says_under_which_load() -> None:
    wanted = Expect(case="c", dps=20_000, copies=1, every_worker=True, wrong_worker=0)
    made = checks(wanted, trial())
    assert [check.expected for check in made] == ["copies = 1", "wrong_worker = 0", "every_worker = true"]
    assert {check.case for check in made} == {"c, at 20,000 dps"}
    flooded = trial(setting=Setting(payload_bytes=64, inputs=2, skew=8))
    assert checks(Expect(case="c", lost=0), flooded)[0].case == "c, flat out, in0 gets 8 times the others"


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
