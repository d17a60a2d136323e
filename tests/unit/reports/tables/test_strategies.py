"""Strategies side by side: which cases belong together, and where each figure is read."""

from __future__ import annotations

import pytest
from report_support import Numbers, footprint, only_group, rate, rows, setting, trial

from lab.results import (
    InputSample,
    Setting,
)
from reports.dataset import sort_records
from reports.figures import strategies as strategy_figures
from reports.model import Table
from reports.page import summary
from reports.tables import per_input, strategies

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
    steered = setting(receive="softirq")
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


def test_goodput_is_a_share_of_the_zero_loss_rate_also_where_the_generator_fell_short() -> None:
    records = [
        rate("a", 100_000, setting()),
        trial("a", 200_000, setting(), Numbers((9,)), purpose="fixed", load_share=2.0),
        trial("a", 350_000, setting(), Numbers((9,)), purpose="fixed", load_share=4.0, validity="invalid"),
        rate("b", 100_000, setting("pool")),
    ]
    first, second = rows(strategies.table(only_group(records)))
    assert (first["Goodput"], second["Goodput"]) == ("2.00 / 3.50", "–")


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
    assert "with a and c, ≥ 100,000 datagrams/s (limited by the generator in 2 of 3)" in point.items[0]


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
    (table,) = per_input.per_input(sort_records(records))
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
    (table,) = per_input.per_input(
        sort_records([trial("a", 10_900, setting(inputs=20, skew=90), inputs=samples)])
    )
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
    assert [t.offered for t in per_input.differing(sort_records(records))] == [201]
