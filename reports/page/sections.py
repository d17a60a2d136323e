"""The order of the page: what was found first, how it was measured last."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from reports.dataset import Dataset
from reports.figures import load_profiles as load_profile_figures
from reports.figures import memory as memory_figures
from reports.figures import rates as rate_figures
from reports.figures import strategies as strategy_figures
from reports.model import Figure, Page, Section, Table
from reports.page import summary
from reports.page.capacity.sections import sections as capacity_sections
from reports.quantity import listed
from reports.tables import footprints, ledgers, load_profiles, overview, per_input, rfc3918, trials

Part = Table | Figure | None

SCENARIOS_NAMED = 8
"""More scenarios than this are counted in the line under the title, and named in their table."""

RATES = (
    "Rates are datagrams a second (offered) or copies a second (one datagram on one output). A rate without "
    "loss (NDR), or with little (PDR), is the highest that the search confirmed; ≥ means that the generator "
    "ended first."
)
EGRESS = (
    "Wire-like: the kernel cuts every GSO frame into datagrams before the output device, as for a network "
    "card without the offload. Offloads on: veth hands whole GSO frames across, which flatters any sender "
    "of them."
)
STEERING = (
    "RPS is receive packet steering: without it veth delivers a datagram on the sender's own CPU, and the "
    "kernel then routes inside the generator's system call, which no network card does."
)
PAIRS = (
    "The sides are measured in turn (A B B A …), so that a drifting machine weighs on both alike. The "
    "verdict follows the interval: where it holds 1, the difference is not shown. Beside it stands the "
    "smallest difference that so many pairs, scattered as they are, would have shown four times in five."
)
STRATEGIES = (
    "Cases of one scenario that forwarded the same load and differ in strategy, or in how it groups, places "
    "and steers. Memory is that of the footprint of the same name: without rings, whose size is "
    "configuration, and which stand beside it."
)
LOADED = (
    "Latency (p50, p99), processor time and shares are from a trial made for latency, or the one next to "
    "half the zero-loss rate, at the rate below the latency. Processor time is net of generator and "
    "receivers where not said otherwise. A share of 1 is an even one, 0 a worker without any datagram. A "
    "datagram at a wrong worker reached one without its rule, and was dropped there."
)
CHECKS = "What each scenario expects and what was observed; what was not met stands first."
INPUTS = (
    "Trials with several inputs in which one lost more than another, or was given more. Of each case the one "
    "in which they differed most, at a fixed rate where there is one."
)
LOSS = (
    "Each mark is a trial. The vertical axis is logarithmic but for its foot: 0 means not one copy lost. A "
    "rate counts as one without loss only if nothing piled up either: the last copy came within 10 ms, and "
    "2 % of the trial, of the last datagram offered."
)
SOAK = (
    "One rate, in trials one after another. Memory is private to the subject's processes; it and the "
    "descriptors and threads that they have are read after the first trial, after half of them and after the "
    "last. Memory grew where the second half added over 64 KiB a process: in the first half processes touch "
    "much that they have not touched before. In less than ten minutes it is not judged."
)
SCALING = (
    "A load that changes over time, and the workers of an elastic group that came for it. A group is "
    "overloaded from when it is offered more than its workers are meant for, until it has as many as the "
    "load calls for."
)
CHANGED = (
    "Each change was made in the middle of trials of its own, and every datagram followed by its sequence "
    "number. Blocked is what was lost over the rate at which it was offered: for so long nothing would have "
    "passed, of the part of the load that the change is about. A flow that moves gets another worker."
)
SHARES = "An even share is 1. Steering by CPU can only spread what arrives on more than one CPU."
MEMORY = (
    "MB is 1,000,000 bytes, as in the architecture document. Documented is its table's figure; modelled is "
    "rules × their size + processes; measured is the workers' private memory and that of the template they "
    "were forked from, each really started. Shared is held once, however many they are: what was in memory "
    "before the forks, and code of the interpreter and of libraries. Rings stand beside: their size is "
    "configuration."
)
LATENCY = "From the send stamp in the payload to the receiver's time stamp, on one clock."
CPU = (
    "Busy time of all CPUs while datagrams were sent. The baseline is the same machine at the same rate with "
    "generator and receivers alone; what is left is the forwarder's, wherever the kernel spent it."
)
LEDGER = (
    "Two balances a trial: datagrams from the generator to a matching rule, copies from there to the "
    "receivers. A balance closes when every one is delivered or has a place and a reason."
)

METHOD = (
    "Load is made on this machine, in network namespaces: datagrams with a stream and sequence number leave "
    "a generator, receivers on every output check each copy. A rate is searched (MLRsearch) between one that "
    "lost nothing and one that did; a trial that did not get what it was asked for, or during which the "
    "machine was busy with something else, says so. Figures of a shared machine are for ratios within one "
    "run: absolute rates of two machines, or of two days, are not comparable."
)
TRACE = (
    "Under the name of each row stand, folded, the ids of the trials that its numbers are from. An id is "
    "that of one line of results.jsonl and one row of trials.csv; the files of searches, comparisons, soaks, "
    "courses and changes list theirs. What footprints, delays and checks say is in the line of that kind "
    "with the scenario and case of the row."
)


def build(data: Dataset, files: Iterable[str] = ()) -> Page:
    """The whole page of one run; sections with nothing to say are left out."""
    checks = _section("checks", "Checks", (CHECKS,), *ledgers.checks(data))
    failed = any(not check.passed for check in data.checks)
    sections = (
        _section("scenarios", "Scenarios", (), overview.scenarios(data)),
        *((checks,) if failed else ()),
        _section("targets", "Targets", (), trials.targets(data)),
        _section(
            "strategies",
            "Strategies on the same load",
            (STRATEGIES, RATES, LOADED),
            *strategy_figures.tables_and_figures(data),
        ),
        _section(
            "peer", "Paired comparisons", (PAIRS,), rate_figures.ratios(data), *trials.comparisons(data)
        ),
        _section(
            "throughput",
            "Throughput",
            (RATES, EGRESS, STEERING),
            *rate_figures.zero_loss(data),
            *trials.zero_loss(data),
            *trials.partial_drop(data),
            *trials.fixed_rates(data),
        ),
        _section(
            "loss",
            "Loss against offered load",
            (LOSS,),
            *rate_figures.loss(data),
            *load_profiles.sweeps(data),
        ),
        _section("soak", "Soak", (SOAK,), *load_profiles.soaks(data)),
        _section(
            "scaling",
            "Elastic scaling",
            (*((SCALING,) if data.courses else ()), *((CHANGED,) if data.changes else ())),
            *load_profile_figures.load_profiles(data),
            *load_profiles.load_profiles(data),
            *load_profiles.changes(data),
        ),
        _section("inputs", "Loss of each input", (INPUTS,), *per_input.per_input(data)),
        _section("latency", "Latency", (LATENCY,), *rate_figures.latency(data), *trials.latency(data)),
        rfc3918.section(data),
        _section("processor", "Processor time", (CPU,), *trials.cpu(data)),
        _section("workers", "Workers", (SHARES,), footprints.workers(data), *trials.worker_shares(data)),
        _section("memory", "Memory", (MEMORY,), *memory_figures.stacks(data), footprints.memory(data)),
        *capacity_sections(data),
        *(() if failed else (checks,)),
        _section("ledger", "Ledger", (LEDGER,), *ledgers.ledgers(data)),
        _section("provenance", "Method, and what ran on what", (METHOD, TRACE), *ledgers.provenance(data)),
    )
    return Page(
        title="Multicast forwarding, measured",
        subtitle=subtitle(data),
        summary=summary.summary(data),
        sections=tuple(section for section in sections if section.parts),
        files=tuple(files),
    )


def _section(name: str, title: str, text: tuple[str, ...], *parts: Part) -> Section:
    return Section(name, title, text, tuple(part for part in parts if part is not None))


def subtitle(data: Dataset) -> str:
    if data.run is None:
        return "A results file without the record that opens a run."
    run, where = data.run, data.run.provenance
    scenarios = listed(run.scenarios) or "no scenario"
    if len(run.scenarios) > SCENARIOS_NAMED:
        scenarios = f"{len(run.scenarios)} scenarios"
    return (
        f"Run {run.run_id} of {_when(run.started_at)}, {run.profile} profile: {scenarios}. "
        f"{where.cpu_model}, {where.cpus} CPUs, Linux {where.kernel}."
    )


def _when(stamp: str) -> str:
    """``2025-01-02 03:04 UTC``; what is not a time stays as it is."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return stamp
