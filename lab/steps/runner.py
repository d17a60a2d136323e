"""How each step of a run is done, but for comparisons (:mod:`lab.steps.compare`)."""

from __future__ import annotations

from lab.analysis.search import Found, find_rates
from lab.ledger import expectation
from lab.results import NONE, Footprint, ZeroLoss
from lab.scenario import steps as matrix
from lab.steps import changes, delays, latency, soak, sweep
from lab.steps import compare as contest
from lab.steps import group_capacity as capacity
from lab.steps import load_profile as courses
from lab.steps.context import Context, Series, StepError
from lab.steps.footprint import compared, misses, run_footprint

EXPECTATION_TRIALS = 6
CALIBRATION_TRIALS = 8
PACED_SHARE = 0.97
"""A paced generator reads the clock for each datagram, and what it reached once it may miss the next time."""
LARGEST_STEP = 0.8
"""At most so far down from one try to the next: one stall of a shared machine says little."""


def execute(step: matrix.AnyStep, context: Context) -> None:
    """Do one step: records to the archive, one line to the reporter, failures to the context."""
    if isinstance(step, matrix.Checks):
        _checks(step, context)
    elif isinstance(step, matrix.Footprint):
        _footprint(step, context)
    elif isinstance(step, matrix.Expectation):
        _expect(step, context)
    elif isinstance(step, matrix.Calibrate):
        _calibrate(step, context)
    elif isinstance(step, matrix.Search):
        _search(step, context)
    elif isinstance(step, matrix.LatencySet):
        latency.measure(step, context)
    elif isinstance(step, matrix.Delay):
        delays.measure(step, context)
    elif isinstance(step, matrix.Capacity):
        capacity.measure(step, context)
    elif isinstance(step, matrix.Sweep):
        sweep.measure(step, context)
    elif isinstance(step, matrix.Soak):
        soak.measure(step, context)
    elif isinstance(step, matrix.Course):
        courses.measure(step, context)
    elif isinstance(step, matrix.Change):
        changes.measure(step, context)
    else:
        contest.compare(step, context)


def _checks(step: matrix.Checks, context: Context) -> None:
    # Imported here: it loads scapy and the compiler, which takes half a second.
    from lab.steps.functional import run_checks

    checks = run_checks(step.scenario.name, f"{context.run_id}-checks")
    for check in checks:
        context.archive.write(check)
        if not check.passed:
            context.failures.append(f"{check.case}: expected {check.expected}, observed {check.observed}")
    passed = sum(check.passed for check in checks)
    context.reporter.outcome(f"{passed} of {len(checks)} checks passed")


def _footprint(step: matrix.Footprint, context: Context) -> None:
    context.benches.close()  # it has the machine to itself: nothing else stands or is mapped
    record = run_footprint(step.scenario.name, step.footprint, f"{context.run_id}-footprint")
    context.archive.write(record)
    missed = misses(record)
    if step.profile.demand_targets:
        context.failures += [f"{step.step_id}: {text}" for text in missed]
    private = record.memory.private_bytes_per_worker / 1e6
    if step.footprint.like is not None and step.footprint.like_target is not None:
        missed += _like(step, step.footprint.like, step.footprint.like_target, record, context)
    line = f"{record.workers} workers ready in {record.ready_ns / 1e9:.2f} s, {private:.2f} MB private each"
    context.reporter.outcome("; ".join([line, *missed]))


def _like(step: matrix.Footprint, name: str, target: float, record: Footprint, context: Context) -> list[str]:
    """Compare with the footprint of that name, which came before."""
    for other in context.of_kind(Footprint):
        if (other.scenario, other.case) == (step.scenario.name, name):
            check = compared(record, other, target)
            context.archive.write(check)
            if check.passed:
                return []
            context.failures.append(f"{step.step_id}: expected {check.expected}, observed {check.observed}")
            return [check.observed]
    raise StepError(f"{name}: not measured, so there is nothing to compare with")


def _expect(step: matrix.Expectation, context: Context) -> None:
    """One trial that says something; of a machine that is held up otherwise, several may be needed."""
    series = Series(context, step, step.case, step.expect.subject, step.setting, "fixed")
    for _attempt in range(EXPECTATION_TRIALS):
        trial = series.run(step.expect.dps, step.profile.trial_ms / 1000)
        if (why := expectation.unfit(trial)) is None:
            break
    else:
        raise StepError(f"{EXPECTATION_TRIALS} trials that nothing can be concluded from, the last: {why}")
    checks = expectation.checks(step.expect, trial)
    for check in checks:
        context.archive.write(check)
        if not check.passed:
            where = f"{check.scenario}: {check.case}"
            context.failures.append(f"{where}: expected {check.expected}, observed {check.observed}")
    words = [f"{check.expected}{'' if check.passed else f' FAILED: {check.observed}'}" for check in checks]
    context.reporter.outcome("; ".join(words))


def _calibrate(step: matrix.Calibrate, context: Context) -> None:
    """Flat out once; then the highest paced rate that the generator holds, which is its ceiling."""
    series = Series(context, step, step.case, NONE, step.setting, "calibration")
    seconds = step.profile.trial_ms / 1000
    flat_out = series.run(None, seconds).offered_dps
    dps = flat_out * PACED_SHARE
    words = "at most"
    for _attempt in range(CALIBRATION_TRIALS):
        trial = series.run(dps, seconds)
        if trial.validity != "invalid":
            words = "held"
            break
        dps = max(dps * LARGEST_STEP, min(dps, trial.offered_dps) * PACED_SHARE)
    ceiling = context.ceiling(step.setting)
    context.reporter.outcome(f"generator: {ceiling:,.0f} dps {words}, {flat_out:,.0f} flat out")


def _search(step: matrix.Search, context: Context) -> None:
    series = Series(context, step, step.case, step.subject, step.setting, "search")
    seconds = step.profile.trial_ms / 1000
    words = []
    if step.zero_loss:
        ceiling = context.ceiling(matrix.calibration_setting(step.scenario, step.case))
        loss_ratios = (0.0, step.scenario.pdr_loss_ratio) if step.pdr else (0.0,)
        every = find_rates(series.observe, ceiling, contest.goal_of(step), loss_ratios)
        for loss_ratio, found in zip(loss_ratios, every, strict=True):
            context.archive.write(
                ZeroLoss(
                    scenario=step.scenario.name,
                    case=step.case.name,
                    subject=step.subject,
                    setting=step.setting,
                    goal_loss_ratio=loss_ratio,
                    lower_dps=found.lower_dps,
                    upper_dps=found.upper_dps,
                    generator_ceiling_dps=ceiling,
                    bound_by=found.bound_by,
                    trial_ids=list(series.trial_ids),
                    warnings=[*found.warnings, *series.fates],
                )
            )
            words.append(_line(found, loss_ratio))
        if (zero_loss_dps := every[0].lower_dps) is not None:
            words += [loaded(step, context, series, zero_loss_dps, share) for share in step.loads]
    if step.flat_out:
        series.purpose = "fixed"
        trial = series.run(None, seconds)
        words.append(f"{trial.delivered_dps:,.0f} copies/s at {trial.offered_dps:,.0f} dps offered")
    context.reporter.outcome("; ".join([*words, *series.fates]))


def loaded(step: matrix.Search, context: Context, series: Series, zero_loss_dps: float, share: float) -> str:
    """Latency, CPU per copy, workers' shares at ``share`` of a zero-loss rate, as comparisons take them."""
    dps, seconds = zero_loss_dps * share, step.profile.trial_ms / 1000 * matrix.LONG
    baseline = contest.baseline(step, step.case, context, dps, seconds)
    series.purpose = "latency"
    trial = series.run(dps, seconds, baseline, share)
    p99_us = trial.latency.p99 / 1000 if trial.latency else 0
    return f"p99 {p99_us:,.0f} µs at {dps:,.0f} dps"


def _line(found: Found, loss_ratio: float) -> str:
    words = f"at most {loss_ratio:.2%} of copies lost" if loss_ratio else "zero loss"
    if found.lower_dps is None:
        return f"{words} at no rate"
    limit = ", the generator was the limit" if found.bound_by == "generator" else ""
    return f"{words} up to {found.lower_dps:,.0f} dps{limit}"
