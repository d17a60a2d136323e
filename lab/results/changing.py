"""Records of a load, or a forwarder, that changes meanwhile. Times count from the first datagram."""

from typing import Literal

from lab.results.parts import NS_PER_S, Measured, Record

ChangeKind = Literal["grow", "shrink", "add rule", "remove rule", "crash", "restart", "apply"]
"""A worker more and one less in an elastic group; a rule of another group; a worker that is killed; the whole
forwarder stopped, and started with the rules that it had; another strategy put in force."""


class OfferedPhase(Record):
    """What was offered for a while at one rate, over all inputs."""

    started_ns: int
    duration_ns: int
    asked_dps: int
    offered: int


class ScalingSample(Record):
    """How many workers a group had at a moment, and what it saw itself be offered."""

    at_ns: int
    group: int
    workers: int
    offered_dps: int


class Resize(Record):
    """A change of a group's size that the forwarder logged."""

    at_ns: int
    """When it began."""
    took_ns: int
    group: int
    before: int
    after: int
    reason: str
    failed: str | None = None


class Course(Measured):
    """A load that changed over time, and the workers that a forwarder had for it."""

    kind: Literal["course"] = "course"
    trial_ids: list[str]
    threshold_dps: int
    """What a worker of an elastic group is meant for."""
    min_workers: int
    max_workers: int
    """Upper bound of each group."""
    hot_group: int
    hot_share: float
    """Share of the load that is offered to the hot group."""
    phases: list[OfferedPhase]
    samples: list[ScalingSample]
    resizes: list[Resize]
    offered: int
    expected: int
    delivered: int
    duplicated: int
    reordered: int
    scaled_ns: int | None = None
    """From the overload of the hot group until it had workers enough; ``None`` without either."""
    scaled_target_ns: int | None = None
    warnings: list[str] = []

    @property
    def duration_ns(self) -> int:
        last = self.phases[-1]
        return last.started_ns + last.duration_ns

    @property
    def most_workers(self) -> int:
        """Largest size of the hot group."""
        sizes = [sample.workers for sample in self.samples if sample.group == self.hot_group]
        sizes += [change.after for change in self.resizes if change.group == self.hot_group]
        return max(sizes, default=0)


class Change(Measured):
    """What a change of a running forwarder cost, over several trials with one change in each.

    The lists have an entry for each trial of ``trial_ids``.
    """

    kind: Literal["change"] = "change"
    change: ChangeKind
    to: str | None = None
    """The strategy that ``apply`` puts in force."""
    asked_dps: int
    trial_ids: list[str]
    offered: list[int]
    duration_ns: list[int]
    lost: list[int]
    """Copies, in the whole trial."""
    duplicated: list[int]
    reordered: list[int]
    """Copies, of flows that kept their worker."""
    reordered_moved: list[int]
    """Copies, of flows that changed it."""
    share: list[float]
    """Share of the load that the change affects: that of the killed worker, or all of it."""
    took_ns: list[int]
    """From the request to its answer; until a worker that was killed, or the whole, ran again."""
    flows_moved: int = 0
    """Flows of ``setting.flows`` that change their worker."""
    left_out: int = 0
    """Trials in which something else than the subject lost datagrams, or that were offered too little."""
    blocked_target_ns: int | None = None
    warnings: list[str] = []

    @property
    def title(self) -> str:
        """For people."""
        return f"{self.change} {self.to}" if self.to else self.change

    @property
    def blocked_ns(self) -> list[float]:
        """For each trial, how long nothing would have been forwarded, of what the change is about, to lose
        as much: what was lost over the rate at which it was offered."""
        copies = self.setting.outputs
        return [
            lost / copies / (offered * share) * duration_ns if offered and share else 0.0
            for lost, offered, share, duration_ns in zip(
                self.lost, self.offered, self.share, self.duration_ns, strict=True
            )
        ]

    @property
    def kept(self) -> bool | None:
        """Whether the target was met in every trial; ``None`` without one."""
        if self.blocked_target_ns is None:
            return None
        return all(blocked <= self.blocked_target_ns for blocked in self.blocked_ns)

    @property
    def offered_dps(self) -> float:
        return sum(self.offered) * NS_PER_S / sum(self.duration_ns)
