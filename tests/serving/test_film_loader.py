"""The loader that vLLM reads videos with: our frames as they are, others as data preparation takes them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.decoding.work import Drawing
from data_prep.videos.sampling import SAMPLE, sample
from lensmith.film import Film, pack, unpack
from lensmith.images import ImageLimits, decode_stored
from serving.film_loader import FilmLoader
from tests.films import noise
from tests.videos import make_clip

TOLD: dict[str, Any] = {
    "num_frames": 0,
    "fps": 2.0,
    "max_frames": 8,
    "max_pixels": 10_000,
    "max_bytes": 1_000_000,
    "max_decoded_pixels": 100_000,
    "distinct": False,
}
FILM = Film(tuple(noise(str(at), (60, 40)) for at in range(4)), (0, 1234, 1234, 70_001), 80_000)


def loaded(data: bytes, **changes: Any) -> tuple[np.ndarray, dict[str, Any]]:
    return FilmLoader.load_bytes(data, **TOLD | changes)


def seconds(told: dict[str, Any]) -> list[float]:
    """As processors reckon them."""
    return [each / told["fps"] for each in told["frames_indices"]]


def test_a_film_s_frames_and_times_are_its_own() -> None:
    frames, told = loaded(pack(FILM))
    assert [each.tobytes() for each in frames] == [decode_stored(each).tobytes() for each in FILM.frames]
    assert seconds(told) == [0, 1.234, 1.234, 70.001]
    assert told["duration"] == 80.0
    assert told["do_sample_frames"] is False
    assert told["total_num_frames"] > told["frames_indices"][-1]


def test_times_are_apart_where_an_engine_leaves_out_the_same() -> None:
    at = loaded(pack(FILM), distinct=True)[1]["frames_indices"]
    assert at == [0, 1_234_000, 1_234_001, 70_001_000]


@pytest.mark.parametrize("ending", [".mp4", ".webm"])
def test_a_video_is_sampled_as_for_training(tmp_path: Path, ending: str) -> None:
    clip = make_clip(tmp_path / f"clip{ending}", "37", frames=30, size=(160, 120))
    settings = {name: TOLD[name] for name in ("fps", "max_frames", "max_pixels")}
    taught = unpack(sample(Drawing(SAMPLE, clip, 1, settings), ImageLimits()))
    frames, told = loaded(clip.read_bytes())
    assert [each.tobytes() for each in frames] == [decode_stored(each).tobytes() for each in taught.frames]
    assert frames.shape == (6, 86, 115, 3)
    assert told["frames_indices"] == [each * 1000 for each in taught.times]
    assert told["duration"] == taught.duration / 1000


SPOILT = {
    "no video": (b"GIF89a", {}, "is not a video in one of the containers"),
    "nothing": (b"", {}, "the file is empty"),
    "half a film": (pack(FILM)[:-9], {}, "a film that cannot be read"),
    "too many bytes": (pack(FILM), {"max_bytes": 100}, "100 are allowed"),
    "too many frames": (pack(FILM), {"max_frames": 2}, "has 4 frames, 2 are allowed"),
    "too large frames": (pack(FILM), {"max_pixels": 2000}, "60 x 40 pixels, 2,000 in all"),
    "no frames": (pack(Film((), (), 0)), {}, "0 frames and 0 times"),
    "a time is missing": (pack(dataclasses.replace(FILM, times=(0, 1, 2))), {}, "4 frames and 3 times"),
    "back in time": (pack(dataclasses.replace(FILM, times=(0, 2, 1, 3))), {}, "times do not go on"),
    "after its end": (pack(dataclasses.replace(FILM, duration=5)), {}, "times do not go on"),
    "before its start": (pack(dataclasses.replace(FILM, times=(-1, 1, 2, 3))), {}, "times do not go on"),
    "frames of two sizes": (
        pack(dataclasses.replace(FILM, frames=(*FILM.frames[:3], noise("other", (40, 60))))),
        {},
        "frames of several sizes",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_cannot_be_seen_is_refused(name: str) -> None:
    """vLLM answers a ValueError with 400."""
    data, changes, what = SPOILT[name]
    with pytest.raises(ValueError, match=what):
        loaded(data, **changes)


def test_a_video_whose_frames_are_too_large(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "1", frames=4, size=(160, 120)).read_bytes()
    with pytest.raises(ValueError, match="160 x 120 pixels, 19,199 in all are allowed"):
        loaded(clip, max_decoded_pixels=19_199)


def test_a_video_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "clip.mp4", "1", frames=4).read_bytes()
    monkeypatch.setattr("serving.film_loader._SECONDS", 0)
    with pytest.raises(ValueError, match="takes too long to decode"):
        loaded(clip)
