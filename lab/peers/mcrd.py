"""The project's own forwarder as a subject: driven like a user does, by command line and control socket."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from lab.ledger.ledger import REFUSED, Account, Sample, Where
from lab.load.flows import Rule
from lab.netns import namespaces as netns
from lab.netns import ownership
from lab.netns.build import Lab
from lab.peers.base import PeerError, Program, Scaling, tail
from lab.results import Resize, Setting, WorkerSample
from lab.scenario.layout import follows_load
from lab.scenario.mcrd_command import fixed_workers, layout_words, strategy_options

CONTROL_TIMEOUT_S = 30.0
"""A change may wait for a worker that hangs, which is killed after 10 s."""
READY_TIMEOUT_S = 600.0
"""A forwarder that has never run compiles its packet path first, which takes a minute on a busy machine; one
with 2,000 workers takes half a minute."""

EGRESS_REASONS = frozenset({"ttl_expired", "too_big", "output_absent", "transmit_refused", "interrupted"})
"""Reasons that count copies of datagrams that matched; all others count datagrams."""


@dataclass
class Forwarder(Program):
    """A running ``mcrd supervisor``."""

    outputs_per_rule: int
    inputs: Sequence[str]
    """Interfaces."""
    ready_ns: int
    """From its start to the notice that every worker had joined with its rules."""
    again: Callable[[], subprocess.Popen[bytes]] | None = None
    """Starts the same command in the same directory, and returns its process when it is ready."""
    past: Sample | None = None
    """What it had counted when it was last stopped to be started again."""

    @property
    def control_path(self) -> Path:
        return self.directory / "control"

    @property
    def pids(self) -> Sequence[int]:
        """The supervisor, then its workers."""
        workers = (worker["pid"] for worker in self.stats()["workers"])
        return (self.process.pid, *(pid for pid in workers if pid is not None))

    def ask(self, command: str, **fields: Any) -> Any:
        """The result of one control command; :class:`PeerError` when it is refused or not answered."""
        request = json.dumps({"command": command, **fields}) + "\n"
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(CONTROL_TIMEOUT_S)
                client.connect(str(self.control_path))
                client.sendall(request.encode())
                with client.makefile("rb") as stream:
                    line = stream.readline()
        except OSError as error:
            raise PeerError(f"mcrd: no answer to {command!r}: {error}{_said(self)}") from error
        if not line:
            raise PeerError(f"mcrd: closed the connection instead of answering {command!r}{_said(self)}")
        answer = json.loads(line)
        if not answer.get("ok"):
            raise PeerError(f"mcrd: refused {command!r}: {json.dumps(answer.get('errors'))}")
        return answer["result"]

    def stats(self) -> dict[str, Any]:
        result: dict[str, Any] = self.ask("stats")
        return result

    def sample(self) -> Sample:
        stats = self.ask("stats", rules=False)
        try:
            return self._read(stats)
        except (KeyError, TypeError) as error:  # a forwarder of another commit has words of its own
            raise PeerError(f"mcrd: its statistics are not as expected: {error!r}") from error

    def _read(self, stats: dict[str, Any]) -> Sample:
        sample = Sample(account_of(stats, self.outputs_per_rule), tuple(map(_share, stats["workers"])))
        return sample if self.past is None else sample.with_past(self.past)

    @property
    def joins_upstream(self) -> bool:
        return True

    def add(self, rule: Rule) -> None:
        self.ask("add", **rules_document([rule]))

    def remove(self, rule: Rule) -> None:
        self.ask("remove", rule_id=rule.rule_id)

    def scaling(self) -> Sequence[Scaling]:
        made = []
        for each in self.ask("stats", rules=False)["scaling"]:
            values = {one.name: each[one.name] for one in fields(Scaling)}
            changes = ({name: change[name] for name in Resize.model_fields} for change in values["changes"])
            made.append(Scaling(**{**values, "changes": tuple(map(Resize.model_validate, changes))}))
        return made

    def resize(self, group: int, workers: int) -> None:
        self.ask("resize", group=group, workers=workers)

    def apply(self, strategy: str, workers: int) -> None:
        most = "max_workers_per_interface" if follows_load(strategy) else "num_workers"
        config = {"interfaces": list(self.inputs), "strategy": strategy, most: workers}
        self.ask("apply", config=config)

    def workers(self) -> Mapping[int, int]:
        listed = self.ask("list-workers")["workers"]
        return {worker["worker_id"]: worker["pid"] for worker in listed if worker["state"] == "running"}

    def restart(self) -> None:
        assert self.again is not None
        rules = {"rules": self.ask("list")["rules"]}
        (self.directory / "rules.json").write_text(json.dumps(rules))
        self.finish()
        if self.process.returncode:
            how = f"ended with status {self.process.returncode} when told to stop"
            raise PeerError(f"mcrd: {how}{_said(self)}")
        self.past = self._read(json.loads((self.directory / "stdout").read_bytes()))
        self.process = self.again()


def _said(program: Program) -> str:
    """What it wrote last, for the end of a message."""
    said = tail(program.directory / "stderr")
    return f": {said}" if said else ""


def _share(worker: dict[str, Any]) -> WorkerSample:
    return WorkerSample(
        **{name: worker[name] for name in ("worker_id", "cpu", "rules")},
        **{name: worker["counters"][name] for name in ("received", "matched")},
        group=None if worker.get("state") == "parked" else worker.get("group"),
        interfaces=tuple(entry["interface"] for entry in worker["sockets"]),
        ring_bytes=sum(entry["ring_bytes"] for entry in worker["sockets"]),
    )


def account_of(stats: dict[str, Any], outputs_per_rule: int) -> Account:
    """The account in ``mcrd.stats/1``; every rule has ``outputs_per_rule`` outputs.

    Copies due come from the matches, not from what was sent: a copy that mcrd lost track of must show.
    """
    totals = stats["totals"]
    ingress: dict[Where, int] = {
        ("packet-socket", "ring full"): sum(entry["kernel_drops"] for entry in stats["interfaces"])
    }
    # Forwarders of earlier commits do not tell.
    if early := sum(entry.get("early_drops", 0) for entry in stats["interfaces"]):
        ingress["xdp", "dropped early"] = early
    if left := sum(entry.get("abandoned_frames", 0) for entry in stats["interfaces"]):
        ingress["packet-socket", "left in the ring"] = left
    egress: dict[Where, int] = {}
    for reason, count in totals["dropped"].items():
        if reason == "transmit_refused":
            egress[REFUSED] = count
        elif reason in EGRESS_REASONS:
            egress["forwarder", reason] = count
        else:
            ingress["forwarder", reason] = count
    copies_due = totals["matched"] * outputs_per_rule
    return Account(totals["matched"], copies_due, ingress, egress, totals["pending"])


def rules_document(rules: Sequence[Rule]) -> dict[str, Any]:
    """The rules as ``--rules`` and ``add`` take them."""
    return {"rules": [_rule(rule) for rule in rules]}


def _rule(rule: Rule) -> dict[str, Any]:
    end = {"group": rule.group, "port": rule.port}
    return {
        "rule_id": rule.rule_id,
        "input_interface": rule.input_interface,
        "input_group": rule.group,
        "input_port": rule.port,
        "outputs": [{**end, "interface": name} for name in rule.output_interfaces],
    }


@dataclass(frozen=True)
class _Mcrd:
    name: str = "mcrd"
    sends_bursts: bool = True
    says_when_ready: bool = True
    trees: Mapping[str, Path] = field(default_factory=dict)
    """Where the forwarders of other commits are."""

    def with_trees(self, trees: Mapping[str, Path]) -> _Mcrd:
        """The same, for settings that ask for the forwarder of a commit (see :mod:`lab.run.commits`)."""
        return replace(self, trees=trees)

    def missing(self) -> str | None:
        return None

    def start(self, lab: Lab, rules: Sequence[Rule], setting: Setting, cpus: Sequence[int]) -> Forwarder:
        return start_forwarder(
            lab.fwd,
            [link.receiver.interface for link in lab.inputs],
            rules_document(rules),
            outputs_per_rule=len(rules[0].output_interfaces),
            strategy=setting.strategy or "fanout",
            workers=fixed_workers(setting),
            cpus=cpus,
            options=[*strategy_options(setting), *setting.options],
            tree=None if setting.commit is None else self.trees[setting.commit],
        )


def start_forwarder(
    namespace: str,
    interfaces: Sequence[str],
    document: dict[str, Any],
    *,
    outputs_per_rule: int = 1,
    strategy: str | None = "fanout",
    workers: int | None = 1,
    cpus: Sequence[int] = (),
    options: Sequence[str] = (),
    tree: Path | None = None,
) -> Forwarder:
    """Start ``mcrd supervisor`` in ``namespace`` and return once it says that it is ready.

    ``interfaces``: inputs; those of the rules when there are none. ``document``: the rules as ``--rules``
    takes them; ``cpus``: those that it may place workers on; ``strategy`` and ``workers``: ``None`` leaves
    the option out. ``tree``: where the source of another forwarder than the installed one is.
    """
    program = [str(Path(sys.executable).with_name("mcrd"))] if tree is None else _command_of(tree)
    directory = ownership.scratch_directory("mcrd")
    (directory / "rules.json").write_text(json.dumps(document))
    command = [
        *program,
        "supervisor",
        *("--control-socket-path", str(directory / "control")),
        *("--rules", str(directory / "rules.json")),
        "--json",
        *layout_words(interfaces, strategy, workers, options),
    ]
    environment = {**os.environ, "PYTHONPATH": str(tree)} if tree else os.environ
    launch = partial(_launch, namespace, command, cpus, directory, environment)
    began = time.monotonic_ns()
    try:
        process = launch()
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    ready_ns = time.monotonic_ns() - began
    return Forwarder(process, directory, outputs_per_rule, tuple(interfaces), ready_ns, launch)


def _command_of(tree: Path) -> list[str]:
    """``mcrd`` of another source tree. Raises PeerError if it has none."""
    try:
        project = tomllib.loads((tree / "pyproject.toml").read_text())
        module, _, function = project["project"]["scripts"]["mcrd"].partition(":")
    except (OSError, ValueError, KeyError) as error:
        raise PeerError(f"mcrd: there is none in that commit's pyproject.toml: {error!r}") from error
    code = f"import sys; sys.argv[0] = 'mcrd'; from {module} import {function}; {function}()"
    # -P: nothing comes before the tree on the path, not even the directory that the lab was started in.
    return [sys.executable, "-P", "-c", code]


def _launch(
    namespace: str, command: Sequence[str], cpus: Sequence[int], directory: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a forwarder that keeps its files in ``directory``, and return once it says that it is ready."""
    said = directory / "notify"
    said.unlink(missing_ok=True)
    notice = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notice.bind(str(said))
    env = {**env, "NOTIFY_SOCKET": str(said)}
    with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as errors, notice:
        process = netns.spawn(
            namespace, command, cpus=cpus, stdin=DEVNULL, stdout=out, stderr=errors, env=env
        )
        program = Program(process, directory)
        try:
            _await_ready(program, notice)
        except BaseException:
            program.finish()
            raise
    return process


def _await_ready(program: Program, notice: socket.socket) -> None:
    """Wait for READY=1 (sd_notify(3)), or for the end of the process, whichever comes first."""
    exited = os.pidfd_open(program.process.pid)
    deadline = time.monotonic() + READY_TIMEOUT_S
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(notice, selectors.EVENT_READ)
            selector.register(exited, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                keys = {key.fileobj for key, _ in selector.select(left)}
                if notice in keys and b"READY=1" in notice.recv(4096).split(b"\n"):
                    return
                if exited in keys:
                    program.process.wait()
                    raise PeerError(f"mcrd: not ready, {program.ended()}")
    finally:
        os.close(exited)
    raise PeerError(f"mcrd: not ready within {READY_TIMEOUT_S:g} s{_said(program)}")


PEER = _Mcrd()
