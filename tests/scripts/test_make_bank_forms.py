"""The handed-over forms: real handwriting, nobody's digits twice, and flaws exactly where the list says."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from bank_forms.customers import digits, legible, share_out
from bank_forms.flaws import FLAWS, Planted
from bank_forms.layout import HEIGHT, WIDTH, Payment
from make_bank_forms import FLAWS_OF_A_KIND, make_bank_forms
from PIL import Image

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_bank_forms.py"


@pytest.fixture(scope="module")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Planted]]:
    out = tmp_path_factory.mktemp("handed") / "forms"
    return out, make_bank_forms(out, forms=160, customers=40, seed=3)


def good_rows(out: Path, planted: Iterable[Planted]) -> list[dict]:
    """The rows on lines with nothing planted."""
    spoiled = {flaw.line for flaw in planted}
    lines = (out / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(text) for line, text in enumerate(lines, start=1) if line not in spoiled]


def shared_digits(rows: Iterable[dict]) -> set[int]:
    """Source digit images that more than one customer uses."""
    users: dict[int, set[str]] = defaultdict(set)
    for row in rows:
        for source in row["meta"]["digit_sources"]:
            users[source].add(row["group"])
    return {source for source, groups in users.items() if len(groups) > 1}


@pytest.mark.slow
def test_same_seed_same_bytes_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("one", 5), ("two", 5), ("three", 6)):
        make_bank_forms(tmp_path / name, forms=80, customers=20, seed=seed)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")
        }
        for name in ("one", "two", "three")
    }
    assert files["one"] == files["two"]
    assert files["one"] != files["three"]


def test_no_two_customers_share_a_digit_image(handed_over: tuple[Path, list[Planted]]) -> None:
    rows = good_rows(*handed_over)
    assert shared_digits(rows) == set()
    assert {row["group"] for row in rows} == {f"customer-{number:04d}" for number in range(40)}


def test_a_shared_digit_image_would_be_noticed(handed_over: tuple[Path, list[Planted]]) -> None:
    rows = good_rows(*handed_over)
    taken = rows[0]["meta"]["digit_sources"][0]
    other = next(row for row in rows if row["group"] != rows[0]["group"])
    other["meta"]["digit_sources"].append(taken)
    assert shared_digits(rows) == {taken}


def test_the_label_says_what_the_digits_are(handed_over: tuple[Path, list[Planted]]) -> None:
    _, classes = digits()
    for row in good_rows(*handed_over):
        fields = json.loads(row["messages"][1]["content"][0]["text"])
        year, month, day = fields["date"].split("-")
        written = fields["account"] + fields["amount"].replace(".", "") + day + month + year[2:]
        assert "".join(str(classes[source]) for source in row["meta"]["digit_sources"]) == written


def test_every_good_row_is_canonical_and_its_image_opens(handed_over: tuple[Path, list[Planted]]) -> None:
    out, planted = handed_over
    spoiled = {row_id for flaw in planted for row_id in flaw.ids}
    for row in good_rows(out, planted):
        assert set(row) == {"id", "group", "messages", "meta"}
        question, answer = row["messages"]
        assert [part["type"] for part in question["content"]] == ["image", "text"]
        assert list(json.loads(answer["content"][0]["text"])) == ["account", "amount", "date"]
        if row["id"] not in spoiled:
            image = Image.open(out / question["content"][0]["path"])
            image.load()
            assert image.size == (WIDTH, HEIGHT)


def test_flaws_are_planted_where_the_list_says(handed_over: tuple[Path, list[Planted]]) -> None:
    out, planted = handed_over
    lines = (out / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    counts = {flaw: sum(one.flaw == flaw for one in planted) for flaw in FLAWS}
    assert counts == dict.fromkeys(FLAWS, FLAWS_OF_A_KIND)
    rows = {row["id"]: row for row in good_rows(out, planted)}
    for one in planted:
        text = lines[one.line - 1]
        if one.flaw == "broken json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(text)
            continue
        row = json.loads(text)
        image = out / row["messages"][0]["content"][0]["path"]
        answer = row["messages"][1]["content"][0]["text"]
        if one.flaw == "missing image":
            assert not image.exists()
        elif one.flaw == "truncated jpeg":
            with pytest.raises(OSError, match="truncated"):
                Image.open(image).load()
        elif one.flaw == "empty answer":
            assert answer == ""
        elif one.flaw == "image token in the label":
            assert "<|image_pad|>" in answer
        elif one.flaw == "repeated row":
            assert row == rows[one.ids[0]]
        else:
            original = rows[one.ids[1]]
            same = (out / original["messages"][0]["content"][0]["path"]).read_bytes()
            assert image.read_bytes() == same
            assert (row["group"] == original["group"]) is (one.flaw == "copied image in a group")
            assert row["id"] != original["id"]


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    run = subprocess.run([sys.executable, SCRIPT, tmp_path / "out"], capture_output=True, text=True)
    assert run.returncode == 1
    assert "already there" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("forms", "customers", "says"),
    [
        (10, 20, "at least one form"),
        (600, 500, "legible images"),
        (40, 20, "too few"),
        (80, 1, "one customer is too few"),
    ],
)
def test_impossible_numbers_are_refused(tmp_path: Path, forms: int, customers: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make_bank_forms(tmp_path / "out", forms=forms, customers=customers, seed=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_after_a_kill_nothing_half_written_is_there_and_the_same_command_works(tmp_path: Path) -> None:
    out = tmp_path / "forms"
    partial = tmp_path / ".forms.partial"
    process = subprocess.Popen([sys.executable, SCRIPT, out])
    while process.poll() is None and len(list(partial.glob("images/*"))) < 20:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert partial.exists()
    assert not out.exists()
    make_bank_forms(out, forms=80, customers=20, seed=5)
    assert not partial.exists()
    assert len((out / "labels.jsonl").read_text().splitlines()) > 80


def test_planted_list_is_written_apart_and_torch_is_not_imported(tmp_path: Path) -> None:
    program = (
        "import runpy, sys;"
        f"sys.argv = ['make', {str(tmp_path / 'out')!r}, '--forms', '80', '--customers', '20',"
        f" '--planted', {str(tmp_path / 'planted.json')!r}];"
        f"sys.path.insert(0, {str(SCRIPT.parent)!r}); runpy.run_path({str(SCRIPT)!r}, run_name='__main__');"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
    planted = json.loads((tmp_path / "planted.json").read_text())
    assert len(planted) == FLAWS_OF_A_KIND * len(FLAWS)
    handed = {"labels.jsonl", "export.json", "labelling.xml", "images", "README.txt"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == handed


def test_amounts_and_dates_are_written_as_people_do() -> None:
    payment = Payment(account="004213", cents=1905, year=2026, month=3, day=14)
    assert payment.rows() == ("004213", "  1905", "140326")
    assert json.loads(payment.answer()) == {"account": "004213", "amount": "19.05", "date": "2026-03-14"}


def test_an_illegible_digit_belongs_to_nobody() -> None:
    rng = np.random.default_rng(0)
    shapes = rng.random((2, 8, 8)).astype(np.float32)
    classes = np.repeat([0, 1], 10)
    images = shapes[classes] + 0.01 * rng.random((20, 8, 8)).astype(np.float32)
    assert legible(images, classes).all()
    # A nought that looks more like a one than like a nought, but less so than every one does.
    images[0] = 0.3 * shapes[0] + 0.7 * shapes[1]
    assert np.flatnonzero(~legible(images, classes)).tolist() == [0]


def test_every_customer_has_every_digit() -> None:
    hands = share_out(250, np.random.default_rng(1))
    assert all(digit for owned in hands.owned for digit in owned)
