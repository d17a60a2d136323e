"""Names, promises and doubts of rows, and the pages of long runs."""

from __future__ import annotations

from record_support import comparison_record
from report_support import SECOND, Numbers, footprint, rate, rows, setting, trial

from lab.results import (
    AnyRecord,
    Check,
    Comparison,
    Ledger,
    Stage,
)
from reports import labels, verdicts
from reports.collapse import ROWS_SHOWN
from reports.dataset import Dataset, sort_records
from reports.figures import memory as memory_figure
from reports.model import ITEMS_SHOWN, Table
from reports.page import sections as page
from reports.page import summary
from reports.tables import footprints, ledgers

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
    made = comparison_record(0.95, scenario="s", case=case, metric="zero-loss rate", a=a, b=b)
    return made.model_copy(update={"setting": setting(), "low": 0.92, "high": 0.98, **changes})


def test_two_cases_of_one_subject_are_named_by_their_cases() -> None:
    known = [trial("1 / 2 rules", 1, setting()), trial("none", 2, setting())]
    data = sort_records(known)
    assert labels.compared(data, compared("20 inputs / 1 input")) == "20 inputs / 1 input, both mcrd"
    assert labels.sides(data, compared("1 / 2 rules / none")) == ("1 / 2 rules", "none")
    assert labels.compared(data, compared("64 B", b="kernel")) == "mcrd / kernel routing"


def test_slower_than_the_other_is_not_bad_where_the_promise_is_kept() -> None:
    kept, broken = compared("x / y", target=0.9), compared("x / y", target=0.97)
    assert verdicts.verdict(kept) == "worse"
    assert (verdicts.verdict_tone(kept), verdicts.outcome_tone(kept)) == ("plain", "good")
    assert (verdicts.verdict_tone(broken), verdicts.outcome_tone(broken)) == ("bad", "bad")
    assert verdicts.outcome_tone(compared("x / y")) == "bad"
    (point,) = summary.comparison_points(sort_records([kept]))
    assert point.tone == "good"
    assert (
        "x / y: 0.95 × (95 % interval 0.92 to 0.98, 8 pairs), at least 0.90 × promised: met" in point.items[0]
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
    assert [(p.what, p.met) for p in verdicts.footprint_targets(full)] == [
        ("time to stop", False),
        ("idle processor time", True),
    ]
    assert [p.met for p in verdicts.footprint_targets(full.model_copy(update={"idle_cpu_ns": 30_000_001}))][
        1
    ] is False
    (table,) = footprints.workers(sort_records([full, footprint("few", 4)]))
    assert [row["Case"] for row in rows(table)] == ["few", "full"]
    details = {c.title: cell for c, cell in zip(table.columns, table.rows[1].cells, strict=True)}
    assert (details["Stopped"].detail, details["Stopped"].tone) == ("at most 10.00 s: NOT MET", "bad")
    assert (details["Idle"].text, details["Idle"].detail) == ("1.00%", "at most 1 % of a CPU: met")
    assert "1.25 × the mean" in details["Rules per worker"].detail


def test_a_promise_without_a_measurement_is_none() -> None:
    assert verdicts.footprint_targets(footprint("a", 4, stop_target_ns=SECOND, idle_target=0.01)) == []


# ----------------------------------------------------------------------------------------- doubts, said once


def test_oversubscription_is_no_doubt_of_each_row() -> None:
    text = "oversubscribed: 8 workers on 2 CPUs"
    records = [
        trial("a", 1, setting(), warnings=[text, "noisy"]),
        trial("b", 2, setting(), warnings=[text]),
        footprint("c", 8, warnings=[text]),
    ]
    data = sort_records(records)
    assert [verdicts.trial_doubts(t) for t in data.trials] == [("noisy",), ()]
    assert verdicts.oversubscribed(data) == (f"c, a and b: {text}",)


def test_doubts_that_differ_in_numbers_only_are_one() -> None:
    holds = "limited by the generator ({} datagrams/s with this forwarder running)"
    warnings = [holds.format("288,308"), "few pairs", holds.format("270,335.5")]
    assert verdicts.distinct(warnings) == (f"{holds.format('288,308')} (2 such)", "few pairs")
    told = verdicts.merged([("a", [holds.format("1")]), ("b", [holds.format("22")]), ("c", [])])
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
    first, *others = ledgers.checks(data)
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
    sound = [trial("a", 1000 + n, setting(), Numbers(astray=1)) for n in range(ledgers.TRIALS_LISTED)]
    broken = trial("a", 5000, setting()).model_copy(
        update={
            "ledger": Ledger(ingress=Stage(entered=5000, left=4000), egress=Stage(entered=4000, left=4000))
        }
    )
    (table,) = ledgers.ledgers(sort_records([*sound, broken]))
    added, alone = rows(table)
    number = ledgers.TRIALS_LISTED
    assert added["Trial"] == f"{number} trials"
    assert added["Offered"] == f"{sum(t.offered for t in sound):,}"
    assert added["Dropped before a rule"] == f"forwarder, wrong_worker: {number}"
    assert (added["Balance"], alone["Offered"]) == ("balanced", "5,000")
    assert alone["Balance"].startswith("OPEN: +1,000 datagrams")


def test_a_worker_accounts_for_its_share_of_what_is_held_once() -> None:
    base = footprint("c", 4)
    held = base.memory.model_copy(
        update={
            "private_bytes_per_worker": 600_000,
            "template_bytes": 12_000_000,
            "ring_bytes_total": 268_000_000,
        }
    )
    parts = memory_figure.of_worker(base.model_copy(update={"memory": held}))
    assert parts == {"private": 600_000, "template": 3_000_000, "rings": 67_000_000}
    (drawn,) = memory_figure.stacks(sort_records([base.model_copy(update={"memory": held})]))
    assert "private 0.60 MB, template 3.00 MB, rings 67.0 MB" in drawn.wide.description
