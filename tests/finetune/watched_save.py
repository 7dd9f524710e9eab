"""Which checkpoint a training would go on from, were it killed at a file boundary of its last save."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from finetune.checkpoint import last_whole
from lensmith.home import Home
from tests.finetune.boundaries import Boundaries

STEPS = 3
# Of both names that DeepSpeed gives to what a process keeps of the optimizer.
KILLED = "zero_pp_rank_1_mp_rank_00_optim_states.pt"
# The last file of a process that is not the first one; it takes so many seconds that the first one, if it did
# not wait, would have called the checkpoint whole meanwhile.
LAST, LAST_S = "rng_state_1.pth", 0.5


class WatchedSave:
    """Watches this process's part of the save after step `STEPS` in `home`, which has no other training.

    told: of each boundary its name and what counts there: the step of the last whole checkpoint, "run" where
    the run is whole, None for neither. `killed` gets the work as a kill would leave it here, process 1 being
    in the middle of `KILLED`.
    """

    def __init__(self, home: Home, killed: Home) -> None:
        self.home = home
        self.killed = killed
        self.told: list[tuple[str, int | str | None]] = []
        self.boundaries = Boundaries(home.root, f"checkpoint-{STEPS}", self._at)

    @property
    def _work(self) -> Path:
        return next((self.home.root / "work").iterdir())

    def _at(self, name: str) -> None:
        if name.startswith("half ") and name.endswith(LAST):
            time.sleep(LAST_S)
        self.told.append((name, self._counts()))
        if name.startswith("half ") and name.endswith(KILLED):
            shutil.copytree(self._work, self.killed.root / "work" / self._work.name)

    def _counts(self) -> int | str | None:
        if self.home.all("run"):
            return "run"
        last = last_whole(self._work)
        return last and last[1].step
