"""``mcastlab bisect``: the commit that changed a figure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.cli import terminal
from lab.cli.run import (
    METRIC_HELP,
    ForwarderCpusOption,
    OutOption,
    ProfileOption,
    QuietOption,
    ResumeOption,
    divided,
    document,
    performed,
    print_outcome,
)
from lab.cli.terminal import BadInputError, JsonOption, option, print_json, say

if TYPE_CHECKING:
    from lab.results import AnyRecord
    from lab.run.session import Session
    from lab.scenario.model import Scenario


def bisect(
    good: Annotated[str | None, option("A commit from before the change.", "COMMIT")] = None,
    bad: Annotated[str | None, option("A commit from after the change.", "COMMIT")] = None,
    metric: Annotated[str | None, option(METRIC_HELP, "NAME[,share=N]")] = None,
    case: Annotated[
        list[str] | None,
        option(
            "A setting of every commit, for instance outputs=8 or flows=16. May be repeated.", "KEY=VALUE"
        ),
    ] = None,
    pairs_max: Annotated[
        int | None,
        option("Pairs of trials after which a commit counts as undecided, 6 at least. Default: 16."),
    ] = None,
    profile: ProfileOption = None,
    out_dir: OutOption = None,
    resume: ResumeOption = None,
    forwarder_cpus: ForwarderCpusOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the commit between two that changed a figure, for the better or the worse.

    - `mcastlab bisect --good v0.1 --bad HEAD --metric zero-loss --case outputs=8`

    The bad commit is compared with the good one first (A B B A …), then the commit in the middle of what
    remains, and so on. Pairs are added until it is clear on which side of the change a commit is. 64 commits
    take eight comparisons at most. Only commits that change `forwarder/` count, on the first-parent line from
    the bad one; a merge counts as one. All are measured at rates taken from the good commit, by the lab that
    is installed.

    A commit whose forwarder cannot be started or measured is skipped, and another one taken, as is one that
    stays undecided. The answer may then be a range. docs/ci.md has the error rate. A commit's first start
    compiles for half a minute.

    Exit status: 0 the commit was found; 1 it was not: no difference, a range only, or a failure; 2 bad input;
    130 interrupted, and --resume continues.
    """
    from lab.run import session
    from lab.run.commits import history, resolved
    from lab.scenario import bisect as bisection
    from lab.scenario.profiles import profile_named

    if resume is not None:
        if good or bad or metric or case or pairs_max or profile or out_dir or forwarder_cpus:
            raise BadInputError("--resume takes everything from the run in its directory: leave the rest out")
        going = session.resume(resume)
        if not any(scenario.bisect for scenario in going.scenarios):
            raise BadInputError(f"--resume {str(resume)!r}: no bisection; the directory of one is allowed")
    else:
        if good is None or bad is None or metric is None:
            raise BadInputError("--good, --bad and --metric are needed: see mcastlab bisect --help")
        chosen = profile_named(profile or "quick")
        commits = history(good, bad)
        scenario = bisection.ask(resolved(good, "--good"), commits, case or [], metric, pairs_max)
        cpus = divided(forwarder_cpus)
        going = session.start({}, chosen, out_dir, made=[scenario], cpus=cpus)
    ended, written = performed(going, silent=as_json or quiet)
    result = answer(going)
    if as_json:
        print_json({**document(going, ended, written), **result})
    else:
        print_outcome(going.archive.records, ended, written or [going.archive.results])
        for line in sentences(result):
            say(line)
    found = result["commit"] is not None
    status = terminal.EXIT_STATUS[ended.outcome]
    raise typer.Exit(status if status or found else terminal.FAILED)


def answer(session: Session) -> dict[str, Any]:
    """What the records of a bisection say, as ``--json`` prints it."""
    from lab.run.commits import subject

    scenario = next(scenario for scenario in session.scenarios if scenario.bisect)
    result = conclusion(scenario, session.archive.records)
    result["commits"] = [{"commit": commit, "subject": subject(commit)} for commit in result["commits"]]
    last = result["commits"][0]["commit"] if len(result["commits"]) == 1 else None
    confirm = None if last is None else confirmation(scenario, last, session.profile)
    return {"commit": last, **result, "confirm": confirm}


def conclusion(scenario: Scenario, records: list[AnyRecord]) -> dict[str, Any]:
    """The commits that may have changed the figure, by how much it changed, and what was left out."""
    from lab.analysis.bisect import remaining
    from lab.steps.kinds.bisect import comparisons, judgements

    assert scenario.bisect is not None
    commits = scenario.bisect.commits
    judged = judgements(scenario, records)
    left = remaining(len(commits), judged)
    first = next(comparisons(scenario.name, records), None) if judged else None
    return {
        "good": scenario.case[0].commit,
        "bad": commits[-1],
        "metric": scenario.bisect.metric,
        "commits": commits[left.good : left.bad] if judged else [],
        **{key: getattr(first, key, None) for key in ("ratio", "low", "high", "detectable", "verdict")},
        **{
            what: [commits[at - 1] for at in judged if judged[at] == what]
            for what in ("skipped", "undecided")
        },
    }


def confirmation(scenario: Scenario, commit: str, profile: str) -> str:
    """The command that compares a commit with the one before it."""
    from lab.scenario.compare import METRICS

    assert scenario.bisect is not None
    metric = next(short for short, name in METRICS.items() if name == scenario.bisect.metric)
    share = "" if scenario.bisect.share is None else f",share={scenario.bisect.share:g}"
    words = ["mcastlab", "compare", f"commit={commit}", f"commit={commit}~1", "--metric", metric + share]
    for key, value in scenario.setting.model_dump(exclude_unset=True).items():
        words += ["--case", f"{key}={shlex.join(value) if isinstance(value, list) else value}"]
    return shlex.join([*words, "--pairs", str(scenario.bisect.pairs_max), "--profile", profile])


def sentences(result: dict[str, Any]) -> list[str]:
    """The answer in words."""
    good, bad, metric, commits = (result[key] for key in ("good", "bad", "metric", "commits"))
    if result["ratio"] is None:
        return [f"{bad} could not be compared with {good}: nothing was found"]
    if not commits:
        return [f"{metric}: no difference beyond {result['detectable']:.1%} between {good} and {bad}"]
    interval = f"{result['ratio']:.2f} × ({result['low']:.2f} to {result['high']:.2f})"
    lines = [f"{metric}: {bad} is {result['verdict']} than {good}, {interval}"]
    named = [f"{each['commit']} {each['subject']}" for each in commits]
    if result["commit"]:
        return [*lines, f"changed by {named[0]}", f"to confirm: {result['confirm']}"]
    lines.append(f"changed by one of {len(commits)} commits, from {named[0]} to {named[-1]}")
    lines += [f"{what}: {', '.join(result[what])}" for what in ("skipped", "undecided") if result[what]]
    return [*lines, *(["more --pairs-max may decide"] if result["undecided"] else [])]
