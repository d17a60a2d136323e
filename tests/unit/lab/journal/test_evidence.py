"""Frames around a failure: what the file holds and says, and that it is there whole or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError
from scapy.utils import PcapNgReader, RawPcapNgReader

from lab.journal.evidence import FILES_MAX, Captured, CapturedFrame, file_name, keep
from lab.results import Frames
from lab.steps.evidence import described, kept, untaken_s

FIRST = CapturedFrame("in0", 1_700_000_000_123_456_789, b"\x01" * 61, outgoing=False, checksum_ready=True)
SECOND = replace(FIRST, interface="r0", time_ns=FIRST.time_ns + 1, outgoing=True, checksum_ready=False)
CAPTURED = Captured([("in0", "in0: 1 of 1 frames"), ("r0", "r0: 1 of 9 frames")], [SECOND, FIRST])


def test_a_file_says_which_frames_came_where_and_when(tmp_path: Path) -> None:
    name = keep(tmp_path, "s/1→1/mcrd-1", "all of a repeat", CAPTURED)
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*.pcapng")] == [Path(name)]
    content = (tmp_path / name).read_bytes()
    for text in ("all of a repeat", "in0: 1 of 1 frames", "r0: 1 of 9 frames"):
        assert text.encode() in content
    with RawPcapNgReader(str(tmp_path / name)) as reader:
        raw = list(reader)
    assert [data for data, _ in raw] == [FIRST.data, SECOND.data]
    assert [(about.tshigh << 32) + about.tslow for _, about in raw] == [FIRST.time_ns, SECOND.time_ns]
    assert {about.tsresol for _, about in raw} == {1_000_000_000}
    with PcapNgReader(str(tmp_path / name)) as reader:
        seen = [(packet.sniffed_on, packet.direction, packet.comments) for packet in reader]
    assert seen == [("in0", 1, None), ("r0", 2, [b"the UDP checksum is left to the device"])]


def test_a_file_that_cannot_be_finished_leaves_nothing(tmp_path: Path) -> None:
    broken = Captured(CAPTURED.interfaces, [replace(FIRST, time_ns=-1)])
    with pytest.raises(Exception, match=r"."):
        keep(tmp_path, "s", "all", broken)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_names_of_files_are_plain_and_differ_as_ids_do() -> None:
    ids = ["a/1→1/mcrd-1", "a/1-1/mcrd-1", "../../x", "a/" + "b" * 300, ""]
    names = [file_name(each) for each in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert Frames(file=name, what="").file == name
        assert len(Path(name).name) < 130


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "evidence/../x.pcapng", "javascript:x", "evidence/a/b.pcapng"]
)
def test_a_record_names_no_other_file(name: str) -> None:
    with pytest.raises(ValidationError):
        Frames(file=name, what="")


def test_a_run_keeps_so_many_files_and_then_says_so(tmp_path: Path) -> None:
    made = [kept(tmp_path, f"step-{number}", "all", CAPTURED) for number in range(FILES_MAX + 1)]
    assert all(each.file for each in made[:-1])
    assert made[-1].text == f"no frames were kept: this run has {FILES_MAX} files of them already"
    assert len(list(tmp_path.rglob("*.pcapng"))) == FILES_MAX


def test_no_file_where_no_frame_was_seen_or_nothing_can_be_written(tmp_path: Path) -> None:
    nothing = kept(tmp_path, "s", "all of it", Captured(CAPTURED.interfaces, []))
    assert nothing.text == "no frames were kept: all of it: none were seen"
    (tmp_path / "evidence").write_text("in the way")
    assert "could not be written" in kept(tmp_path, "s", "all", CAPTURED).text


def test_a_repeat_is_captured_whole_or_in_its_last_part() -> None:
    assert untaken_s(0.2, 20_000, 5_000) == 0
    assert untaken_s(1.0, 0, 5_000) == 0
    assert untaken_s(1.0, 20_000, 5_000) == pytest.approx(0.8)
    assert described(0.2, 0, True) == "all of a repeat of the trial for 0.2 s, which failed, too"
    assert described(1, 0.8, False) == "the last 200 ms of a repeat of the trial for 1 s, which did not fail"
