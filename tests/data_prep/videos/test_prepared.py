"""Rows with videos, from labels to a dataset: what is kept of a video, and what is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_prep.decoding.work import Budget
from data_prep.lengths import Sizes
from data_prep.prepare import Prepared, prepare
from data_prep.sources.canonical_jsonl import CanonicalJsonl
from data_prep.sources.registry import open_source
from data_prep.videos import showing
from data_prep.videos.films import Films
from data_prep.videos.showing import Showing
from lensmith.counting import Counts
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.images import ImageLimits
from lensmith.recipe import Recipe
from lensmith.sample import Image as Still
from lensmith.sample import Sample, Video
from lensmith.tokens import Grid
from lensmith.video_settings import VideoSampling
from tests.data_prep.folder import Folder, picture
from tests.videos import make_clip

pytestmark = pytest.mark.slow

SAMPLING: dict[str, Any] = {"fps": 2, "max_frames": 6, "max_pixels": 3000}


def row(name: str, *parts: dict[str, Any], group: str = "", answer: list[Any] | str = "12") -> dict[str, Any]:
    question = [*(parts or [video(f"{name}.mp4")]), {"type": "text", "text": f"Which digits are in {name}?"}]
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "group": group or name, "messages": said}


def video(path: str) -> dict[str, str]:
    return {"type": "video", "path": path}


def recipe_of(folder: Folder, **data: Any) -> Recipe:
    split = {"validation": 0, "held_out": 0, "seed": 17}
    return folder.recipe(**{"answer": "text", "split": split, "similar": "ignore", **data})


@pytest.fixture
def clips(folder: Folder) -> Folder:
    """Six clips, one with an image beside it, and a row with an image alone."""
    for number in range(6):
        make_clip(folder.root / f"clip-{number}.mp4", f"{number}{number + 1}")
        still = {"type": "image", "path": folder.image("beside.png")} if number == 0 else None
        parts = [each for each in (still, video(f"clip-{number}.mp4")) if each]
        folder.add(row(f"clip-{number}", *parts))
    folder.add(folder.row("image"))
    return folder


def reasons(prepared: Prepared) -> dict[str, set[str]]:
    lines = (prepared.intake.path / "refused.jsonl").read_text().splitlines()
    found: dict[str, set[str]] = {}
    for record in map(json.loads, lines):
        found.setdefault(record["row"], set()).add(f"{record['code']}: {record['reason']}")
    return found


def test_frames_are_kept_and_nothing_else(clips: Folder, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    recipe = recipe_of(clips, video=SAMPLING)
    prepared = prepare(recipe, home)
    assert reasons(prepared) == {}
    assert prepared.dataset.body["videos"] == {"videos": 6, "frames": 24}
    rows = {each.sample.id: each for each in read_split(prepared.dataset, "train")}
    shown = next(each for name, each in rows.items() if name.startswith("clip-") and name != "clip-0")
    (part,) = shown.sample.videos
    assert part.seconds == (0.0, 0.5, 1.0, 1.5)
    assert part.duration == 2.0
    assert shown.sample.images == part.frames
    assert [frame.path for frame in part.frames] == [f"{part.path}#video-frame={at}" for at in range(1, 5)]
    pictures = [Image.open(io.BytesIO(each)) for each in shown.images]
    assert [each.size for each in pictures] == [frame.size for frame in part.frames] == [(67, 44)] * 4
    assert all(not each.info for each in pictures)
    files = [path for path in prepared.dataset.path.rglob("*") if path.is_file()]
    assert not any(b"ftyp" in path.read_bytes() for path in files)


def test_what_is_taken_once_is_kept(clips: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    first = prepare(recipe_of(clips, video=SAMPLING), home)
    finer = prepare(recipe_of(clips, video=SAMPLING | {"fps": 3}), home)
    assert finer.dataset.body["videos"] == {"videos": 6, "frames": 36}
    monkeypatch.setattr(showing, "DecoderPool", None)
    again = prepare(recipe_of(clips, video=SAMPLING, wording={"longest_answer": 9}), home)
    assert again.dataset.body["rows"] == first.dataset.body["rows"]
    train = [list(read_split(each.dataset, "train")) for each in (first, again)]
    assert train[0] == train[1]


def test_what_is_refused(clips: Folder, tmp_path: Path) -> None:
    torn = make_clip(clips.root / "torn.mp4", "12")
    torn.write_bytes(torn.read_bytes()[:3000])
    (clips.root / "still.mp4").write_bytes((clips.root / "images/beside.png").read_bytes())
    make_clip(clips.root / "late.mp4", "12")
    span = {"type": "span", "seconds": ["0:00:01", 2.5]}
    clips.add(
        row("torn"),
        row("still"),
        row("gone"),
        row("outside", video("../clip.mp4")),
        row("web", video("https://example.org/clip.mp4")),
        row("two", video("clip-1.mp4"), video("clip-1.mp4"), group="clip-1"),
        row("late", answer=[span]),
        row("answering", {"type": "text", "text": "Show."}, group="clip-1", answer=[video("clip-1.mp4")]),
    )
    found = reasons(prepare(recipe_of(clips, video=SAMPLING), Home(tmp_path / "home")))
    assert {name: {each.partition(":")[0] for each in said} for name, said in found.items()} == {
        "torn": {"video_unreadable"},
        "still": {"video_unreadable"},
        "gone": {"video_unreadable"},
        "outside": {"video_unreadable"},
        "web": {"video_unreadable"},
        "two": {"too_many_images"},
        "late": {"region"},
        "answering": {"image_place", "empty_answer"},
    }
    # Not as an image's address would be, which may be allowed.
    assert "video_unreadable: The video cannot be used: 'https://example.org/clip.mp4' is an" in str(
        found["web"]
    )
    assert "the span ends at 2.5 seconds, its video at 2" in "".join(found["late"])


def test_a_recipe_that_takes_no_videos(clips: Folder, tmp_path: Path) -> None:
    prepared = prepare(recipe_of(clips), Home(tmp_path / "home"))
    codes = {name: {each.partition(":")[0] for each in said} for name, said in reasons(prepared).items()}
    assert codes == {f"clip-{number}": {"video_unwanted"} for number in range(6)}


def test_opening_may_cost_so_much(folder: Folder, tmp_path: Path) -> None:
    """A worker that is ended for it costs the video, never the run."""
    folder.add(row("long"))
    make_clip(folder.root / "long.mp4", "0123456789", frames=150, size=(640, 480))
    source = CanonicalJsonl(folder.write())
    films = Films(tmp_path / "films", VideoSampling(**SAMPLING))
    (found,) = Showing(films, ImageLimits(), Budget(cpu_seconds=0.01)).shown(source, list(source.rows()))
    assert [flaw.code for flaw in found.flaws] == ["video_unsafe"]
    assert not any((tmp_path / "films").glob("*"))


class Counter:
    """Counts more image tokens than train.max_length allows."""

    def count(self, samples: Sequence[Sample], sizes: Sizes, grid: Grid) -> Counts:
        """Text, images, answer."""
        return np.array([[10, 600, 5]] * len(samples), np.int64)


def test_frames_are_not_reduced_to_fit(folder: Folder, tiny_base: Path, tmp_path: Path) -> None:
    """A row with an image is reduced where one with a video is refused: `fit` knows images alone."""
    make_clip(folder.root / "clip.mp4", "12")
    folder.add(folder.row("image", path=folder.image("large.png", picture(3, 900, 700))), row("clip"))
    split = {"validation": 0, "held_out": 0, "seed": 17}
    data = {"answer": "text", "split": split, "video": SAMPLING, "too_long": "resize"}
    recipe = folder.recipe(f"base.path={tiny_base}", **data)
    prepared = prepare(recipe, Home(tmp_path / "home"), Counter)
    assert {name: {each.partition(":")[0] for each in said} for name, said in reasons(prepared).items()} == {
        "clip": {"too_long"}
    }


def test_videos_of_an_archive_are_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "12")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("labels.jsonl", json.dumps(row("clip")) + "\n")
        archive.write(clip, "clip.mp4")
    source = open_source(tmp_path / "all.zip", None, {})
    (found,) = Showing(Films(tmp_path / "films", VideoSampling()), ImageLimits()).shown(
        source, list(source.rows())
    )
    assert [(flaw.code, flaw.mend) for flaw in found.flaws] == [("video_unreadable", "unpack it first")]


def test_sharegpt_and_llava(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "<video>\nWhich?<image>"}, {"from": "gpt", "value": "12"}]
    wanted = {"conversations": turns, "videos": ["a.mp4"], "image": "b.png"}
    for name in ("sharegpt", "llava"):
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([wanted, {**wanted, "videos": []}]))
        good, bad = open_source(path, name, {}).rows()
        assert good.sample is not None
        shown = [part for part in good.sample.parts() if isinstance(part, Still | Video)]
        assert shown == [Video("a.mp4"), Still("b.png")]
        assert [flaw.what for flaw in bad.flaws] == ["the texts hold 1 <video>, the row names 0 videos"]
