"""Strategies side by side: which cases belong together, where each figure is read, and long runs' pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from lab.results import (
    AnyRecord,
    Check,
    Comparison,
    Cpu,
    Drop,
    Footprint,
    InputSample,
    Latency,
    Ledger,
    Memory,
    Setting,
    Stage,
    Trial,
    WorkerSample,
    ZeroLoss,
)
from reports import accounts, footprints, inputs, labels, page, strategies, strategy_figures, summary, words
from reports.dataset import Dataset, sort_records
from reports.folds import ROWS_SHOWN
from reports.model import ITEMS_SHOWN, Table

SECOND = 1_000_000_000


def setting(strategy: str | None = "fanout", **changes: object) -> Setting:
    return Setting(payload_bytes=64, flows=8, rules=8, strategy=strategy).model_copy(update=changes)


@dataclass(frozen=True)
class Numbers:
    """What a made-up trial measured."""

    received: tuple[int, ...] = ()
    p99: int | None = None
    busy_ns: int | None = None
    baseline_ns: int | None = None
    astray: int = 0


def trial(
    case: str, offered: int, given: Setting, numbers: Numbers | None = None, **changes: object
) -> Trial:
    n = numbers or Numbers()
    left = offered - n.astray
    made = Trial(
        trial_id=f"{case}-{offered}",
        scenario="s",
        case=case,
        subject="mcrd" if given.strategy else "kernel",
        setting=given,
        purpose="search",
        asked_dps=offered,
        duration_ns=SECOND,
        offered=offered,
        delivered=left,
        expected=offered,
        validity="valid",
        ledger=Ledger(
            ingress=Stage(
                entered=offered,
                left=left,
                drops=[Drop(place="forwarder", reason="wrong_worker", count=n.astray)],
            ),
            egress=Stage(entered=left, left=left),
        ),
        latency=None if n.p99 is None else Latency(count=1, p50=1000, p90=1, p99=n.p99, p999=1, max=1),
        cpu=None
        if n.busy_ns is None
        else Cpu(busy_ns=n.busy_ns, softirq_ns=0, baseline_ns=n.baseline_ns, copies=left),
        workers=[
            WorkerSample(worker_id=i, cpu=i, received=part, matched=part) for i, part in enumerate(n.received)
        ],
    )
    return made.model_copy(update=changes)


def rate(case: str, lower: float | None, given: Setting, **changes: object) -> ZeroLoss:
    made = ZeroLoss(
        scenario="s",
        case=case,
        subject="mcrd",
        setting=given,
        goal_loss_ratio=0,
        lower_dps=lower,
        upper_dps=None if lower is None else lower * 1.1,
        generator_ceiling_dps=500_000,
        bound_by="forwarder",
        trial_ids=[],
    )
    return made.model_copy(update=changes)


def footprint(case: str, workers: int, **changes: object) -> Footprint:
    made = Footprint(
        scenario="s",
        case=case,
        strategy="fanout",
        interfaces=1,
        cpus=2,
        workers=workers,
        rules=8,
        rules_per_worker=8,
        documented_bytes=None,
        modelled_bytes=workers * 1_000_000,
        memory=Memory(
            workers=workers,
            private_bytes_per_worker=1_000_000,
            pss_bytes_total=0,
            ring_bytes_total=0,
            template_bytes=30_000_000,
        ),
        ready_ns=SECOND,
    )
    return made.model_copy(update=changes)


def rows(table: Table) -> list[dict[str, str]]:
    return [
        {c.title: cell.text for c, cell in zip(table.columns, row.cells, strict=True)} for row in table.rows
    ]


def only_group(records: Iterable[AnyRecord]) -> strategies.Group:
    (group,) = strategies.groups(sort_records(records))
    return group


# ---------------------------------------------------------------------------------- what belongs together


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (setting("pool"), True),
        (setting("fanout", steering="filter"), True),
        (setting("fanout", placement="hash"), True),
        (setting("fanout", groups=2), True),
        (setting("pool", inputs=20), True),
        (setting("fanout", workers=4), False),
        (setting("pool", payload_bytes=512), False),
        (setting("pool", rules=9), False),
        (setting("pool", burst=16), False),
        (setting("pool", egress="offload"), False),
        (setting(None), False),
    ],
)
def test_strategies_are_compared_on_the_same_load_only(other: Setting, together: bool) -> None:
    numbers = Numbers(received=(1,))
    data = sort_records([trial("a", 1000, setting(), numbers), trial("b", 1000, other, numbers)])
    assert len(strategies.groups(data)) == int(together)


def test_cases_of_two_scenarios_are_not_compared() -> None:
    other = rate("b", 2000, setting("pool"), scenario="t")
    assert strategies.groups(sort_records([rate("a", 1000, setting()), other])) == []


def test_a_case_is_shown_with_the_steering_that_suited_it_best() -> None:
    steered = setting(rps=True)
    records = [
        rate("a", 100_000, setting()),
        rate("a", 200_000, steered),
        trial("a", 50_000, setting(), Numbers(received=(5, 0))),
        trial("a", 100_000, steered, Numbers(received=(6, 4))),
        rate("b", None, setting("pool")),
    ]
    group = only_group(records)
    assert [entry.half_dps for entry in group.entries] == [100_000, None]
    assert group.entries[0].shares == (1.2, 0.8)
    rates = [row["Zero-loss rate"] for row in rows(strategies.table(group))]
    assert rates == ["200,000", "none found"]


def test_figures_are_read_next_to_half_the_rate_and_latency_where_it_was_made() -> None:
    tick_ns = 20_000_000
    records = [
        rate("a", 100_000, setting()),
        trial("a", 99_000, setting(), Numbers((9, 1), p99=9_000_000, busy_ns=900_000_000)),
        trial("a", 60_000, setting(), Numbers((6, 4), p99=60_000, busy_ns=600_000_000)),
        trial("a", 51_000, setting(), Numbers((5, 5), p99=51_000, busy_ns=tick_ns)),
        trial("a", 20_000, setting(), Numbers(p99=20_000), purpose="latency"),
        rate("b", 100_000, setting("pool")),
        trial("b", 49_000, setting("pool"), Numbers((1,), p99=49_000)),
        trial("b", 49_500, setting("pool"), Numbers((2,), p99=1), validity="invalid"),
    ]
    a, b = only_group(records).entries
    assert a.latency is not None
    assert a.cpu is not None
    assert a.shared is not None
    assert (a.latency.offered, a.cpu.offered, a.shared.offered) == (20_000, 60_000, 51_000)
    assert b.latency is not None
    assert b.latency.offered == 49_000
    first, second = rows(strategies.table(only_group(records)))
    assert (first["p50 / p99"], first["CPU"]) == ("1.0 / 20.0", "10.00")
    assert (second["p50 / p99"], second["CPU"]) == ("1.0 / 49.0", "–")


def test_processor_time_net_of_the_baseline_is_taken_before_any_other() -> None:
    records = [
        rate("a", 100_000, setting()),
        trial("a", 50_000, setting(), Numbers(busy_ns=500_000_000)),
        trial("a", 40_000, setting(), Numbers(busy_ns=500_000_000, baseline_ns=300_000_000)),
        rate("b", 100_000, setting("pool")),
    ]
    assert rows(strategies.table(only_group(records)))[0]["CPU"] == "5.00"


def test_memory_is_that_of_the_footprint_of_the_same_scenario_and_case() -> None:
    records = [
        rate("a", 100_000, setting()),
        rate("b", 100_000, setting("pool")),
        footprint("a", 4, documented_bytes=4_000_000),
        footprint("b", 9, scenario="t"),
    ]
    first, second = rows(strategies.table(only_group(records)))
    found = [first[name] for name in ("Workers", "Documented", "Modelled", "Measured")]
    assert found == ["4", "4.00", "4.00", "34.0"]
    assert [second[name] for name in ("Documented", "Modelled", "Measured")] == ["–", "–", "–"]


def test_columns_without_a_figure_are_left_out() -> None:
    records = [rate("a", 100_000, setting()), rate("b", 100_000, setting("pool"))]
    titles = [column.title for column in strategies.table(only_group(records)).columns]
    assert titles == ["Strategy", "Zero-loss rate", "Wrong worker"]


def test_idle_workers_and_datagrams_gone_astray_are_told() -> None:
    records = [
        trial("a", 1000, setting(), Numbers(received=(600, 400, 0, 0))),
        trial("b", 1000, setting("rule-hash", steering="cpu"), Numbers(received=(1000,), astray=400)),
        trial("b", 2000, setting("rule-hash", steering="cpu"), Numbers(received=(2000,), astray=700)),
    ]
    table = strategies.table(only_group(records))
    first, second = rows(table)
    assert (first["Worker shares"], second["Worker shares"]) == ("0.00 to 2.40", "all by one")
    assert (first["Wrong worker"], second["Wrong worker"]) == ("0", "1,100")
    details = [line for cell in table.rows[0].cells for line in cell.detail.splitlines()]
    assert "2 of 4 without any" in details
    drawn = strategy_figures.tables_and_figures(sort_records(records))
    described = [part.description for part in drawn if not isinstance(part, Table)]
    assert len(described) == 1
    assert "a, 4 workers: 0.00 to 2.40, 2 of 4 without any" in described[0]


def test_the_summary_does_not_rank_what_the_generator_ended() -> None:
    records = [
        rate("a", 100_000, setting(), upper_dps=None, bound_by="generator"),
        rate("b", 90_000, setting("pool")),
        rate("c", 100_000, setting("hybrid"), upper_dps=None, bound_by="generator"),
    ]
    (point,) = summary.strategy_points(sort_records(records))
    assert "with a and c, ≥ 100,000 datagrams/s (the generator ended first with 2 of 3)" in point.items[0]


# ------------------------------------------------------------------------------------------- input by input


def of_input(name: str, offered: int, lost: int = 0) -> InputSample:
    return InputSample(
        interface=name, offered=offered, expected=offered, delivered=offered - lost, duplicated=0
    )


def test_inputs_are_listed_where_they_fared_differently_or_were_given_more() -> None:
    even = [of_input("in0", 100), of_input("in1", 100)]
    records = [
        trial("alike", 200, setting(inputs=2), inputs=even),
        trial("skewed", 300, setting(inputs=2, skew=2), inputs=[of_input("in0", 200), of_input("in1", 100)]),
        trial("one lost", 200, setting(inputs=2), inputs=[of_input("in0", 100, 7), of_input("in1", 100)]),
        trial("alone", 200, setting(None, inputs=2), inputs=[of_input("in0", 9, 9), even[1]], subject="none"),
    ]
    (table,) = inputs.inputs(sort_records(records))
    told = [(row["Case"], row["Input"], row["Loss"]) for row in rows(table)]
    assert told == [
        ("skewed", "in0, flooded", "0 %"),
        ("skewed", "in1", "0 %"),
        ("one lost", "in0", "7 %"),
        ("one lost", "in1", "0 %"),
    ]


def test_many_inputs_that_fared_alike_share_a_row() -> None:
    samples = [
        of_input("in0", 9000, 4500),
        of_input("in1", 100, 1),
        of_input("in2", 100, 3),
        *(of_input(f"in{n}", 100) for n in range(3, 20)),
    ]
    (table,) = inputs.inputs(sort_records([trial("a", 10_900, setting(inputs=20, skew=90), inputs=samples)]))
    told = [(row["Input"], row["Offered"], row["Copies due"], row["Loss"]) for row in rows(table)]
    assert told == [
        ("in0, flooded", "9,000", "9,000", "50 %"),
        ("2 inputs", "100.0", "200", "1 % to 3 %"),
        ("17 inputs", "100.0", "1,700", "0 %"),
    ]


def test_of_several_trials_the_one_at_a_fixed_rate_is_shown() -> None:
    lossy = [of_input("in0", 100, 90), of_input("in1", 100)]
    mild = [of_input("in0", 100, 10), of_input("in1", 100)]
    records = [
        trial("a", 200, setting(inputs=2), inputs=lossy),
        trial("a", 201, setting(inputs=2), inputs=mild, purpose="fixed"),
    ]
    assert [t.offered for t in inputs.differing(sort_records(records))] == [201]


# --------------------------------------------------------------------------------------- names and promises


def test_settings_are_named_where_rows_would_read_the_same() -> None:
    records = [
        trial("a", 1, setting(burst=1)),
        trial("a", 2, setting(burst=16)),
        trial("b", 3, setting(burst=16)),
        trial("c", 5, setting(options=("--busy-poll-us", "20"))),
        trial("c", 6, setting()),
        trial("b", 4, setting(), scenario="t"),
    ]
    data = sort_records(records)
    names = [labels.label(data, t) for t in data.trials]
    assert names == ["a, no bursts", "a, bursts of 16", "s: b", "c, --busy-poll-us 20", "c", "t: b"]


def compared(case: str, a: str = "mcrd", b: str = "mcrd", **changes: object) -> Comparison:
    made = Comparison(
        scenario="s",
        case=case,
        metric="zero-loss rate",
        higher_is_better=True,
        a=a,
        b=b,
        setting=setting(),
        ratio=0.95,
        low=0.92,
        high=0.98,
        confidence=0.95,
        pairs=8,
    )
    return made.model_copy(update=changes)


def test_two_cases_of_one_subject_are_named_by_their_cases() -> None:
    known = [trial("1 / 2 rules", 1, setting()), trial("none", 2, setting())]
    data = sort_records(known)
    assert labels.compared(data, compared("20 inputs / 1 input")) == "20 inputs / 1 input, both mcrd"
    assert labels.sides(data, compared("1 / 2 rules / none")) == ("1 / 2 rules", "none")
    assert labels.compared(data, compared("64 B", b="kernel")) == "mcrd / kernel routing"


def test_slower_than_the_other_is_not_bad_where_the_promise_is_kept() -> None:
    kept, broken = compared("x / y", target=0.9), compared("x / y", target=0.97)
    assert words.verdict(kept) == "worse"
    assert (words.verdict_tone(kept), words.outcome_tone(kept)) == ("plain", "good")
    assert (words.verdict_tone(broken), words.outcome_tone(broken)) == ("bad", "bad")
    assert words.outcome_tone(compared("x / y")) == "bad"
    (point,) = summary.comparison_points(sort_records([kept]))
    assert point.tone == "good"
    assert (
        "x / y: 0.95 × (95% interval 0.92 to 0.98, 8 pairs), at least 0.90 × promised: met" in point.items[0]
    )


def test_each_figure_of_a_footprint_stands_beside_its_promise() -> None:
    full = footprint(
        "full",
        1920,
        stopped_ns=11 * SECOND,
        stop_target_ns=10 * SECOND,
        idle_cpu_ns=30_000_000,
        idle_ns=3 * SECOND,
        idle_target=0.01,
        imbalance=1.25,
        rules=400,
    )
    assert [(p.what, p.met) for p in words.promises(full)] == [
        ("time to stop", False),
        ("idle processor time", True),
    ]
    assert [p.met for p in words.promises(full.model_copy(update={"idle_cpu_ns": 30_000_001}))][1] is False
    table = footprints.workers(sort_records([full, footprint("few", 4)]))
    assert table is not None
    assert [row["Case"] for row in rows(table)] == ["few", "full"]
    details = {c.title: cell for c, cell in zip(table.columns, table.rows[1].cells, strict=True)}
    assert (details["Stopped"].detail, details["Stopped"].tone) == ("at most 10.00 s: NOT MET", "bad")
    assert (details["Idle"].text, details["Idle"].detail) == ("1.00%", "at most 1 % of a CPU: met")
    assert "1.25 × the mean" in details["Rules per worker"].detail


def test_a_promise_without_a_measurement_is_none() -> None:
    assert words.promises(footprint("a", 4, stop_target_ns=SECOND, idle_target=0.01)) == []


# ----------------------------------------------------------------------------------------- doubts, said once


def test_oversubscription_is_no_doubt_of_each_row() -> None:
    text = "oversubscribed: 8 workers on 2 CPUs"
    records = [
        trial("a", 1, setting(), warnings=[text, "noisy"]),
        trial("b", 2, setting(), warnings=[text]),
        footprint("c", 8, warnings=[text]),
    ]
    data = sort_records(records)
    assert [words.trial_doubts(t) for t in data.trials] == [("noisy",), ()]
    assert words.oversubscribed(data) == (f"c, a and b: {text}",)


def test_doubts_that_differ_in_numbers_only_are_one() -> None:
    holds = "beside this subject the generator holds {} dps"
    warnings = [holds.format("288,308"), "few pairs", holds.format("270,335.5")]
    assert words.own(warnings) == (f"{holds.format('288,308')} (2 such)", "few pairs")
    told = words.shared([("a", [holds.format("1")]), ("b", [holds.format("22")]), ("c", [])])
    assert told == (f"a and b: {holds.format('1')} (2 such)",)


# --------------------------------------------------------------------------------------------- a long run


def long_run(scenarios: int) -> Dataset:
    records: list[AnyRecord] = []
    for number in range(scenarios):
        name = f"s{number}"
        for n in range(4):
            records.append(rate(f"case {n}", 1000 + n, setting(), scenario=name))
            passed = (number, n) != (1, 2)
            records.append(Check(scenario=name, case=f"case {n}", passed=passed, expected="x", observed="y"))
    return sort_records(records)


def test_a_long_table_is_folded_by_scenario_and_a_short_one_is_not() -> None:
    for scenarios, folded in ((2, False), (ROWS_SHOWN // 4 + 1, True)):
        built = page.build(long_run(scenarios))
        (throughput,) = [section for section in built.sections if section.name == "throughput"]
        tables = [part for part in throughput.parts if isinstance(part, Table)]
        assert len(tables) == (scenarios if folded else 1)
        assert [bool(part.folded) for part in throughput.parts] == [folded] * len(throughput.parts)
        assert sum(len(table.rows) for table in tables) == 4 * scenarios


def test_failed_checks_come_first_and_stay_open() -> None:
    data = long_run(8)
    built = page.build(data)
    assert [section.name for section in built.sections][:2] == ["scenarios", "checks"]
    assert built.summary[1].lead == "Checks."
    assert built.summary[1].items == ("s1, case 2: expected x; observed y",)
    first, *others = accounts.checks(data)
    assert (first.name, first.folded, first.rows[0].cells[0].text) == ("checks-s1", "", "case 2")
    assert all(table.folded for table in others)


def test_every_scenario_has_a_row_in_the_overview() -> None:
    (section,) = [section for section in page.build(long_run(3)).sections if section.name == "scenarios"]
    (table,) = section.parts
    assert isinstance(table, Table)
    assert [(row["Scenario"], row["Checks"]) for row in rows(table)] == [
        ("s0", "4 of 4"),
        ("s1", "3 of 4"),
        ("s2", "4 of 4"),
    ]


def test_many_items_of_a_statement_are_folded() -> None:
    checks = [
        Check(scenario="s", case=str(n), passed=False, expected="x", observed="y")
        for n in range(ITEMS_SHOWN + 5)
    ]
    (point,) = summary.check_points(sort_records(checks))
    assert (len(point.shown), len(point.more)) == (ITEMS_SHOWN, 5)
    assert (*point.shown, *point.more) == point.items


def test_many_trials_that_balance_are_added_up_and_the_others_are_not() -> None:
    sound = [trial("a", 1000 + n, setting(), Numbers(astray=1)) for n in range(accounts.TRIALS_LISTED)]
    broken = trial("a", 5000, setting()).model_copy(
        update={
            "ledger": Ledger(ingress=Stage(entered=5000, left=4000), egress=Stage(entered=4000, left=4000))
        }
    )
    (table,) = accounts.ledgers(sort_records([*sound, broken]))
    added, alone = rows(table)
    number = accounts.TRIALS_LISTED
    assert added["Trial"] == f"{number} trials"
    assert added["Offered"] == f"{sum(t.offered for t in sound):,}"
    assert added["Dropped before a rule"] == f"forwarder, wrong_worker: {number}"
    assert (added["Balance"], alone["Offered"]) == ("closes", "5,000")
    assert alone["Balance"].startswith("OPEN: +1,000 datagrams")
