"""lensmith export: the rows of a dataset as other tools and labellers read them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from lensmith.cli.arguments import home_of
from lensmith.cli.output import counted, print_json
from lensmith.cli.reference import resolve
from lensmith.decision import check_decision
from lensmith.errors import InputError, Problem
from lensmith.home import Home
from lensmith.retirement import MEND, retire

if TYPE_CHECKING:
    from data_prep.export.folder import Written
    from lensmith.artifact import Artifact
    from lensmith.dataset import Split
    from lensmith.row_file import Row

FORMATS = ("canonical", "llava", "sharegpt", "openai", "label-studio")
SPLITS = ("train", "validation")
_ON_VALIDATION = "lensmith evaluate RECIPE --split validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    parser.add_argument("dataset", metavar="DATASET", help="directory, kind-id, or id of a dataset")
    parser.add_argument("--to", metavar="FORMAT", choices=FORMATS, required=True, help=", ".join(FORMATS))
    parser.add_argument("--out", metavar="DIR", required=True, help="a new folder for rows and images")
    parser.add_argument(
        "--split", choices=SPLITS, help="one split only (both; with --predictions: validation)"
    )
    parser.add_argument(
        "--predictions",
        metavar="REPORT",
        help="label-studio: only the rows that a report found wrong, each with the answer as a prediction to"
        " correct; a report of lensmith evaluate RECIPE --split validation",
    )
    parser.add_argument(
        "--retire-exam",
        action="store_true",
        help="with --predictions: a report on the exam, whose mistakes are shown and which is over by that:"
        " nothing is evaluated or promoted by it again",
    )
    parser.add_argument("--who", help="with --retire-exam: who decides this")
    parser.add_argument("--why", help="with --retire-exam: the reason, kept as written")


def run(arguments: argparse.Namespace) -> int:
    """Rows that the format cannot hold are left out, and counted by the reason.

    Raises InputError where the artifact is no dataset, DIR is already there, or the report judged other rows
    or the exam, which only --retire-exam may show.
    """
    _check_asked(arguments)
    home = home_of(arguments)
    dataset = resolve(home, arguments.dataset)
    if dataset.kind != "dataset":
        mend = (
            "name a dataset" if dataset.kind != "held_out" else "the exam is not exported: name its dataset"
        )
        raise InputError(f"{dataset.short} is not a dataset", [Problem(f"a {dataset.kind}", mend=mend)])
    out = Path(arguments.out)
    over = ""
    if arguments.predictions:
        written, over = _mistakes(arguments, home, dataset, out)
    else:
        splits: tuple[Split, ...] = (arguments.split,) if arguments.split else SPLITS
        written = _write(arguments.to, _rows(dataset, splits), out)
    if arguments.json:
        print_json({"out": str(out), **asdict(written), "retired": over or None})
    else:
        print(summary(written, out))
        if over:
            print(f"held_out-{over[:12]} is retired: no model is evaluated or promoted by it any more.")
            print(MEND)
    return 0


def _check_asked(arguments: argparse.Namespace) -> None:
    """Raise InputError for options that contradict each other; before anything is looked up."""
    problems: list[Problem] = []
    if arguments.predictions and arguments.to != "label-studio":
        problems.append(Problem("only label-studio has predictions", "--predictions", "leave it out"))
    if arguments.retire_exam and not arguments.predictions:
        problems.append(
            Problem("needs the report whose mistakes are shown", "--retire-exam", "--predictions")
        )
    if arguments.retire_exam and arguments.split:
        problems.append(Problem("the exam is no split of the dataset", "--split", "leave it out"))
    if not arguments.retire_exam and (arguments.who or arguments.why):
        problems.append(Problem("is asked for --retire-exam only", "--who and --why", "leave them out"))
    if problems:
        raise InputError("it is not clear what is to be exported", problems)
    if arguments.retire_exam:
        check_decision(arguments.who or "", arguments.why or "")


def summary(written: Written, out: Path) -> str:
    """What was written and what was not, in a few lines."""
    lines = [f"{counted(written.rows, 'row')}, {counted(written.images, 'image')}  {out / written.file}"]
    lines += [f"left out  {counted(rows, 'row')}: {why}" for why, rows in sorted(written.left_out.items())]
    if written.predictions:
        verb = "has" if written.predictions == 1 else "have"
        lines.append(f"{counted(written.predictions, 'row')} {verb} a prediction to correct")
    if written.predictions_left_out:
        unseen = counted(written.predictions_left_out, "prediction")
        lines.append(f"left out  {unseen} that the controls cannot show")
    return "\n".join(lines)


def _rows(dataset: Artifact, splits: tuple[Split, ...]) -> Iterator[Row]:
    from lensmith.dataset import read_split

    for split in splits:
        yield from read_split(dataset, split)


def _write(kind: str, rows: Iterator[Row], out: Path) -> Written:
    from data_prep.export import canonical_jsonl, label_studio, llava, openai_messages, sharegpt

    match kind:
        case "canonical":
            return canonical_jsonl.write(rows, out)
        case "llava":
            return llava.write(rows, out)
        case "sharegpt":
            return sharegpt.write(rows, out)
        case "openai":
            return openai_messages.write(rows, out)
        case _:
            return label_studio.write(rows, out)


def _mistakes(arguments: argparse.Namespace, home: Home, dataset: Artifact, out: Path) -> tuple[Written, str]:
    """What a report found wrong, as tasks; and the id of the exam that was retired for it, "" for none."""
    from data_prep.export import label_studio
    from data_prep.export.folder import check_new
    from finetune.evaluation.predictions import read_predictions
    from lensmith.dataset import read_split

    report = resolve(home, arguments.predictions)
    predictions = read_predictions(report)
    wrong = {row: each.answer for row, each in predictions.items() if not each.right}
    exam = report.manifest.inputs.get("held_out", "")
    if exam and not arguments.retire_exam:
        problems = [
            Problem(f"{report.short} judged the exam", "--predictions", f"make one: {_ON_VALIDATION}"),
            Problem("showing its rows ends it for good", mend="--retire-exam --who NAME --why REASON"),
        ]
        raise InputError("mistakes that are shown come from validation rows", problems)
    own = dataset.body["held_out"] if arguments.retire_exam else exam
    if exam != own:
        problem = Problem(f"{report.short} did not judge it", "--predictions", "name a report on this exam")
        raise InputError(f"the exam of {dataset.short} is held_out-{own[:12]}", [problem])
    check_new(out)
    if exam:
        return _of_exam(arguments, home, home.by_id(exam), report, wrong, out), exam
    rows = read_split(dataset, arguments.split or "validation")
    if not any(sample.id in predictions for sample in rows.samples()):
        problem = Problem(f"{report.short} answered none of these rows", "--predictions", _ON_VALIDATION)
        raise InputError("the predictions are of other rows", [problem])
    _check_some(report, wrong)
    chosen = (row for row in rows if row.sample.id in wrong)
    return label_studio.write(chosen, out, wrong, report.short), ""


def _of_exam(
    arguments: argparse.Namespace,
    home: Home,
    held_out: Artifact,
    report: Artifact,
    wrong: Mapping[str, str],
    out: Path,
) -> Written:
    from data_prep.export import label_studio
    from lensmith.dataset import read_held_out

    _check_some(report, wrong)
    # First the record: an exam whose rows were shown and which still counts must not be possible.
    retire(home, held_out, arguments.who, arguments.why, report, len(wrong))
    reason = f"export for relabelling, which retires the exam, by {arguments.who}: {arguments.why}"
    rows = read_held_out(home, held_out, reason)
    chosen = (row for row in rows if row.sample.id in wrong)
    return label_studio.write(chosen, out, wrong, report.short)


def _check_some(report: Artifact, wrong: Mapping[str, str]) -> None:
    if not wrong:
        raise InputError("there is nothing to correct", [Problem(f"{report.short} found every row right")])
