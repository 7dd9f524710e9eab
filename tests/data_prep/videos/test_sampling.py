"""What is taken of a video, and which files are none."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.decoding.work import Drawing
from data_prep.videos.sampling import SAMPLE, sample, take
from lensmith.film import Film
from lensmith.film_sampling import choose, from_first
from lensmith.images import BadImage, ImageLimits
from tests.videos import CODECS, make_clip

LIMITS = ImageLimits()


def taken(path: Path, limits: ImageLimits = LIMITS, **settings: float) -> Film:
    asked = {"fps": 2.0, "max_frames": 8, "max_pixels": 500_000} | settings
    return take(sample(Drawing(SAMPLE, path, 1, asked), limits), limits)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"), np.int16)


def test_colours_are_red_green_and_blue(tmp_path: Path) -> None:
    """The first frame lacks blue, the second green."""
    film = taken(make_clip(tmp_path / "clip.avi", "1", frames=2, size=(96, 64)))
    red, green, blue = (np.asarray(Image.open(io.BytesIO(film.frames[0])))[0, 0, at] for at in range(3))
    assert min(red, green) > blue + 20


@pytest.mark.parametrize("ending", CODECS)
def test_frames_come_with_their_times(tmp_path: Path, ending: str) -> None:
    film = taken(make_clip(tmp_path / f"clip{ending}", "37"))
    assert (film.times, film.duration) == ((0, 500, 1000, 1500), 2000)
    shown = [pixels(each) for each in film.frames]
    assert {each.shape for each in shown} == {(64, 96)}
    # The ink of the digit moves to the right.
    centres = [float(np.argwhere(each < 60)[:, 1].mean()) for each in shown]
    assert centres == sorted(centres)
    assert centres[-1] > centres[0] + 20


def test_the_name_plays_no_part(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "12")
    assert taken(clip.rename(tmp_path / "clip.m3u8")).duration == 2000


def test_larger_frames_are_reduced(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "12", frames=2, size=(160, 80))
    assert {pixels(each).shape for each in taken(clip, max_pixels=3200).frames} == {(40, 80)}


@pytest.mark.parametrize(
    ("frames", "fps", "most", "wanted"),
    [
        (50, 1.0, 32, [0, 12, 25, 37]),
        (50, 3.0, 8, [0, 6, 12, 18, 25, 31, 37, 43]),
        (50, 0.1, 32, [0, 25]),
        (3, 60.0, 32, [0, 1]),
        (2, 1.0, 32, [0, 1]),
    ],
)
def test_even_numbers_evenly(frames: int, fps: float, most: int, wanted: list[int]) -> None:
    times = [each * 100 for each in range(frames)]
    assert choose(times, fps, most) == (wanted, frames * 100)


def test_frames_that_are_shown_for_unlike_times() -> None:
    """At each moment the frame that is shown then, which may be one twice."""
    assert choose([0, 100, 3000, 3100], 1.0, 32) == ([0, 1, 1, 2], 4133)


def test_times_go_on_from_the_first() -> None:
    assert from_first([40.0, 80.1, 80.1, 160.0]) == [0, 40, 40, 120]
    for shown in ([0.0, 80.0, 40.0], [0.0, 0.0, 0.0]):
        with pytest.raises(BadImage, match="when its frames are shown"):
            from_first(shown)


def test_frames_are_of_one_size(tmp_path: Path) -> None:
    """A JPEG of another size in the place of one frame of Motion JPEG."""
    clip = make_clip(tmp_path / "clip.avi", "12")
    data = clip.read_bytes()
    *_, at = [each.end() for each in re.finditer(b"00dc", data[: data.index(b"idx1")])]
    length = int.from_bytes(data[at : at + 4], "little")
    stream = io.BytesIO()
    Image.new("RGB", (48, 32)).save(stream, "JPEG")
    clip.write_bytes(data[: at + 4] + stream.getvalue().ljust(length, b"\0") + data[at + 4 + length :])
    film = taken(clip, fps=60.0, max_frames=20)
    assert [pixels(each).shape for each in film.frames] == [(64, 96)] * 20
    # The black one is there.
    assert [int(pixels(each).max()) for each in film.frames].index(0) == 19


def broken(tmp_path: Path, kind: str) -> Path:
    clip = make_clip(tmp_path / "clip.avi", "12", frames=1 if kind == "single" else 20)
    data = {
        "single": clip.read_bytes(),
        "cut": clip.read_bytes()[:9000],
        "empty": b"",
        "playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n",
        "list": f"ffconcat version 1.0\nfile '{clip}'\n".encode(),
        "noise": b"\0\0\0\x1cftypisom" + bytes(range(256)) * 8,
    }[kind]
    clip.write_bytes(data)
    return clip


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("single", "fewer than two frames"),
        ("cut", "breaks off after"),
        ("empty", "is empty"),
        ("playlist", "one of the containers"),
        ("list", "one of the containers"),
        ("noise", "cannot be decoded"),
    ],
)
def test_what_is_no_whole_video(tmp_path: Path, kind: str, said: str) -> None:
    with pytest.raises(BadImage, match=said):
        taken(broken(tmp_path, kind))


@pytest.mark.parametrize(
    ("size", "limits", "said"),
    [
        ((96, 64), ImageLimits(max_pixels=6000), "6,000 in all are allowed"),
        ((96, 6), LIMITS, "an edge of at least 8"),
        ((2000, 8), LIMITS, "longer than 200:1"),
    ],
)
def test_frames_under_the_limits_of_images(
    tmp_path: Path, size: tuple[int, int], limits: ImageLimits, said: str
) -> None:
    with pytest.raises(BadImage, match=said):
        taken(make_clip(tmp_path / "clip.avi", "1", frames=3, size=size), limits)
