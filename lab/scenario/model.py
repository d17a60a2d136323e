"""Scenario files: what is measured, on what, against whom. Pure: TOML text in, a validated model out.

A scenario is a list of *cases* (rows), each a full setting; what is done with them is said by what the
file has: ``functional`` checks, ``[[footprint]]`` entries, ``measure`` for each case and subject,
``[[expect]]`` for what one trial must show exactly, ``[[latency]]``, ``[[delay]]`` and ``[[capacity]]`` for
what RFC 3918 asks besides rates, ``[[sweep]]`` and ``[[soak]]`` for loads that are given, ``[[course]]`` for
loads that change over time, ``[[change]]`` for what a change of the running forwarder costs,
``[[pipelines]]`` for what another CPU adds, and ``[[compare]]`` for paired comparisons.
``[profile.quick]`` and ``[profile.full]`` say how long and how often; CI runs quick. Every problem of a file
is reported at once, by key, with the value and what is allowed (:mod:`lab.scenario.files`);
:mod:`lab.scenario.validate` has the checks across tables.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from forwarder.plan.strategy import PRESETS, Grouping
from lab.results import Receive, Setting
from lab.scenario.layout import groups_in
from lab.scenario.load_tables import ChangeTable, CourseTable, PipelinesTable, SoakTable, SweepTable
from lab.scenario.profiles import PROFILES, Profile, ProfileName
from lab.scenario.rfc3918_tables import CapacityTable, Chosen, DelayTable, LatencyTable, Section
from lab.scenario.tables import (
    DEFAULT_RECEIVE,
    Bisect,
    Case,
    Compare,
    Defaults,
    Expect,
    FootprintCase,
    Measure,
    Model,
    Name,
    ReceiveTried,
    SubjectName,
)

_OURS = {"workers", "strategy", "groups", "placement", "steering", "hashing", "options", "commit"}
"""What a setting says of mcrd alone."""
_GENERATED = {"payload_bytes", "inputs", "skew", "flows", "burst", "generator", "egress", "udp_checksum"}


class Scenario(BaseModel):
    """A whole file; see the module for what its parts are for."""

    model_config = Model.model_config

    name: Name
    title: Annotated[str, Field(min_length=1, max_length=120)]
    seed: str = ""
    """The line of the architecture document that this covers, if any."""
    default: bool = True
    """Whether ``mcastlab run`` without names runs it."""
    functional: bool = False
    subjects: list[SubjectName] = []
    measure: list[Measure] = []
    pdr_loss_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.005
    """The share of copies that may be lost at the rate that ``pdr`` finds."""
    setting: Defaults = Defaults()
    receive: dict[SubjectName, ReceiveTried] = {}
    case: list[Case] = []
    expect: list[Expect] = []
    compare: list[Compare] = []
    bisect: Bisect | None = None
    footprint: list[FootprintCase] = []
    latency: list[LatencyTable] = []
    delay: list[DelayTable] = []
    capacity: list[CapacityTable] = []
    sweep: list[SweepTable] = []
    soak: list[SoakTable] = []
    course: list[CourseTable] = []
    change: list[ChangeTable] = []
    pipelines: list[PipelinesTable] = []
    rfc3918: list[Section] = []
    """The tests of RFC 3918 that this makes, by their sections."""
    profile: dict[ProfileName, Profile] = {}

    def chosen_tables(self) -> Mapping[str, Sequence[Chosen]]:
        """The tables that choose cases and subjects, by their key."""
        return {
            key: tables
            for key, tables in self
            if isinstance(tables, list) and any(isinstance(table, Chosen) for table in tables)
        }

    def profile_named(self, name: ProfileName) -> Profile:
        override = self.profile.get(name)
        changes = override.model_dump(exclude_unset=True) if override else {}
        return PROFILES[name].model_copy(update=changes)

    def settings_of(self, case: Case) -> Defaults:
        own = case.model_dump(exclude_unset=True, exclude={"name", "measure", "subjects"})
        return self.setting.model_copy(update=own)

    def receive_of(self, subject: str) -> list[Receive]:
        """Who may do the receive work: what is tried for a subject."""
        return self.receive.get(subject, list(DEFAULT_RECEIVE))

    def commits(self) -> list[str]:
        """The commits whose forwarder is wanted, each once."""
        found = (self.settings_of(case).commit for case in self.case)
        return list(dict.fromkeys(commit for commit in found if commit is not None))

    def subjects_in(self, case: Case) -> list[SubjectName]:
        return self.subjects if case.subjects is None else case.subjects

    def measured_in(self, case: Case) -> list[Measure]:
        """What is measured of a case, for each subject."""
        return self.measure if case.measure is None else case.measure

    def result_setting(self, case: Case, subject: str, receive: Receive) -> Setting:
        """The record's setting; what does not apply to a subject is left out."""
        values = self.settings_of(case)
        load = values.model_dump(include=Setting.model_fields.keys() - _OURS)
        if subject != "mcrd":
            return Setting(**load, receive=receive)
        own = PRESETS[values.strategy]
        grouped = own.grouping is Grouping.INTERFACE_GROUPS
        axes = {key: getattr(values, key) for key in ("placement", "steering", "hashing")}
        return Setting(
            **load,
            **{key: chosen for key, chosen in axes.items() if chosen != getattr(own, key)},
            receive=receive,
            workers=values.workers,
            strategy=values.strategy,
            groups=groups_in(values.strategy, values.inputs, values.groups) if grouped else None,
            options=tuple(values.options),
            commit=values.commit,
        )

    def generator_setting(self, case: Case) -> Setting:
        """What the generator's ceiling depends on. Cases in which this is equal share one calibration."""
        values = self.settings_of(case)
        return Setting(**values.model_dump(include=_GENERATED), rules=values.inputs)
