"""Trainings that two processes made in one start."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.run import run_key
from lensmith.artifact import Artifact
from tests.finetune.conftest import Training


@dataclass(frozen=True)
class Divided:
    """Trainings by name, and by name what each process says of how they ended: null, or an error."""

    trainings: dict[str, Training]
    errors: dict[str, list[str | None]]

    def run(self, name: str) -> Artifact:
        """What became of a training that ended well."""
        training = self.trainings[name]
        run = training.home.find("run", run_key(training.recipe, training.base, training.dataset))
        assert run is not None, self.errors[name]
        assert self.errors[name] == [None, None]
        return run
