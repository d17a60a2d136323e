"""Scenario files: what is accepted, and that everything wrong is said at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.scenario.files import ScenarioError, load_scenarios, parse_scenario
from lab.scenario.layout import least_workers, workers_in_all
from lab.scenario.mcrd_command import strategy_options
from lab.scenario.profiles import PROFILES
from lab.steps.kinds.calibrate import CalibrateStep
from lab.steps.kinds.expect import ExpectStep
from lab.steps.kinds.search import SearchStep
from lab.steps.kinds.soak import SoakStep
from lab.steps.kinds.sweep import SweepStep
from lab.steps.plan import steps

GOOD = """
name = "good"
title = "A scenario"
subjects = ["mcrd", "kernel"]
measure = ["zero-loss"]

[setting]
flows = 4

[[case]]
name = "small"
payload_bytes = 64

[[case]]
name = "large"
payload_bytes = 1400
flows = 8

[[compare]]
metric = "zero-loss rate"
a = "mcrd"
b = "kernel"

[profile.quick]
cases = ["small"]
pairs = 1
"""


def problems(text: str) -> dict[str, str]:
    """What is wrong with a file: allowed values by key."""
    with pytest.raises(ScenarioError) as raised:
        parse_scenario(text, "x.toml")
    return {problem.field.removeprefix("x.toml: "): problem.allowed for problem in raised.value.problems}


def test_a_case_takes_what_it_does_not_say_from_setting() -> None:
    scenario = parse_scenario(GOOD, "x.toml")
    small, large = scenario.case
    assert scenario.settings_of(small).flows == 4
    assert scenario.settings_of(large).flows == 8
    assert scenario.settings_of(large).payload_bytes == 1400


def test_a_profile_overrides_single_keys() -> None:
    scenario = parse_scenario(GOOD, "x.toml")
    assert scenario.profile_named("quick").pairs == 1
    assert scenario.profile_named("quick").trial_ms == PROFILES["quick"].trial_ms
    assert scenario.profile_named("full").pairs > 1


def test_every_problem_is_reported_at_once() -> None:
    found = problems(
        """
        name = "Bad Name"
        seed = "s"
        colour = "red"
        subjects = ["mcrd", "netcat"]
        [setting]
        payload_bytes = 4
        mtu = "1500"
        strategy = "magic"
        [[case]]
        name = "a"
        outputs = 0
        """
    )
    assert set(found) == {
        "name",
        "title",
        "colour",
        "subjects[1]",
        "setting.payload_bytes",
        "setting.mtu",
        "setting.strategy",
        "case[0].outputs",
    }
    assert found["subjects[1]"] == "one of kernel, mcr, mcrd, socat"
    assert found["setting.payload_bytes"] == "at least 18"
    assert "rule-hash" in found["setting.strategy"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("payload_bytes = 1400", "payload_bytes = 1473"), "case[1].payload_bytes"),
        (('name = "large"', 'name = "small"'), "case[1].name"),
        (('cases = ["small"]', 'cases = ["tiny"]'), "profile.quick.cases"),
        (('b = "kernel"', 'b = "mcrd"'), "compare[0].b"),
        (('b = "kernel"', 'b = "kernel"\na_case = "small"'), "compare[0].a_case"),
        (("flows = 8", "outputs = 32"), "case[1].outputs"),
        (("payload_bytes = 1400", "payload_bytes = 1400\nburst = 60"), "case[1].burst"),
        (
            ("payload_bytes = 1400", "payload_bytes = 1400\nburst = 2\nudp_checksum = false"),
            "case[1].burst",
        ),
        (('subjects = ["mcrd", "kernel"]', "subjects = []"), "subjects"),
        (
            ('b = "kernel"', 'b = "kernel"\nb_receive = "softirq"\n[receive]\nkernel = ["first"]'),
            "compare[0].b_receive",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(change: tuple[str, str], key: str) -> None:
    assert key in problems(GOOD.replace(*change))


SEVERAL = """
name = "several"
title = "Several inputs"
subjects = ["mcrd"]
measure = ["zero-loss"]

[setting]
inputs = 4
rules = 8
flows = 8
strategy = "hybrid-hash"
workers = 2

[receive]
mcrd = ["first", "softirq"]

[[case]]
name = "two groups"
groups = 2
hashing = "modulo"

[[case]]
name = "by processor"
steering = "cpu"
placement = "hash"
measure = []

[[expect]]
case = "two groups"
dps = 1000
copies = 1

[[expect]]
case = "by processor"
receive = "softirq"
wrong_worker = "some"
"""


def test_a_setting_says_what_differs_from_the_strategy() -> None:
    scenario = parse_scenario(SEVERAL, "x.toml")
    two, by_processor = (scenario.result_setting(case, "mcrd", receive="first") for case in scenario.case)
    assert (two.strategy, two.inputs, two.workers, two.groups) == ("hybrid-hash", 4, 2, 2)
    assert (two.placement, two.steering, two.hashing) == (None, None, "modulo")
    assert (by_processor.groups, by_processor.placement, by_processor.steering) == (4, None, "cpu")
    alone = scenario.result_setting(scenario.case[0], "kernel", receive="first")
    assert (alone.inputs, alone.strategy, alone.groups, alone.hashing) == (4, None, None, None)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("inputs = 4", "inputs = 251"), "setting.inputs"),
        (("inputs = 4", "inputs = 4\nskew = 0"), "setting.skew"),
        (('hashing = "modulo"', 'hashing = "sha"'), "case[0].hashing"),
        (('steering = "cpu"', 'steering = "dice"'), "case[1].steering"),
        (("rules = 8", "rules = 3"), "case[0].rules"),
        (('measure = ["zero-loss"]', 'measure = ["half-rate"]'), "measure"),
        (('measure = ["zero-loss"]', 'measure = ["latency"]'), "measure"),
        (('measure = ["zero-loss"]', 'measure = ["flat-out", "pdr"]'), "measure"),
        (("measure = []", 'measure = ["half-rate"]'), "case[1].measure"),
        (("flows = 8", "flows = 6"), "case[0].flows"),
        (("inputs = 4", "inputs = 1\nskew = 2"), "case[0].skew"),
        (("groups = 2", "groups = 5"), "case[0].groups"),
        (('strategy = "hybrid-hash"', 'strategy = "rule-hash"'), "case[0].groups"),
        (("groups = 2", 'strategy = "fanout"'), "case[0].inputs"),
        (("groups = 2", 'placement = "by-interface"\nsteering = "cpu"'), "case[0].hashing"),
        (("groups = 2", 'placement = "replicate"'), "case[0].steering"),
        (('case = "two groups"', 'case = "three groups"'), "expect[0].case"),
        (("copies = 1", "copies = 0"), "expect[0].copies"),
        (("copies = 1", 'copies = "one"'), "expect[0].copies"),
        (("copies = 1", ""), "expect[0].(table)"),
        (("copies = 1", "aim = true"), "expect[0].(table)"),
        (("copies = 1", "every_worker = true"), "expect[0].every_worker"),
        (("copies = 1", "every_worker = 1.5"), "expect[0].every_worker"),
        (("copies = 1", 'copies = 1\nsubject = "kernel"'), "expect[0].subject"),
        (('wrong_worker = "some"', "wrong_worker = 7"), "expect[1].wrong_worker"),
        (('wrong_worker = "some"', "wrong = 0"), "expect[1].wrong"),
    ],
)
def test_what_makes_no_sense_with_several_inputs_is_refused(change: tuple[str, str], key: str) -> None:
    assert key in problems(SEVERAL.replace(*change))


def test_only_mcrd_has_workers_to_expect_something_of() -> None:
    text = SEVERAL.replace('subjects = ["mcrd"]', 'subjects = ["mcrd", "kernel"]')
    found = problems(text.replace('receive = "softirq"', 'subject = "kernel"'))
    assert found == {"expect[1].wrong_worker": "left out: only mcrd has workers"}


def test_a_footprint_that_no_strategy_has_is_refused() -> None:
    started = """
[[footprint]]
name = "a fanout group on two interfaces"
workers = 2
rules = 2
inputs = 2
[[footprint]]
name = "replicated, but steered by rule"
workers = 2
rules = 2
strategy = "rule-hash"
placement = "replicate"
"""
    assert set(problems(SEVERAL + started)) == {"footprint[0].inputs", "footprint[1].steering"}


def test_one_input_has_no_others() -> None:
    alone = SEVERAL.replace("copies = 1", "others_lost = 0").replace("groups = 2", "inputs = 1")
    assert set(problems(alone)) == {"expect[0].others_lost"}


def test_no_share_is_even_where_one_input_gets_more() -> None:
    even = SEVERAL.replace("copies = 1", "every_worker = 0.5")
    assert parse_scenario(even, "x.toml").expect[0].expected == {"every_worker": 0.5}
    assert set(problems(even.replace("flows = 8", "flows = 8\nskew = 2"))) == {"expect[0].every_worker"}


def test_options_are_words_for_mcrd_alone() -> None:
    text = SEVERAL.replace("groups = 2", 'options = ["--busy-poll-us", "50"]')
    scenario = parse_scenario(text, "x.toml")
    ours, kernels = (
        scenario.result_setting(scenario.case[0], who, receive="first") for who in ("mcrd", "kernel")
    )
    assert (ours.options, kernels.options) == (("--busy-poll-us", "50"), ())


def test_an_expectation_comes_before_the_measurements_of_its_case() -> None:
    planned = steps([parse_scenario(SEVERAL, "x.toml")], "quick")
    assert [type(step) for step in planned] == [ExpectStep, CalibrateStep, SearchStep, SearchStep, ExpectStep]
    first, *_, last = planned
    assert isinstance(first, ExpectStep)
    assert isinstance(last, ExpectStep)
    assert (first.setting.receive, last.setting.receive) == ("first", "softirq"), (
        "the first that is tried, or as it says"
    )
    assert last.case.name == "by processor", "of which nothing is measured"


def test_a_case_of_which_nothing_is_measured_cannot_be_compared() -> None:
    compared = (
        SEVERAL
        + """
[[compare]]
metric = "zero-loss rate"
a = "mcrd"
b = "mcrd"
a_case = "two groups"
b_case = "by processor"
"""
    )
    assert set(problems(compared)) == {"compare[0].b_case"}


def test_a_wider_search_takes_fewer_trials() -> None:
    narrow, wide = (
        parse_scenario(f"{SEVERAL}\n[profile.quick]\nsearch_width = {width}", "x.toml")
        for width in (0.05, 0.2)
    )
    counts = [
        next(step.trials for step in steps([scenario], "quick") if isinstance(step, SearchStep))
        for scenario in (narrow, wide)
    ]
    assert counts == [8, 4]


def test_loads_on_other_inputs_have_their_own_calibration() -> None:
    more = (
        SEVERAL
        + """
[[case]]
name = "skewed"
skew = 4
[[case]]
name = "another rule count"
rules = 16
"""
    )
    planned = steps([parse_scenario(more, "x.toml")], "quick")
    loads = [step.setting for step in planned if isinstance(step, CalibrateStep)]
    assert [(load.inputs, load.skew, load.rules) for load in loads] == [(4, 1, 4), (4, 4, 4)]


def test_text_that_is_not_toml_is_refused() -> None:
    assert "x.toml" in problems("name = ")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="functional"):
        load_scenarios(["no-such-scenario"])


def test_problems_of_several_files_are_reported_together(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text("name = 1")
    with pytest.raises(ScenarioError) as raised:
        load_scenarios([str(tmp_path / "a.toml"), str(tmp_path / "b.toml")])
    assert {problem.field.partition(":")[0] for problem in raised.value.problems} == {
        str(tmp_path / "a.toml"),
        str(tmp_path / "b.toml"),
    }


def test_cases_with_equal_load_share_a_calibration() -> None:
    planned = steps([parse_scenario(GOOD.replace("payload_bytes = 1400\nflows = 8", ""), "x.toml")], "full")
    assert sum(isinstance(step, CalibrateStep) for step in planned) == 1


def test_a_profile_leaves_cases_out_with_all_their_steps() -> None:
    planned = steps([parse_scenario(GOOD, "x.toml")], "quick")
    assert planned
    assert not [step for step in planned if "large" in step.step_id]


LOADS = """
name = "loads"
title = "Loads that are given"
subjects = ["mcrd", "kernel"]
[[case]]
name = "swept"
[[case]]
name = "soaked"
flows = 4
measure = ["zero-loss"]
[[sweep]]
cases = ["swept"]
ceiling_shares = [0.5, 1.0]
dps = [1000]
[[soak]]
cases = ["soaked"]
subjects = ["mcrd"]
zero_loss_share = 0.5
seconds = 60
trial_s = 20
"""


def test_a_case_that_is_only_swept_is_calibrated_and_one_that_is_soaked_is_searched_first() -> None:
    planned = steps([parse_scenario(LOADS, "x.toml")], "quick")
    swept, soaked = ([s for s in planned if f"/{name}/" in s.step_id] for name in ("swept", "soaked"))
    assert [type(step) for step in swept] == [CalibrateStep, SweepStep, SweepStep]
    assert [step.trials for step in swept[1:]] == [3, 3]
    assert isinstance(soaked[-1], SoakStep)
    assert soaked[-1].trials == 3
    assert 60 <= soaked[-1].seconds < 70
    assert any(isinstance(step, SearchStep) and step.subject == "mcrd" for step in soaked[:-1])


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        (("ceiling_shares = [0.5, 1.0]\ndps = [1000]", ""), "sweep[0]", "ceiling_shares or dps"),
        (("[0.5, 1.0]", "[1.5]"), "sweep[0].ceiling_shares[0]", "at most 1"),
        (("seconds = 60", "seconds = 30"), "soak[0]", "at least two trials, 40"),
        (("zero_loss_share = 0.5", ""), "soak[0]", "dps or zero_loss_share"),
        (("zero_loss_share = 0.5", "dps = 5\nzero_loss_share = 0.5"), "soak[0]", "not both"),
        (('cases = ["soaked"]', 'cases = ["swept"]'), "soak[0].zero_loss_share", "is measured"),
        (('cases = ["swept"]', 'cases = ["wept"]'), "sweep[0].cases", "swept, soaked"),
    ],
)
def test_loads_that_make_no_sense_are_refused(change: tuple[str, str], field: str, allowed: str) -> None:
    assert allowed in problems(LOADS.replace(*change))[field]


def test_a_subject_s_limits_are_those_of_the_cases_that_it_is_in() -> None:
    """10,000 rules are too many for socat, which has no part in that case."""
    text = """
name = "limits"
title = "Two cases"
subjects = ["mcrd", "socat"]
measure = ["zero-loss"]
[[case]]
name = "few"
[[case]]
name = "many"
rules = 10000
subjects = ["mcrd"]
"""
    assert [case.name for case in parse_scenario(text, "limits.toml").case] == ["few", "many"]
    with pytest.raises(ScenarioError, match=r"case\[1\].rules: 10000"):
        parse_scenario(text.replace('subjects = ["mcrd"]', 'subjects = ["socat"]'), "limits.toml")


GENERATORS = """
name = "generators"
title = "Two generators"
subjects = ["mcrd"]
[[case]]
name = "live"
generator = "xdp"
[[case]]
name = "packets"
[[compare]]
metric = "generator rate"
a = "none"
b = "none"
a_case = "live"
b_case = "packets"
"""


def test_generators_are_compared_without_a_subject() -> None:
    parsed = parse_scenario(GENERATORS, "generators.toml")
    assert [step.step_id for step in steps([parsed], "quick")] == [
        "generators/live / packets/none-none/generator-rate"
    ]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"generator rate"', '"zero-loss rate"', "'none'; allowed: 'none' with metric = 'generator rate'"),
        ('a = "none"', 'a = "mcrd"', "'mcrd'; allowed: 'none' with metric = 'generator rate'"),
        ('b_case = "packets"', 'b_case = "live"', "another case; the same with repeat"),
        ('b_case = "packets"', 'b_case = "packets"\nwithin = 0.03', "left out but for a subject compared"),
    ],
)
def test_nonsense_about_generators_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(ScenarioError, match=words):
        parse_scenario(GENERATORS.replace(old, new), "generators.toml")


def test_a_subject_is_compared_with_itself_so_many_times() -> None:
    text = GENERATORS.replace('"none"', '"mcrd"').replace('"generator rate"', '"zero-loss rate"')
    text = text.replace("a_case", "repeat = 3\nwithin = 0.03\na_case").replace(
        'b_case = "packets"', 'b_case = "live"'
    )
    text = text.replace('subjects = ["mcrd"]', 'subjects = ["mcrd"]\nmeasure = ["zero-loss"]')
    ids = [step.step_id for step in steps([parse_scenario(text, "itself.toml")], "quick")]
    assert [name.rsplit("/", 1)[1] for name in ids if "mcrd-mcrd" in name] == ["1", "2", "3"]


CHANGING = """
name = "changing"
title = "Loads and forwarders that change"
subjects = ["mcrd", "kernel"]
[[case]]
name = "elastic"
subjects = ["mcrd"]
strategy = "dynamic"
workers = 3
[[case]]
name = "fixed"
[[course]]
cases = ["elastic"]
phases = [{ dps = 1000, seconds = 2.0 }]
repeat = 3
[[change]]
cases = ["elastic"]
kinds = ["grow", "crash"]
dps = 1000
trials = 4
[[change]]
cases = ["fixed"]
subjects = ["mcrd"]
kinds = ["restart"]
dps = 1000
trials = 2
trial_s = 8.0
"""


def test_courses_and_changes_are_steps_of_their_own() -> None:
    scenario = parse_scenario(CHANGING, "x.toml")
    planned = {step.step_id: step for step in steps([scenario], "quick")}
    assert list(planned) == [
        "changing/elastic/mcrd/course-1",
        "changing/elastic/mcrd/change-1",
        "changing/fixed/mcrd/change-2",
    ]
    course, change, restart = planned.values()
    assert 6 < course.seconds < 9
    assert change.trials == 8
    assert 16 < restart.seconds < 20
    elastic, fixed = scenario.case
    made = strategy_options(scenario.result_setting(elastic, "mcrd", receive="first"))
    assert made == ["--max-workers-per-interface", "3"]
    assert strategy_options(scenario.result_setting(fixed, "mcrd", receive="first")) == []
    # It begins with one, and there is room for three.
    assert least_workers(scenario.result_setting(elastic, "mcrd", receive="first")) == 1
    assert workers_in_all(scenario.result_setting(elastic, "mcrd", receive="first")) == 3


@pytest.mark.parametrize(
    ("change", "field", "allowed"),
    [
        (('cases = ["elastic"]\nphases', 'cases = ["fixed"]\nphases'), "course[0].cases", "elastic strategy"),
        (('cases = ["elastic"]\nphases', "phases"), "course[0].subjects", "mcrd: no other"),
        (('kinds = ["restart"]', 'kinds = ["shrink"]'), "change[1].kinds", "strategy dynamic"),
        (('["grow", "crash"]', '["apply"]'), "change[0]", "needed there"),
        (("trials = 4", 'trials = 4\nto = "pool"'), "change[0]", "allowed with apply"),
        (('["grow", "crash"]', '["apply"]\nto = "pools"'), "change[0].to", "one of fanout"),
        (('["grow", "crash"]', '["grows"]'), "change[0].kinds[0]", "'grow', 'shrink'"),
        (("trials = 4", "trials = 4\nworkers = 4"), "change[0].workers", "at most the case's 3"),
        (("trials = 4", "trials = 4\nworkers = 1"), "change[0]", "at least 2 is allowed with grow"),
        (("trials = 4", "trials = 4\nafter_ms = 1000"), "change[0]", "less than the trial's 1 s"),
    ],
)
def test_changes_that_make_no_sense_are_refused(change: tuple[str, str], field: str, allowed: str) -> None:
    assert allowed in problems(CHANGING.replace(*change))[field]


def test_a_footprint_is_compared_with_one_before_it() -> None:
    text = """
name = "sizes"
title = "Two sizes"
[[footprint]]
name = "small"
workers = 1
rules = 1
[[footprint]]
name = "large"
workers = 2
rules = 1
like = "small"
like_target = 1.5
"""
    assert parse_scenario(text, "x.toml").footprint[1].like == "small"
    assert "small" in problems(text.replace('like = "small"', 'like = "large"'))["footprint[1].like"]
    assert "together" in problems(text.replace("like_target = 1.5", ""))["footprint[1].like_target"]


def test_cases_with_which_nothing_is_done_are_refused() -> None:
    text = 'name = "x"\ntitle = "x"\nsubjects = ["mcrd"]\nmeasure = []\n[[case]]\nname = "a"\n'
    with pytest.raises(ScenarioError, match="case: 1 of them, none measured"):
        parse_scenario(text, "x.toml")
    parse_scenario(text + "[[soak]]\ndps = 100\nseconds = 20\n", "x.toml")


WITH_OPTIONS = """
name = "options"
title = "t"
subjects = ["mcrd"]
measure = ["zero-loss"]
[[case]]
name = "one"
strategy = "dynamic"
workers = 2
options = OPTIONS
"""


@pytest.mark.parametrize(
    ("options", "value", "allowed"),
    [
        ('["--bogus", "3"]', "--bogus 3", "No such option: --bogus"),
        ('["--scale-threshold-pps"]', "--scale-threshold-pps", "requires an argument"),
        ('["--scale-threshold-pps", "0"]', "--scale-threshold-pps '0'", "an integer from 1"),
        ('["--min-workers-per-interface", "3"]', "--max-workers-per-interface 2", "the least, 3, or more"),
        ('["--num-workers", "2"]', "--num-workers", "left out: workers says it"),
        ('["--rules=x.json"]', "--rules", "left out: the lab sets it"),
    ],
)
def test_options_that_mcrd_would_refuse_are_refused_with_the_file(
    options: str, value: str, allowed: str
) -> None:
    text = WITH_OPTIONS.replace("OPTIONS", options)
    with pytest.raises(ScenarioError) as refused:
        parse_scenario(text, "x.toml")
    (problem,) = refused.value.problems
    assert problem.field == "x.toml: case[0].options"
    assert value in problem.value
    assert allowed in problem.allowed
    # Another commit's forwarder has options of its own: they are not this one's to judge.
    if "--bogus" in options:
        parse_scenario(text + 'commit = "HEAD"\n', "x.toml")
