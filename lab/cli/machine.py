"""``mcastlab doctor`` and ``clean``: this machine, before and after runs."""

from dataclasses import asdict
from typing import Annotated

import typer

from lab.cli.terminal import FAILED, PASSED, JsonOption, print_json, say


def doctor(as_json: JsonOption = False) -> None:
    """Check what this machine can do for a run, and say how to get what is missing, and what bends figures.

    Each check tries the real thing, in a network namespace of its own. What bends figures, such as DAMON or a
    CPU governor that follows the load, stops no run: runs are marked with it. Exit status 1 if something that
    a run needs is missing.
    """
    from lab.cli.doctor import examine, report_lines

    findings = examine()
    ready = all(finding.ok for finding in findings if finding.needed)
    if as_json:
        print_json({"ready": ready, "checks": [asdict(finding) for finding in findings]})
    else:
        for line in report_lines(findings):
            say(line)
    raise typer.Exit(PASSED if ready else FAILED)


def clean(
    everything: Annotated[
        bool, typer.Option("--all", help="Also remove those of runs still going on, which then fail.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove what killed runs left behind: namespaces, the processes in them, temporary directories.

    Only things with the lab's own names are removed, and only if the process that made them is gone. --json
    lists the namespaces.
    """
    from lab.measure.watch import remove_group
    from lab.netns.clean import clean as remove
    from lab.netns.clean import remove_directories

    removed = remove(everything)
    remove_group()
    directories = remove_directories()
    if as_json:
        print_json([asdict(item) for item in removed])
        return
    for item in removed:
        returned = f", gave back {', '.join(item.returned)}" if item.returned else ""
        say(f"removed {item.namespace}, {item.processes} processes{returned}")
    for path in directories:
        say(f"removed {path}")
    if not (removed or directories):
        say("nothing to remove")
