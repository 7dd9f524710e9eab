"""What a row with a video is held to, without opening one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.checks import check_sample
from data_prep.duplicates import question_digest
from data_prep.export import canonical_jsonl, sharegpt
from data_prep.labels.label import item_of
from data_prep.regions import region_flaws
from data_prep.rejected import _flaws
from data_prep.seen import Seen
from data_prep.sources.canonical_jsonl import CanonicalJsonl
from data_prep.stated_sample import with_pictures
from data_prep.videos.films import Films
from data_prep.videos.showing import Showing
from lensmith import families
from lensmith.cli.main import main
from lensmith.images import ImageLimits
from lensmith.row_file import Row
from lensmith.sample import Image, Message, Part, Region, Sample, Text, Video, dump_messages, load_messages
from lensmith.video_settings import VideoSampling

FRAMES = (Image("a.mp4#video-frame=1"), Image("a.mp4#video-frame=2"))
VIDEO = Video("a.mp4", FRAMES, (0.0, 1.0), 2.0)
STILL = Image("b.png")
ANSWER = Text("two")


def sample(*parts: Part, answer: Part = ANSWER) -> Sample:
    return Sample("a", "g", (Message("user", (*parts, Text("?"))), Message("assistant", (answer,))))


def seen(*names: int) -> list[Seen]:
    return [Seen(8, 8, b"", bytes([each]) * 32) for each in names]


def test_written_and_read_again() -> None:
    shown = with_pictures(sample(STILL, VIDEO), seen(1, 2, 3))
    assert load_messages(dump_messages(shown.messages)) == shown.messages
    assert [image.digest[:2] for image in shown.images] == ["01", "02", "03"]
    assert (len(shown.stills), len(shown.videos)) == (1, 1)


def test_one_video_with_its_question_is_one_row() -> None:
    """Whatever the file is called; other frames or times are another."""
    asked = question_digest(sample(VIDEO, STILL), seen(1, 2, 3))
    renamed = replace(VIDEO, path="c.mp4", frames=tuple(replace(each, path="c") for each in FRAMES))
    assert question_digest(sample(renamed, STILL), seen(1, 2, 3)) == asked
    assert question_digest(sample(VIDEO, STILL), seen(1, 4, 3)) != asked
    assert question_digest(sample(replace(VIDEO, seconds=(0.0, 1.5)), STILL), seen(1, 2, 3)) != asked
    assert question_digest(sample(VIDEO, STILL), seen(2, 1, 3)) != asked


def test_labels_of_one_video_are_of_one_item() -> None:
    video, other = VIDEO, replace(VIDEO, path="c.mp4")
    assert item_of(sample(video), "question") == item_of(sample(replace(video, frames=())), "question")
    assert item_of(sample(video), "question") != item_of(sample(other), "question")


def codes(row: Sample) -> list[str]:
    return [flaw.code for flaw in check_sample(row, "text", (), 1)]


def test_where_it_may_stand() -> None:
    assert codes(sample(VIDEO, STILL)) == []
    assert codes(sample(VIDEO, VIDEO)) == ["too_many_images"]
    assert codes(sample(STILL, answer=VIDEO)) == ["image_place", "empty_answer"]
    told = sample(VIDEO)
    system = replace(told, messages=(Message("system", (VIDEO,)), *told.messages))
    assert "image_place" in codes(system)
    rejected = replace(told, messages=(told.messages[0], replace(told.messages[1], rejected=(VIDEO,))))
    assert [flaw.code for flaw in _flaws(rejected)] == ["image_place"]


@pytest.mark.parametrize(
    ("region", "said"),
    [
        (Region("span", (0.5, 2.0)), ""),
        (Region("span", (0.5, 2.1)), "the span ends at 2.1 seconds, its video at 2"),
        (Region("span", (0.5, 2.0), image=1), "lies in image 1, the row has 1"),
        (Region("box", (0.1, 0.1, 0.5, 0.5)), "lies in image 0, the row has 0"),
    ],
)
def test_places(region: Region, said: str) -> None:
    flaws = list(region_flaws(sample(VIDEO, answer=region), families.get("qwen3_vl").coordinates))
    assert [said in flaw.what for flaw in flaws] == ([True] if said else [])


def test_exports_leave_it_out(tmp_path: Path) -> None:
    rows = [Row(with_pictures(sample(VIDEO), seen(1, 2)), (b"", b""))]
    for number, kind in enumerate((canonical_jsonl, sharegpt)):
        written = kind.write(rows, tmp_path / str(number))
        assert (written.rows, written.left_out) == (0, {"a video, of which only frames are kept": 1})


def test_inspection_counts_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"from": "human", "value": "<video>Which?"}, {"from": "gpt", "value": "two"}]
    rows = [{"conversations": turns, "videos": [name]} for name in ("a.mp4", "b.mp4")]
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    assert main(["inspect", str(tmp_path)]) == 0
    assert "2 videos, not looked at" in capsys.readouterr().out


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0" * 101)
    source = CanonicalJsonl(tmp_path / "labels.jsonl")
    (tmp_path / "labels.jsonl").write_text(
        '{"id": "a", "group": "g", "messages": [{"role": "user", "content": [{"type": "video", "path":'
        ' "a.mp4"}]}, {"role": "assistant", "content": "two"}]}\n'
    )
    showing = Showing(Films(tmp_path / "films", VideoSampling(max_bytes=100)), ImageLimits())
    (found,) = showing.shown(source, list(source.rows()))
    ((flaw),) = found.flaws
    assert (flaw.code, "raise data.video.max_bytes" in flaw.mend) == ("video_unreadable", True)
