"""Prepare in small batches, and be killed in the middle of a step: python -m ... RECIPE HOME STEP N.

STEP is one of STEPS; the N-th thing that it writes is begun and not ended.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from data_prep import looking, reading
from data_prep.prepare import prepare
from data_prep.workbook import Workbook
from lensmith.home import Home
from lensmith.recipe import load_recipe
from lensmith.row_file import RowWriter
from lensmith.stored_image import StoredImage

# Written down together: what is read or looked at since is lost.
BATCH = 8
# What is written of each, one statement for a row or a picture; None where it is no statement.
STEPS = {"reading": "INSERT INTO rows", "looking": "UPDATE pictures SET looked", "writing": None}


def main() -> None:
    """Make the step kill this process, then prepare."""
    recipe, home, step, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

    wanted = STEPS[step]
    opened, put = Workbook.__init__, RowWriter.put_image

    def watched(self: Workbook, path: Path) -> None:
        opened(self, path)
        if wanted is not None:
            # Called before the statement is done, inside the transaction of its batch.
            self.db.set_trace_callback(lambda statement: count() if statement.startswith(wanted) else None)

    def dying_put(self: RowWriter, image: StoredImage) -> None:
        count()
        put(self, image)

    reading._ROWS_AT_ONCE = looking._PICTURES_AT_ONCE = BATCH
    Workbook.__init__ = watched
    if wanted is None:
        RowWriter.put_image = dying_put
    prepare(load_recipe(recipe), Home(home))


if __name__ == "__main__":
    main()
