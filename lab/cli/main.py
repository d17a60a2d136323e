"""The console script ``mcastlab``: its commands, and what becomes of their errors."""

import sys
from collections.abc import Callable

import typer

from forwarder.config.arguments import exit_on_full_disk
from forwarder.problems import ProblemsError
from lab.cli.advise import advise_command, model_command
from lab.cli.bisect import bisect
from lab.cli.machine import clean, doctor
from lab.cli.report import comparisons, report
from lab.cli.run import compare, list_scenarios, plan, run
from lab.cli.terminal import BAD_INPUT, INTERRUPTED, BadInputError, complain
from lab.cli.trend import trend
from lab.journal.archive import RunError
from lab.results import ResultsError

COMMANDS: dict[str, Callable[..., None]] = {
    "list": list_scenarios,
    "plan": plan,
    "run": run,
    "compare": compare,
    "bisect": bisect,
    "report": report,
    "comparisons": comparisons,
    "model": model_command,
    "advise": advise_command,
    "trend": trend,
    "doctor": doctor,
    "clean": clean,
}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help=(
        "Measure multicast forwarders on this machine: network namespaces, a compiled load generator, a "
        "ledger that accounts for every datagram, and a report.\n\n"
        "Start with `mcastlab doctor`. Then `mcastlab run` runs the quick scenarios and writes a report in "
        "about ten minutes; `mcastlab run NAME` runs one scenario. A run changes nothing outside its own "
        "network namespaces and removes them at its end; `mcastlab clean` removes what a killed run left.\n\n"
        "Exit status: 0 passed; 1 a check, an expectation or the gate failed, a ledger did not balance, or "
        "a promise was missed beyond doubt; 2 bad input; 130 interrupted."
    ),
)
for name, command in COMMANDS.items():
    app.command(name)(command)


def main() -> None:
    """Run a command. Bad input ends with messages on stderr and exit status 2, never with a traceback."""
    try:
        with exit_on_full_disk():
            app()
    except (BadInputError, RunError, ProblemsError, ResultsError) as error:
        for line in str(error).splitlines():
            complain(line)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
