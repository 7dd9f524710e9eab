"""What answers say, and where rows come from."""

from __future__ import annotations

import json

from data_prep.figures.describe import describe
from data_prep.figures.label_distribution import FIELDS, LabelDistribution
from data_prep.figures.origin_counts import OriginCounts
from data_prep.prepare import prepare
from data_prep.workbook import Workbook
from lensmith.dataset import read_split
from lensmith.home import Home
from lensmith.sample import Origin, Region
from tests.data_prep.conftest import BankForms
from tests.data_prep.folder import Folder


def test_each_field_of_an_answer() -> None:
    labels = LabelDistribution()
    for answer in (
        {"amount": "12.50", "paid": True, "lines": ["a"], "by": {"name": "Ana"}},
        {"amount": "", "paid": False, "lines": [], "by": {"name": " "}},
        {"amount": None, "paid": True, "lines": ["a"]},
        {"amount": 7, "note": "[e-mail]"},
    ):
        labels.add(json.dumps(answer))
    summary = labels.summary()
    fields = {field["name"]: field for field in summary["fields"]}
    assert summary["rows"] == 4
    assert list(fields) == ["amount", "paid", "lines", "by.name", "note"]
    assert {name: (field["rows"], field["empty"]) for name, field in fields.items()} == {
        "amount": (4, 2), "paid": (3, 0), "lines": (3, 1), "by.name": (2, 1), "note": (1, 0),
    }  # fmt: skip
    assert fields["amount"]["kinds"] == {"number": 1, "text": 1}
    assert fields["paid"]["kinds"] == {"yes or no": 3}
    assert fields["lines"]["kinds"] == {"list": 2}
    assert fields["note"]["kinds"] == {"text": 1}
    assert fields["paid"]["values"]["values"] == [["true", 2]]
    assert fields["amount"]["lengths"] == {"bins": [[1, 2, 1], [4, 6, 1]]}


def test_answers_in_words_are_one_field() -> None:
    labels = LabelDistribution()
    for answer in ("yes", "no", "yes ", "{broken"):
        labels.add(answer)
    (field,) = labels.summary()["fields"]
    assert (field["name"], field["rows"]) == ("answer", 4)
    assert field["values"]["values"] == [["yes", 2]]


def test_keys_that_are_data_do_not_fill_the_memory() -> None:
    labels = LabelDistribution()
    for number in range(500):
        labels.add(json.dumps({f"{number}.3.": "Miller"}))
    summary = labels.summary()
    assert (len(summary["fields"]), summary["further"]) == (FIELDS, 500 - FIELDS)


def test_regions_are_counted_by_their_label() -> None:
    labels = LabelDistribution()
    box = Region("box", (0, 0, 1, 1), "stamp")
    labels.add("", [box, box, Region("point", (0.5, 0.5), "tip")])
    labels.add("", [box])
    labels.add("There are none.")
    summary = labels.summary()
    assert summary["regions"]["rows"] == 2
    assert summary["regions"]["per_row"] == {"bins": [[1, 2, 1], [3, 4, 1]]}
    assert summary["regions"]["labels"]["values"] == [["stamp", 3]]
    assert [field["rows"] for field in summary["fields"]] == [1]


def test_origins_are_counted_and_persons_are_not_named() -> None:
    origins = OriginCounts()
    for number in range(3):
        origins.add(Origin("branch", "CC-BY-4.0", f"person {number}", labeller="ana@example.org"))
    origins.add(Origin(licence="CC0-1.0"))
    origins.add(Origin())
    summary = origins.summary()
    assert summary["rows"] == 5
    assert summary["licence"]["values"] == [["CC-BY-4.0", 3], ["CC0-1.0", 1]]
    assert (summary["licence"]["rows"], summary["source"]["rows"]) == (4, 3)
    assert summary["consent"]["values"] == []
    assert "ana" not in json.dumps(summary)


def test_the_body_counts_training_and_validation(forms: BankForms) -> None:
    body = forms.prepared.dataset.body
    read = [*read_split(forms.prepared.dataset, "train"), *read_split(forms.prepared.dataset, "validation")]
    assert body["labels"]["rows"] == body["origins"]["rows"] == len(read)
    assert {field["name"] for field in body["labels"]["fields"]} == set(json.loads(read[0].sample.answer))
    images, tokens = body["histograms"]["image_edge"], body["histograms"]["image_tokens"]
    assert sum(count for _, _, count in images["bins"]) == body["images"]["images"]
    assert sum(count for _, _, count in tokens["bins"]) == sum(body["rows"].values())


def test_no_text_of_the_exam_is_in_the_body(folder: Folder, home: Home) -> None:
    for number in range(40):
        folder.add(folder.row(f"r{number}", f"g{number}", json.dumps({"n": f"secret {number}"})))
        folder.add(folder.row(f"s{number}", f"g{number}", json.dumps({"n": f"secret {number}"})))
    dataset = prepare(folder.recipe(), home).dataset
    said = {text for field in dataset.body["labels"]["fields"] for text, _ in field["values"]["values"]}
    read = {
        json.loads(row.sample.answer)["n"]
        for split in ("train", "validation")
        for row in read_split(dataset, split)
    }
    assert said
    assert said <= read
    assert len(read) < 40


def test_tokens_of_a_row_are_those_of_all_its_images(folder: Folder, home: Home) -> None:
    from lensmith.tokens import ImageGrid, PixelBudget

    with Workbook(folder.root / "book.sqlite") as book:
        book.db.execute(
            "INSERT INTO rows (n, source, place, id, grp, flaws, flags, taken)"
            " VALUES (0, 0, 'a', 'a', 'a', '[]', '[]', 1)"
        )
        for p, (width, height) in enumerate(((56, 28), (28, 28))):
            book.db.execute(
                "INSERT INTO pictures (p, source, path, width, height) VALUES (?, 0, ?, ?, ?)",
                (p, f"{p}.png", width, height),
            )
            book.db.execute("INSERT INTO shown (n, at, p) VALUES (0, ?, ?)", (p, p))
        grid = ImageGrid(28, 1, PixelBudget(1, 10_000_000))
        found = describe(book, grid)["histograms"]
        assert found == {
            "image_edge": {"bins": [[24, 32, 1], [48, 64, 1]]},
            "image_tokens": {"bins": [[3, 4, 1]]},
        }
        assert describe(book, None)["histograms"]["image_tokens"] is None
