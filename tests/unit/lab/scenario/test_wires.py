"""Cables between existing interfaces: the file that names them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.load.topology import Cable, Topology
from lab.scenario.wires import Wires, WiresError, load_wires

WIRES = Wires(inputs=(("a", "b"),), outputs=(("c", "d"), ("e", "f")))


def test_a_topology_takes_as_many_cables_as_it_has_links() -> None:
    assert WIRES.under(Topology()).cables == (Cable("a", "b"), Cable("c", "d"))
    assert WIRES.under(Topology(outputs=2)).cables == (Cable("a", "b"), Cable("c", "d"), Cable("e", "f"))


def test_without_a_forwarder_the_input_cables_reach_the_receivers() -> None:
    direct = WIRES.under(Topology(direct=True))
    assert [(link.sender.side, link.receiver.side) for link in direct.links] == [("gen", "rcv")]
    assert direct.cables == (Cable("a", "b"),)


def test_too_few_cables_are_all_told_at_once() -> None:
    with pytest.raises(WiresError) as raised:
        WIRES.under(Topology(inputs=2, outputs=3))
    assert [problem.field for problem in raised.value.problems] == ["inputs", "outputs"]
    assert "at least 3" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("inputs = [", "not TOML"),
        ('inputs = [["a", "b"]]', "outputs"),
        ('inputs = [["a"]]\noutputs = [["c", "d"]]', "inputs"),
        ('inputs = [["a", "b"]]\noutputs = [["b", "d"]]', "each interface once"),
        ('inputs = [["a", "b"]]\noutputs = []', "at least one pair"),
        ('inputs = [["a", "much-too-long-a-name"]]\noutputs = [["c", "d"]]', "1 to 15 letters"),
        ('inputs = [["a", "b"]]\noutputs = [["c", "d"]]\nmore = 1', "more"),
    ],
)
def test_a_file_that_says_nonsense_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "wires.toml"
    path.write_text(text)
    with pytest.raises(WiresError, match=words):
        load_wires(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WiresError, match="--wires"):
        load_wires(tmp_path / "none.toml")


def test_cables_must_fit_their_links() -> None:
    with pytest.raises(ValueError, match="1 cables for 2 links"):
        Topology(cables=(Cable("a", "b"),))
