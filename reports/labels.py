"""Names that a reader sees: subjects, cases, and settings where rows would otherwise read the same."""

from collections.abc import Callable, Iterable, Mapping

from lab.results import Comparison, Setting, Trial, ZeroLoss
from reports.dataset import Dataset, Item, Named, Tested, row_key
from reports.quantity import plural

SUBJECTS = {"none": "generator alone", "kernel": "kernel routing"}

SETTINGS: Mapping[str, Callable[[Setting], str]] = {
    "payload_bytes": lambda s: f"{s.payload_bytes:,} B",
    "inputs": lambda s: plural(s.inputs, "input"),
    "outputs": lambda s: plural(s.outputs, "output"),
    "flows": lambda s: plural(s.flows, "flow"),
    "burst": lambda s: "no bursts" if s.burst == 1 else f"bursts of {s.burst}",
    "generator": lambda s: "" if s.generator == "packet" else "live frames",
    "rules": lambda s: plural(s.rules, "rule"),
    "skew": lambda s: "even inputs" if s.skew == 1 else f"{s.skew:,} × the load on the first input",
    "unicast_percent": lambda s: f"{s.unicast_percent} % unicast" if s.unicast_percent else "",
    "udp_checksum": lambda s: "" if s.udp_checksum else "no UDP checksums",
    "workers": lambda s: "" if s.workers is None else f"{plural(s.workers, 'worker')} a group",
    "strategy": lambda s: s.strategy or "",
    "groups": lambda s: "" if s.groups is None else plural(s.groups, "interface group"),
    "placement": lambda s: "" if s.placement is None else f"placement {s.placement}",
    "steering": lambda s: "" if s.steering is None else f"steering {s.steering}",
    "options": lambda s: " ".join(s.options),
    "hashing": lambda s: "" if s.hashing is None else f"hashing {s.hashing}",
}
"""Settings in words; empty where the strategy's own value holds."""
LOAD = (
    *("payload_bytes", "outputs", "flows", "burst", "generator"),
    *("rules", "skew", "unicast_percent", "udp_checksum", "egress"),
)
"""Settings of the load. Inputs are not among them: one strategy serves a single input."""
AXES = ("strategy", "groups", "placement", "steering", "hashing")
"""Settings of the strategy."""

RECEIVE = {
    "first": "",
    "in turn": ", receiving in turn",
    "softirq": ", receiving in softirq",
    "sender": ", receiving on the sender's CPU",
}
"""Who does the receive work, behind a subject's name."""


def unique(items: Iterable[Item]) -> list[Item]:
    """Each item once, in order of first appearance: tables follow the run."""
    return list(dict.fromkeys(items))


def subject(name: str) -> str:
    return SUBJECTS.get(name, name)


def subject_with_receive(record: Tested) -> str:
    """``mcrd, softirq``: the subject, and who does its receive work where that is not a thread of its own."""
    return f"{subject(record.subject)}{RECEIVE[record.setting.receive]}"


def egress(setting: Setting) -> str:
    return "wire-like" if setting.egress == "wire-like" else "offloads on"


def settings_text(setting: Setting, names: Iterable[str]) -> str:
    """The named settings in words, without those that are empty."""
    return ", ".join(filter(None, (SETTINGS[name](setting) for name in names if name in SETTINGS)))


def load_text(setting: Setting) -> str:
    """``64 B, 1 output, 32 flows, 100 rules, wire-like``; bursts, skew and unicast only if there are any."""
    usual = {"burst": 1, "generator": "packet", "skew": 1, "unicast_percent": 0, "udp_checksum": True}
    names = [name for name in LOAD if name not in usual or getattr(setting, name) != usual[name]]
    return f"{settings_text(setting, names)}, {egress(setting)}"


def strategy_text(setting: Setting) -> str:
    """``hybrid, 4 interface groups, placement hash``; other settings are the strategy's own."""
    return settings_text(setting, AXES)


def case_name(data: Dataset, record: Named) -> str:
    """The case, and the settings without which another row of its scenario would read the same."""
    if not isinstance(record, Trial | ZeroLoss | Comparison):
        return record.case
    subject_name = record.a if isinstance(record, Comparison) else record.subject
    varied = data.varied.get(row_key(record.scenario, record.case, subject_name, record.setting), ())
    return ", ".join(filter(None, (record.case, settings_text(record.setting, varied))))


def label(data: Dataset, record: Named) -> str:
    """A row's name, with an egress that is unusual and unsaid, and the scenario if two have such a case."""
    name = case_name(data, record)
    if isinstance(record, Trial | ZeroLoss | Comparison):
        unusual = record.setting.egress != "wire-like" and "offload" not in record.case.lower()
        name += ", offloads on" if unusual else ""
    return f"{record.scenario}: {name}" if record.case in data.shared_cases else name


def sides(data: Dataset, comparison: Comparison) -> tuple[str, str]:
    """The sides of a comparison by what differs: their subjects, their cases, or their steering.

    The case of a comparison of two cases of one subject is ``20 inputs / 1 input``.
    """
    if comparison.a != comparison.b:
        return _side(data, comparison, comparison.a), _side(data, comparison, comparison.b)
    known = {t.case for t in data.trials if t.scenario == comparison.scenario}
    parts = comparison.case.split(" / ")
    splits = [(" / ".join(parts[:cut]), " / ".join(parts[cut:])) for cut in range(1, len(parts))]
    for a, b in splits:
        if a in known and b in known:
            return a, b
    return splits[0] if len(splits) == 1 else (subject(comparison.a), subject(comparison.b))


def _side(data: Dataset, comparison: Comparison, name: str) -> str:
    wanted = set(comparison.trial_ids)
    ways = {t.setting.receive for t in data.trials if t.subject == name and t.trial_id in wanted}
    return f"{subject(name)}{RECEIVE[ways.pop()] if len(ways) == 1 else ''}"


def compared(data: Dataset, comparison: Comparison) -> str:
    """``mcrd / kernel routing, softirq``, or ``20 inputs / 1 input, both mcrd``."""
    both = f", both {subject(comparison.a)}" if comparison.a == comparison.b else ""
    return f"{' / '.join(sides(data, comparison))}{both}"
