"""lensmith preview: samples as the model will see them, and which tokens carry loss."""

from __future__ import annotations

import argparse
from pathlib import Path

from lensmith.cli.arguments import add_recipe, pipeline_of
from lensmith.cli.output import print_json
from lensmith.errors import InputError, Problem
from lensmith.large_imports import no_collection
from lensmith.signals import signals_held


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own arguments."""
    add_recipe(parser)
    parser.add_argument("--rows", type=int, default=3, metavar="N", help="how many training rows (3)")
    parser.add_argument(
        "--row",
        action="append",
        default=[],
        metavar="ID",
        help="this training row instead of the first ones (repeatable)",
    )
    parser.add_argument("--page", metavar="FILE", help="also write them, with their images, as an HTML page")


def run(arguments: argparse.Namespace) -> int:
    """Prepares the data where that is not done yet. Raises InputError for no row, or an unknown one."""
    if arguments.rows < 1:
        raise InputError("nothing to show", [Problem("must be 1 or more", "--rows")])
    with signals_held(), no_collection():
        from finetune.preview import preview, preview_text
        from finetune.preview_page import write_page

    pipeline = pipeline_of(arguments)
    rows = preview(pipeline.recipe, pipeline.base, pipeline.dataset, arguments.rows, arguments.row)
    if arguments.page:
        write_page(rows, Path(arguments.page), pipeline.recipe.release.name)
    if arguments.json:
        facts = [
            {
                "row": row.row,
                "sizes": row.sizes,
                "tokens": row.tokens,
                "image_tokens": row.image_tokens,
                "learned_tokens": row.learned,
                "prompt": row.prompt,
                "answer": row.answer,
                **({"rejected": row.rejected_answer} if row.rejected else {}),
            }
            for row in rows
        ]
        print_json({"rows": facts, "page": arguments.page})
    else:
        print(preview_text(rows))
        if arguments.page:
            print(f"page    {arguments.page}")
    return 0
