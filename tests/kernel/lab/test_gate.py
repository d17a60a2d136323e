"""What a comparison with a tolerance does to a run, on real figures: one copy of a datagram against eight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from junitparser import Failure, JUnitXml

from lab.results import Check, Comparison, RunEnded, read_results

MCASTLAB = str(Path(sys.executable).with_name("mcastlab"))

SCENARIO = """
name = "fewer"
title = "An eighth of the copies"
subjects = ["kernel"]
[receive]
kernel = ["first"]
[[case]]
name = "1→1"
measure = ["flat-out"]
[[case]]
name = "1→8"
outputs = 8
measure = ["flat-out"]
[[compare]]
metric = "delivered copies/s"
a = "kernel"
b = "kernel"
a_case = "1→1"
b_case = "1→8"
dps = 2000
tolerance = 0.9
[profile.quick]
trial_ms = 50
pairs = 6
"""


def test_an_eighth_of_what_was_delivered_fails_a_run_once_it_has_been_seen_twice(tmp_path: Path) -> None:
    """At a rate that any machine holds, so the ratio is about an eighth whatever else it does."""
    (tmp_path / "fewer.toml").write_text(SCENARIO)
    out, junit, summary = (tmp_path / name for name in ("out", "junit.xml", "summary.md"))
    lab = subprocess.run(
        [MCASTLAB, "run", str(tmp_path / "fewer.toml"), "--out", str(out), "--junit", str(junit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, "GITHUB_STEP_SUMMARY": str(summary), "FORCE_COLOR": "1"},
    )
    assert lab.returncode == 1, lab.stderr
    records = list(read_results(out / "results.jsonl"))
    taken = [record for record in records if isinstance(record, Comparison)]
    assert [record.high < 0.9 for record in taken] == [True, True]
    assert not set(taken[0].trial_ids) & set(taken[1].trial_ids)
    (check,) = (record for record in records if isinstance(record, Check))
    assert not check.passed
    ended = records[-1]
    assert isinstance(ended, RunEnded)
    (failure,) = ended.failures
    assert failure.endswith(check.observed)

    told = [case for suite in JUnitXml.fromfile(str(junit)) for case in suite]
    failed = [case for case in told if any(isinstance(result, Failure) for result in case.result)]
    assert [case.name for case in failed] == [f"{check.case}: {check.expected}"]
    steps = [case for case in told if case not in failed]
    assert {"1→1/calibrate", "1→8/kernel/first/search"} < {case.name for case in steps}
    assert all(case.time > 0 for case in steps)

    assert summary.read_text().startswith("## mcastlab: failed\n")
    assert check.observed in summary.read_text().replace("\\", "")
    first, *lines = lab.stderr.splitlines()
    assert first.startswith(f"{len(steps)} steps, about ")
    assert len(lines) == len(steps)
    assert "\x1b" not in lab.stderr
    assert "once more, with everything started anew" in lines[-1]
