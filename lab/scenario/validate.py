"""What a scenario's tables must say together: names that exist, combinations that can be measured. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from forwarder.plan.strategy import PRESETS, Grouping, RulePlacement, Steering, Width, strategy_problems
from forwarder.problems import Problem
from lab.load import mixed_traffic as mixed
from lab.load.jobs import MAX_LIVE_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES
from lab.results import NONE
from lab.scenario.layout import strategy_of
from lab.scenario.load_tables import ChangeTable, CourseTable, SoakTable
from lab.scenario.mcrd_command import option_problems
from lab.scenario.model import Scenario
from lab.scenario.rfc3918_tables import Chosen, LatencyTable
from lab.scenario.subjects import SUBJECTS
from lab.scenario.tables import SHARED_METRICS, Bisect, Case, Compare, Defaults, Expect, FootprintCase


def sense_problems(scenario: Scenario) -> list[Problem]:
    """Everything that is wrong with a scenario whose keys are right one by one."""
    found = list(_name_problems(scenario))
    if not (scenario.functional or scenario.case or scenario.footprint):
        found.append(Problem("(file)", "nothing to do", "functional = true, [[case]] or [[footprint]]"))
    done = (scenario.measure, scenario.compare, scenario.expect, scenario.chosen_tables())
    if scenario.case and not any((*done, *(case.measure for case in scenario.case))):
        allowed = "measure, [[compare]], [[expect]] or another table that says what is done with the cases"
        found.append(Problem("case", f"{len(scenario.case)} of them, none measured", allowed))
    if scenario.case and not scenario.subjects:
        allowed = f"at least one of {', '.join(SUBJECTS)}, for the cases"
        found.append(Problem("subjects", "[]", allowed))
    for key, measure in (
        ("measure", scenario.measure),
        *((f"case[{index}].measure", case.measure) for index, case in enumerate(scenario.case)),
    ):
        if measure and "zero-loss" not in measure:
            for name, why in (
                ("half-rate", "half of what it finds"),
                ("latency", "shares of what it finds"),
                ("pdr", "one search finds both"),
            ):
                if name in measure:
                    found.append(Problem(key, str(measure), f"zero-loss beside {name}: {why}"))
    for index, name in enumerate(scenario.subjects):
        if name in scenario.subjects[:index]:
            found.append(Problem(f"subjects[{index}]", repr(name), "each subject once"))
    tables: list[tuple[str, Iterable[Problem]]] = []
    for index, compare in enumerate(scenario.compare):
        tables.append((f"compare[{index}]", _compare_problems(scenario, compare)))
    if scenario.bisect is not None:
        tables.append(("bisect", _bisect_problems(scenario, scenario.bisect)))
    for index, expect in enumerate(scenario.expect):
        tables.append((f"expect[{index}]", _expect_problems(scenario, expect)))
    for key, probes in scenario.chosen_tables().items():
        for index, probe in enumerate(probes):
            tables.append((f"{key}[{index}]", _probe_problems(scenario, key, probe)))
    for index, footprint in enumerate(scenario.footprint):
        tables.append((f"footprint[{index}]", _strategy_problems(footprint)))
    for index, case in enumerate(scenario.case):
        for name in case.subjects or []:
            if name not in scenario.subjects:
                allowed = f"some of the subjects: {', '.join(scenario.subjects)}"
                found.append(Problem(f"case[{index}].subjects", repr(name), allowed))
        values = scenario.settings_of(case)
        tables.append((f"case[{index}]", _load_problems(values)))
        tables.append((f"case[{index}]", _unicast_problems(values)))
        tables += [
            (f"case[{index}]", _limit_problems(values, subject)) for subject in scenario.subjects_in(case)
        ]
        if "mcrd" in scenario.subjects_in(case):
            tables.append((f"case[{index}]", _command_line_problems(scenario, case)))
    found += [
        replace(problem, field=f"{table}.{problem.field}")
        for table, problems in tables
        for problem in problems
    ]
    return found


def _name_problems(scenario: Scenario) -> Iterable[Problem]:
    """Names that are given twice, and references to names that do not exist."""
    for table, names in (
        ("case", [case.name for case in scenario.case]),
        ("footprint", [entry.name for entry in scenario.footprint]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                yield Problem(f"{table}[{index}].name", repr(name), "a name not used before")
    known = [case.name for case in scenario.case]
    references: list[tuple[str, str | None]] = []
    for profile_name, override in scenario.profile.items():
        references += [(f"profile.{profile_name}.cases", name) for name in override.cases or []]
    for index, compare in enumerate(scenario.compare):
        references += [(f"compare[{index}].cases", name) for name in compare.cases or []]
        references += [(f"compare[{index}].{side}", getattr(compare, side)) for side in ("a_case", "b_case")]
    references += [(f"expect[{index}].case", expect.case) for index, expect in enumerate(scenario.expect)]
    for key, probes in scenario.chosen_tables().items():
        for index, probe in enumerate(probes):
            references += [(f"{key}[{index}].cases", name) for name in probe.cases or []]
    measured: list[str] = []
    for index, entry in enumerate(scenario.footprint):
        if entry.like is not None and entry.like not in measured:
            allowed = f"one of the footprints before it: {', '.join(measured) or 'there are none'}"
            yield Problem(f"footprint[{index}].like", repr(entry.like), allowed)
        if (entry.like is None) != (entry.like_target is None):
            allowed = "like and like_target together, or neither"
            yield Problem(f"footprint[{index}].like_target", str(entry.like_target), allowed)
        measured.append(entry.name)
    for field, reference in references:
        if reference is not None and reference not in known:
            yield Problem(field, repr(reference), f"one of the cases: {', '.join(known) or 'there are none'}")


def _compare_problems(scenario: Scenario, compare: Compare) -> Iterable[Problem]:
    alone = compare.metric == "generator rate"
    for side, subject, receive in (
        ("a", compare.a, compare.a_receive),
        ("b", compare.b, compare.b_receive),
    ):
        if alone or subject == NONE:
            if not alone or subject != NONE:
                yield Problem(side, repr(subject), "'none' with metric = 'generator rate', and only there")
            continue
        if subject not in scenario.subjects:
            yield Problem(side, repr(subject), f"one of the subjects: {', '.join(scenario.subjects)}")
        tried = scenario.receive_of(subject)
        if receive is not None and receive not in tried:
            yield Problem(f"{side}_receive", repr(receive), f"one that is tried: {', '.join(tried)}")
    if (compare.a_case is None) != (compare.b_case is None):
        yield Problem("a_case", repr(compare.a_case), "a_case and b_case together, or neither")
    if compare.cases is not None and compare.a_case is not None:
        yield Problem("cases", repr(compare.cases), "cases, or a_case and b_case, not both")
    same = (compare.a, compare.a_case, compare.a_receive) == (compare.b, compare.b_case, compare.b_receive)
    if same and compare.repeat == 1 and compare.tolerance is None:
        allowed = "another subject than a, or another case; the same with repeat or tolerance"
        yield Problem("b", repr(compare.b), allowed)
    if compare.dps is not None and compare.metric not in ("CPU per copy", "delivered copies/s"):
        allowed = "left out but for metric = 'CPU per copy' or 'delivered copies/s'"
        yield Problem("dps", str(compare.dps), allowed)
    if compare.share is not None and (compare.metric not in SHARED_METRICS or compare.dps is not None):
        allowed = f"left out but for {', '.join(map(repr, SHARED_METRICS))}, and with dps"
        yield Problem("share", str(compare.share), allowed)
    if compare.tolerance is not None and compare.repeat > 1:
        yield Problem("tolerance", str(compare.tolerance), "left out with repeat")
    if compare.within is not None and not same:
        yield Problem("within", str(compare.within), "left out but for a subject compared with itself")
    if alone and compare.a_case is None:
        yield Problem("a_case", "None", "a_case and b_case with metric = 'generator rate'")
    if alone:
        return
    # A comparison starts from what the searches of its cases found.
    unmeasured = {case.name for case in scenario.case if not scenario.measured_in(case)}
    named = [("cases", name) for name in compare.cases or []]
    for key, name in (*named, ("a_case", compare.a_case), ("b_case", compare.b_case)):
        if name in unmeasured:
            yield Problem(key, repr(name), "a case of which something is measured")


def _bisect_problems(scenario: Scenario, bisect: Bisect) -> Iterable[Problem]:
    cases = [case.name for case in scenario.case if scenario.settings_of(case).commit is not None]
    if scenario.subjects != ["mcrd"] or len(cases) != 1 or len(scenario.case) != 1:
        yield Problem(
            "(table)", f"{len(scenario.case)} cases", "one case with a commit, and mcrd its only subject"
        )
    if bisect.metric == "generator rate":
        yield Problem("metric", repr(bisect.metric), "a metric of the forwarder")
    if bisect.share is not None and bisect.metric not in SHARED_METRICS:
        allowed = f"left out but for {', '.join(map(repr, SHARED_METRICS))}"
        yield Problem("share", str(bisect.share), allowed)
    needed = "flat-out" if bisect.metric == "delivered copies/s" else "zero-loss"
    if needed not in scenario.measure:
        yield Problem("metric", repr(bisect.metric), f"with {needed!r} in measure")


def _probe_problems(scenario: Scenario, key: str, probe: Chosen) -> Iterable[Problem]:
    for name in probe.subjects or []:
        if name not in scenario.subjects:
            yield Problem("subjects", repr(name), f"some of the subjects: {', '.join(scenario.subjects)}")
    chosen = [case for case in scenario.case if probe.cases is None or case.name in probe.cases]
    for case in chosen:
        values = scenario.settings_of(case)
        yield from _operated_problems(scenario, case, values, probe)
        if key == "delay" and values.egress != "wire-like":
            yield Problem("cases", repr(case.name), 'cases with egress = "wire-like": each datagram a frame')
        if key == "pipelines" and values.generator != "packet":
            allowed = "cases with generator = 'packet': one in the kernel keeps the CPU that it shares"
            yield Problem("cases", repr(case.name), allowed)
        if key == "capacity" and (values.inputs > 1 or values.unicast_percent):
            yield Problem("cases", repr(case.name), "cases with one input and without unicast")
        if "zero-loss" in scenario.measured_in(case):
            continue
        if isinstance(probe, LatencyTable) and probe.shares:
            yield Problem("shares", repr(case.name), "cases whose zero-loss rate is measured")
        if isinstance(probe, SoakTable) and probe.zero_loss_share is not None:
            yield Problem("zero_loss_share", repr(case.name), "cases whose zero-loss rate is measured")


def _operated_problems(scenario: Scenario, case: Case, values: Defaults, probe: Chosen) -> Iterable[Problem]:
    """Only mcrd is watched and changed while it runs, and only an elastic strategy can be resized."""
    if not isinstance(probe, CourseTable | ChangeTable):
        return
    for name in probe.subjects or scenario.subjects_in(case):
        if name != "mcrd":
            yield Problem("subjects", repr(name), "mcrd: no other is changed while it runs")
    elastic = PRESETS[values.strategy].width is Width.ELASTIC
    if isinstance(probe, CourseTable) and not elastic:
        yield Problem("cases", repr(case.name), "cases with an elastic strategy: dynamic")
    if isinstance(probe, ChangeTable):
        resized = [kind for kind in probe.kinds if kind in ("grow", "shrink")]
        if resized and not elastic:
            yield Problem("kinds", ", ".join(resized), "left out but for cases with strategy dynamic")
        if probe.to is not None and probe.to not in PRESETS:
            yield Problem("to", repr(probe.to), f"one of {', '.join(PRESETS)}")
        if elastic and probe.workers > values.workers:
            yield Problem("workers", str(probe.workers), f"at most the case's {values.workers}")


def _unicast_problems(values: Defaults) -> Iterable[Problem]:
    if not values.unicast_percent:
        return
    beside = f"with unicast_percent = {values.unicast_percent}"
    if values.inputs > 1:
        yield Problem("inputs", str(values.inputs), f"1 {beside}")
    if values.burst > 1:
        yield Problem("burst", str(values.burst), f"1 {beside}")
    if values.steering == Steering.UNGROUPED:
        yield Problem("steering", values.steering, f"one by which one worker gets each datagram, {beside}")
    most = max(mixed.shares(values.unicast_percent, values.flows, values.outputs))
    if most > mixed.LARGEST_SHARE:
        allowed = f"fewer {beside}: one stream would have {most:,} datagrams in a turn, at most"
        yield Problem("flows", str(values.flows), f"{allowed} {mixed.LARGEST_SHARE:,}")


def _expect_problems(scenario: Scenario, expect: Expect) -> Iterable[Problem]:
    if expect.subject not in scenario.subjects:
        allowed = f"one of the subjects: {', '.join(scenario.subjects)}"
        yield Problem("subject", repr(expect.subject), allowed)
    if expect.pace is not None and expect.dps is None:
        yield Problem("pace", str(expect.pace), "left out without dps: there is no rate to keep")
    if not expect.expected:
        keys = [key for key in type(expect).model_fields if key not in expect.ABOUT]
        yield Problem("(table)", "nothing expected", f"at least one of {', '.join(keys)}")
    if expect.subject != "mcrd":
        for key in ("wrong_worker", "every_worker", "rules_held"):
            if key in expect.expected:
                yield Problem(key, repr(expect.expected[key]), "left out: only mcrd has workers")
    settings = {case.name: scenario.settings_of(case) for case in scenario.case}
    if (values := settings.get(expect.case)) is None:
        return
    if expect.others_lost is not None and values.inputs == 1:
        yield Problem("others_lost", "0", "left out for a case with one input")
    if expect.every_worker is not None and values.skew > 1:
        yield Problem("every_worker", str(expect.every_worker), "left out with skew: no share is even")


def _load_problems(values: Defaults) -> Iterable[Problem]:
    if values.payload_bytes + 28 > values.mtu:
        allowed = f"at most {values.mtu - 28} with mtu = {values.mtu}"
        yield Problem("payload_bytes", str(values.payload_bytes), allowed)
    if values.burst * values.payload_bytes > MAX_PAYLOAD_BYTES:
        most = MAX_PAYLOAD_BYTES // values.payload_bytes
        yield Problem("burst", str(values.burst), f"at most {most} with {values.payload_bytes} bytes each")
    if values.burst > 1 and not values.udp_checksum and values.generator == "packet":
        allowed = "1 with udp_checksum = false: the kernel, which cuts the bursts up, fills checksums in"
        yield Problem("burst", str(values.burst), allowed)
    if values.generator == "xdp" and values.payload_bytes > MAX_LIVE_PAYLOAD_BYTES:
        allowed = f"at most {MAX_LIVE_PAYLOAD_BYTES} with generator = 'xdp'"
        yield Problem("payload_bytes", str(values.payload_bytes), allowed)
    if values.rules < values.inputs:
        allowed = f"at least {values.inputs}: one for each of the inputs"
        yield Problem("rules", str(values.rules), allowed)
    if values.flows % values.inputs:
        allowed = f"a multiple of {values.inputs}: as many for each of the inputs"
        yield Problem("flows", str(values.flows), allowed)
    if values.skew > 1 and values.inputs == 1:
        yield Problem("skew", str(values.skew), "1 with one input")


def _limit_problems(values: Defaults, subject: str) -> Iterable[Problem]:
    """What is more than a subject can be asked for."""
    limits = SUBJECTS[subject]
    why = f"the subject {subject} ({limits.why})"
    if limits.interfaces is not None and values.outputs > limits.interfaces - values.inputs:
        inputs = f"{values.inputs} input{'s' * (values.inputs > 1)}"
        allowed = f"at most {limits.interfaces - values.inputs} with {inputs} and {why}"
        yield Problem("outputs", str(values.outputs), allowed)
    if limits.copies is not None and values.rules * values.outputs > limits.copies:
        allowed = f"at most {limits.copies // values.outputs} with outputs = {values.outputs} and {why}"
        yield Problem("rules", str(values.rules), allowed)
    if limits.counts_frames and values.egress == "offload" and values.burst > 1:
        allowed = f"1 with egress = 'offload' and the subject {subject}, whose account is in frames"
        yield Problem("burst", str(values.burst), allowed)


def _command_line_problems(scenario: Scenario, case: Case) -> Iterable[Problem]:
    """What mcrd would refuse; of the options themselves only this version's own can be said."""
    values = scenario.settings_of(case)
    found = list(_strategy_problems(values))
    yield from found
    if values.options and values.commit is None and not found:
        inputs = [f"in{number}" for number in range(values.inputs)]
        yield from option_problems(scenario.result_setting(case, "mcrd", receive="first"), inputs)


def _strategy_problems(values: Defaults | FootprintCase) -> Iterable[Problem]:
    own = PRESETS[values.strategy]
    if own.grouping is Grouping.ONE_INTERFACE and values.inputs > 1:
        yield Problem("inputs", str(values.inputs), f"1 with strategy {values.strategy}")
    if values.groups is not None:
        if own.grouping is not Grouping.INTERFACE_GROUPS:
            grouped = [name for name, s in PRESETS.items() if s.grouping is Grouping.INTERFACE_GROUPS]
            yield Problem("groups", str(values.groups), f"left out but for {', '.join(grouped)}")
        elif values.groups > values.inputs:
            yield Problem("groups", str(values.groups), f"at most {values.inputs}, as many as inputs")
    chosen = strategy_of(values.strategy, values.placement, values.steering, values.hashing)
    yield from strategy_problems(chosen)
    if values.hashing is not None and chosen.placement is not RulePlacement.HASH:
        yield Problem("hashing", values.hashing, "left out where no rules are hashed")
