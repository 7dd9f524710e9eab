"""Trainings that two processes made in one start."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.run import run_key
from lensmith.artifact import Artifact
from tests.finetune.conftest import Training


@dataclass(frozen=True)
class Divided:
    """Trainings by name, and by name what each process says of how they ended: null, or an error.

    said: by name, what the evaluations of each process were answered: [row, answer].
    """

    trainings: dict[str, Training]
    errors: dict[str, list[str | None]]
    said: dict[str, list[list[list[str]]]]

    @classmethod
    def read(cls, trainings: dict[str, Training], out: Path) -> Divided:
        """What the processes of `trainings` have written into `out`."""

        def told(ending: str) -> dict[str, Any]:
            return {
                name: [json.loads((out / f"{name}.{rank}{ending}.json").read_bytes()) for rank in (0, 1)]
                for name in trainings
            }

        return cls(trainings, told(""), told(".said"))

    def run(self, name: str) -> Artifact:
        """What became of a training that ended well."""
        training = self.trainings[name]
        run = training.home.find("run", run_key(training.recipe, training.base, training.dataset))
        assert run is not None, self.errors[name]
        assert self.errors[name] == [None, None]
        return run
