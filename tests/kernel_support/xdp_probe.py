"""An XDP engine in a process and a namespace of its own: requests and replies, a line of JSON each.

A request is a pair of a verb and its argument; the interfaces are looked up anew for each. What the engine
refuses is in the reply's ``error``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from forwarder.engines.xdp.engine import XdpEngine
from forwarder.engines.xdp.suitability import UnsuitedError
from forwarder.net import netlink
from forwarder.net.links import LinkView
from forwarder.rules.model import ForwardingRule
from lab.netns import namespaces as netns


class Probe:
    """The other end of the process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def ask(self, verb: str, argument: object = None) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([verb, argument]) + "\n")
        self.process.stdin.flush()
        reply = json.loads(self.process.stdout.readline())
        if error := reply.get("error"):
            raise UnsuitedError(error)
        return reply["value"]

    def add(self, *rules: ForwardingRule) -> dict[str, str]:
        """Put rules in force; the interfaces that are refused, and why."""
        return dict(self.ask("add", [rule.model_dump(mode="json") for rule in rules]))

    def remove(self, *rules: ForwardingRule) -> dict[str, str]:
        return dict(self.ask("remove", [rule.model_dump(mode="json") for rule in rules]))


@contextmanager
def probe(namespace: str, cwd: str) -> Iterator[Probe]:
    process = netns.spawn(
        namespace,
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    try:
        yield Probe(process)
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(20)


def main() -> None:
    links = LinkView()
    with XdpEngine(links.find) as engine:
        for line in sys.stdin:
            verb, argument = json.loads(line)
            links.update(asyncio.run(netlink.interfaces()))
            try:
                reply = {"value": perform(engine, verb, argument)}
            except UnsuitedError as error:
                reply = {"error": str(error)}
            print(json.dumps(reply), flush=True)


def perform(engine: XdpEngine, verb: str, argument: Sequence[Any]) -> object:
    if verb == "counts":
        each = [counts._asdict() for counts in engine.rule_counts().values()]
        return {**engine.counts()._asdict(), "rules": each, "inputs": engine.inputs}
    if verb == "refit":
        engine.refit()
    else:
        rules = [ForwardingRule.model_validate(rule) for rule in argument]
        (engine.add if verb == "add" else engine.remove)(rules)
    return engine.refused


if __name__ == "__main__":
    main()
