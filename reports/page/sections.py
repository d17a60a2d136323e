"""The sections of a run's page, in order, with their explanations: results first, method last."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from reports import verdicts
from reports.dataset import Dataset
from reports.figures import load_profiles as load_profile_figures
from reports.figures import memory as memory_figures
from reports.figures import rates as rate_figures
from reports.figures import strategies as strategy_figures
from reports.model import Figure, Page, Section, Table, flowed
from reports.page import summary
from reports.page.capacity.model import sections as capacity_sections
from reports.quantity import listed
from reports.tables import footprints, ledgers, load_profiles, overview, per_input, rfc3918, trials

Parts = Callable[[Dataset], Sequence[Table | Figure]]

SCENARIOS_NAMED = 8
"""More scenarios than this are counted, not named, in the line under the title."""
RATES = """Rates are datagrams a second (offered) or copies a second (one datagram on one output). A rate
without loss (NDR), or with little loss (PDR), is the highest that the search confirmed; ≥ means that the
generator was the limit."""
EGRESS = """Wire-like: the kernel cuts every GSO frame into datagrams before the output device, as for a
network card without the offload. Offloads on: veth passes whole GSO frames, which flatters any forwarder that
sends them."""
RECEIVING = """All of a forwarder's work is on CPUs of its own. Threads of the kernel receive for it there.
They go before the workers, as the interrupt of a network card does, unless a row says that they take turns
with them. On the sender's CPU, veth's own way, the generator pays for it."""
PAIRS = """The sides are measured in turn (A B B A …), so that a drifting machine affects both alike. The
verdict follows the interval: if it includes 1, no difference was shown. Beside the verdict stands the
smallest difference that so many pairs, scattered as they are, would have shown four times in five."""
STRATEGIES = """Cases of one scenario that forwarded the same load with different strategies, or with
different grouping, placement or steering. Memory is that of the footprint with the same name, without rings,
whose size is configuration and is given beside it."""
LOADED = """Latency (p50, p99), processor time and shares are from a trial made for latency, or from the
trial nearest to half the zero-loss rate, at the rate below the latency. Goodput is what is delivered of
multiples of the zero-loss rate, as a share of it: 1 keeps the rate under overload. Processor time excludes
generator and receivers unless stated. A share of 1 is even; 0 is a worker without any datagram. A datagram
at a wrong worker reached one without its rule and was dropped there."""
CHECKS = "What each scenario expects and what was observed; failed checks come first."
INPUTS = """Trials with several inputs in which one lost more than another, or was given more. For each case,
the trial in which they differed most, at a fixed rate if there is one."""
LOSS = """Each mark is a trial. The vertical axis is logarithmic except at its foot: 0 means that no copy was
lost. A rate counts as one without loss only if no queue built up: the last copy arrived within 10 ms, and 2 %
of the trial, of the last datagram offered."""
SOAK = """One rate, in one trial after another. Memory is private to the subject's processes; memory,
descriptors and threads are read after the first trial, halfway and after the last. Memory grew if the second
half added over 64 KiB a process: in the first half processes touch much memory for the first time. In less
than ten minutes it is not judged."""
SCALING = """A load that changes over time, and the workers that an elastic group started for it. A group is
overloaded from the moment it is offered more than its workers are meant for until it has as many as the load
needs."""
CHANGED = """Each change was made in the middle of trials of its own, and every datagram was followed by its
sequence number. Blocked is what was lost divided by the rate offered: how long nothing would have passed, for
the part of the load that the change affects. A flow that moves gets another worker."""
SHARES = "An even share is 1. Steering by CPU can only spread what arrives on more than one CPU."
MEMORY = """MB is 1,000,000 bytes, as in the architecture document. Documented is the figure in its table;
modelled is rules × their size + processes; measured is the private memory of the workers and of the template
they were forked from, all really started. Shared is held once, however many workers there are: what was in
memory before the forks, and code of the interpreter and of libraries. Rings are given beside it: their size
is configuration."""
PIPELINES = """Generator, forwarder and receivers of a pipeline share a CPU, so that CPU alone limits it. What
each delivers beside the others, of what one delivers alone, says what CPUs cost each other."""
LATENCY = "From the send stamp in the payload to the receiver's time stamp, on one clock."
RFC_3918 = """The tests of RFC 3918 by section, as far as they apply. Receivers do not ask for groups: a rule
(for the kernel, a route) stands for the membership of the ports behind its outputs, and no router would ask.
A subject that joins groups on its input speaks IGMP version 3, the host's default. Latency is from the send
stamp to the receiver's, so it contains both links."""
RFC_3918_OMITTED = """Not made: section 4.4 (throughput with encapsulation, decapsulation and
re-encapsulation), as no subject has tunnels; joins in MFDB state 1 (section 6.1: the group is already
forwarded to another port), as a rule has all its outputs from the start."""
CPU = """Busy time of all CPUs while datagrams were sent. The baseline is the same machine at the same rate
with generator and receivers alone; the rest is the forwarder's, wherever the kernel spent it."""
LEDGER = """Two balances a trial: datagrams from the generator to a matching rule, and copies from there to
the receivers. A ledger is balanced if each one was delivered or has a place and a reason."""
METHOD = """Load is made on this machine, in network namespaces: datagrams with a stream and sequence number
leave a generator, and receivers on every output check each copy. A rate is searched (MLRsearch) between one
that lost nothing and one that did. A trial that was not offered the rate asked for, or during which the
machine was busy with something else, says so. Use figures of a shared machine for ratios within one run:
absolute rates of two machines, or of two days, are not comparable."""
TRACE = """Folded under the name of each row are the ids of the trials that its numbers are from. An id is
that of one line of results.jsonl and one row of trials.csv; the files of searches, comparisons, soaks,
courses and changes list theirs. Footprints, delays and checks are in the line of that kind with the scenario
and case of the row."""


def build(data: Dataset, files: Iterable[str] = ()) -> Page:
    """The page of one run; sections without any table or drawing are left out."""

    def section(name: str, title: str, text: tuple[str, ...], *parts: Parts) -> Section:
        return Section(name, title, tuple(map(flowed, text)), tuple(m for part in parts for m in part(data)))

    checks = section("checks", "Checks", (CHECKS,), ledgers.checks)
    failed = any(not check.passed for check in verdicts.checks(data))
    scaling = (*((SCALING,) if data.courses else ()), *((CHANGED,) if data.changes else ()))
    rates = (rate_figures.zero_loss, trials.zero_loss, trials.partial_drop, trials.fixed_rates)
    elastic = (load_profile_figures.load_profiles, load_profiles.load_profiles, load_profiles.changes)
    strategies = (STRATEGIES, RATES, LOADED)
    sections = (
        section("scenarios", "Scenarios", (), overview.scenarios),
        *((checks,) if failed else ()),
        section("targets", "Targets", (), trials.targets),
        section("strategies", "Strategies on the same load", strategies, strategy_figures.tables_and_figures),
        section("peer", "Paired comparisons", (PAIRS,), rate_figures.ratios, trials.comparisons),
        section("throughput", "Throughput", (RATES, EGRESS, RECEIVING), *rates),
        section("pipelines", "What another CPU adds", (PIPELINES,), trials.pipelines),
        section("loss", "Loss against offered load", (LOSS,), rate_figures.loss, load_profiles.sweeps),
        section("soak", "Soak", (SOAK,), load_profiles.soaks),
        section("scaling", "Elastic scaling", scaling, *elastic),
        section("inputs", "Loss of each input", (INPUTS,), per_input.per_input),
        section("latency", "Latency", (LATENCY,), rate_figures.latency, trials.latency),
        section("rfc3918", "RFC 3918", (RFC_3918, RFC_3918_OMITTED), rfc3918.all_tables),
        section("processor", "Processor time", (CPU,), trials.cpu),
        section("workers", "Workers", (SHARES,), footprints.workers, trials.worker_shares),
        section("memory", "Memory", (MEMORY,), memory_figures.stacks, footprints.memory),
        *capacity_sections(data),
        *(() if failed else (checks,)),
        section("ledger", "Ledger", (LEDGER,), ledgers.ledgers),
        section("provenance", "Method, and what ran on what", (METHOD, TRACE), ledgers.provenance),
    )
    return Page(
        title="Multicast forwarding, measured",
        subtitle=subtitle(data),
        summary=summary.summary(data),
        sections=tuple(section for section in sections if section.parts),
        files=tuple(files),
    )


def subtitle(data: Dataset) -> str:
    if data.run is None:
        return "A results file without the record that opens a run."
    run, where = data.run, data.run.provenance
    many = len(run.scenarios) > SCENARIOS_NAMED
    scenarios = f"{len(run.scenarios)} scenarios" if many else listed(run.scenarios) or "no scenario"
    return (
        f"Run {run.run_id} of {_when(run.started_at)}, {run.profile} profile: {scenarios}. "
        f"{where.cpu_model}, {where.cpus} CPUs, Linux {where.kernel}."
    )


def _when(stamp: str) -> str:
    """``2025-01-02 03:04 UTC``; a text that is no time is returned as it is."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return stamp
