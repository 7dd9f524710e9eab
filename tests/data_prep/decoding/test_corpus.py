"""Pillow's own test images, and what becomes of them when they are cut or bits of them flip."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.archives.archive import ArchiveLimits
from data_prep.archives.tar import TarArchive
from data_prep.decoding.pool import DecoderPool
from data_prep.decoding.work import Request
from data_prep.refusal import Flaw
from lensmith.images import ImageLimits
from tests.data_prep.decoding.whole_decode import PICTURE_FACTS, PictureFacts

ROOT = Path(__file__).resolve().parents[3]
PIN = re.compile(r"^pillow==(\S+) --hash=sha256:([0-9a-f]{64})$", re.MULTILINE)
IMAGES = 1060

Corpus = dict[str, bytes]


def pinned() -> tuple[str, str]:
    """Version and SHA-256 of the source package."""
    found = PIN.search((ROOT / "requirements/test-data.txt").read_text())
    assert found is not None
    return found[1], found[2]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """The bytes of every test image by its name, read out of the source package, which is never unpacked."""
    version, digest = pinned()
    path = ROOT / f".cache/pillow-{version}.tar.gz"
    if not path.is_file():
        pytest.fail(f"{path.name} is not in .cache: run scripts/bootstrap with a network")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    assert found == digest, (
        f"{path.name} is another file than was pinned: delete it and run scripts/bootstrap"
    )
    archive = TarArchive(io.BytesIO(gzip.decompress(path.read_bytes())), ArchiveLimits())
    read: Corpus = {}
    for name in archive.members:
        if "/Tests/images/" in name:
            data = archive.read(name)
            assert isinstance(data, bytes)
            read[name.partition("/Tests/images/")[2]] = data
    return read


def judge(images: Corpus, workers: int = 2) -> dict[str, PictureFacts | Flaw]:
    """What the pool says of each image; each refusal is one that a person can act on."""
    with DecoderPool(ImageLimits(), work=PICTURE_FACTS, workers=workers) as pool:
        answers = pool.facts(Request(name, data) for name, data in images.items())
        judged = dict(zip(images, answers, strict=True))
    for name, answer in judged.items():
        if isinstance(answer, Flaw):
            # No crash, no lack of memory or time: image_unsafe says one of these.
            assert answer.code == "image_unreadable", answer
            assert answer.mend
            assert answer.what.removeprefix(f"'{name}': ")
            assert " at 0x" not in answer.what
        else:
            assert isinstance(answer, PictureFacts)
    return judged


def accepted(judged: dict[str, PictureFacts | Flaw]) -> dict[str, PictureFacts]:
    return {name: answer for name, answer in judged.items() if isinstance(answer, PictureFacts)}


def test_the_corpus_is_of_the_pillow_that_is_used() -> None:
    for build in ("cpu", "cuda"):
        assert f"pillow=={pinned()[0]}\n" in (ROOT / f"requirements/{build}.txt").read_text()


def test_every_image_is_accepted_or_refused_with_a_reason(corpus: Corpus) -> None:
    assert len(corpus) == IMAGES
    judged = judge(corpus, workers=1)
    # 571 with the wheels of Pillow 13.0.0; other builds know some TIFF compressions more or less.
    assert 560 <= len(accepted(judged)) <= 580
    assert judge(corpus, workers=3) == judged
    found = {name: isinstance(judged[name], PictureFacts) for name in EXPECTED}
    assert found == EXPECTED


# One of each kind of trouble; true where it is taken.
EXPECTED = {
    "hopper.jpg": True,
    "hopper.png": True,
    "pil_sample_cmyk.jpg": True,
    "16bit.MM.cropped.tif": True,
    "hopper_orientation_6.jpg": True,
    "sugarshack.mpo": True,
    "truncated_jpeg.jpg": False,
    "truncated_image.png": False,
    "decompression_bomb.gif": False,
    "png_decompression_dos.png": False,
    "hopper.psd": False,
    "dispose_bgnd.gif": False,
    "eps/1_second_imagedata.eps": False,
}


CUTS = (1, 16, 0.05, 0.3, 0.6, 0.9)


def truncations(whole: Corpus, names: list[str]) -> Iterator[tuple[str, bytes]]:
    for name in names:
        data = whole[name]
        for cut in CUTS:
            yield f"{name} {cut}", data[: int(len(data) * cut) if cut < 1 else -int(cut)]


@pytest.mark.slow
def test_a_truncated_image_is_refused_or_shows_the_same(corpus: Corpus) -> None:
    whole = accepted(judge(corpus))
    judged = judge(dict(truncations(corpus, list(whole))))
    assert len(judged) == len(CUTS) * len(whole)
    holes = [
        name
        for name, answer in accepted(judged).items()
        if answer.digest != whole[name.rpartition(" ")[0]].digest
    ]
    assert holes == []
    assert len(accepted(judged)) < len(judged) / 3


def flipped(corpus: Corpus, names: list[str], mutants: int) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(20261122)
    for number in range(mutants):
        name = chance.choice(names)
        data = bytearray(corpus[name])
        # Headers are where harm is done.
        reach = min(len(data), chance.choice((64, 512, len(data))))
        for _ in range(chance.choice((1, 4, 30))):
            data[chance.randrange(reach)] = chance.randrange(256)
        yield f"{number} {name}", bytes(data)


def test_flipped_bytes_are_accepted_or_refused(corpus: Corpus) -> None:
    names = sorted(
        name for name in corpus if name.endswith((".png", ".jpg", ".tif", ".tiff", ".webp", ".gif", ".bmp"))
    )
    judged = judge(dict(flipped(corpus, names, 600)))
    assert len(judged) == 600
    assert accepted(judged)
