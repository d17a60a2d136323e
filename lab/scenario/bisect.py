"""``mcastlab bisect``: build the scenario that finds the commit which changed a figure. Pure."""

from collections.abc import Sequence

from forwarder.problems import Problem, ProblemsError
from lab.scenario.compare import checked, common_settings, metric_tables
from lab.scenario.model import Scenario

NAME = "bisect"
_OPTIONS = (
    (r"^(setting|case\[0\])\.", "--case."),
    (r"^bisect\.pairs_max", "--pairs-max"),
    (r"^bisect\.", "--metric."),
)


def ask(
    good: str, commits: Sequence[str], base: Sequence[str], metric: str, pairs_max: int | None
) -> Scenario:
    """The scenario that finds which of ``commits``, in order, changed what is measured of ``good``.

    Args:
        base: ``KEY=VALUE`` of every commit.
        metric: as ``mcastlab compare`` has it.
        pairs_max: of one comparison.

    Raises:
        CompareError: with everything that is wrong.
    """
    problems: list[Problem] = []
    common = common_settings(base, _no_commit, problems)
    compared = next(iter(metric_tables([metric], problems)), {"metric": "zero-loss rate"})
    tables = {
        "name": NAME,
        "title": f"The commit after {good} that changed: {compared['metric']}",
        "seed": "mcastlab bisect",
        "default": False,
        "subjects": ["mcrd"],
        "measure": ["flat-out" if compared["metric"] == "delivered copies/s" else "zero-loss"],
        "receive": {"mcrd": ["first"]},
        "setting": common,
        "case": [{"name": good, "commit": good}],
        "bisect": {
            **compared,
            "commits": list(commits),
            **({} if pairs_max is None else {"pairs_max": pairs_max}),
        },
    }
    return checked(tables, NAME, problems, _OPTIONS)


def _no_commit(commit: str) -> str:
    raise ProblemsError([Problem("commit", repr(commit), "left out: --good and --bad say which")])
