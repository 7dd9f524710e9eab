"""What the files that people write share (recipes, policies, profiles): strictness, and types of values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def finite(value: float) -> float:
    """The value. Raises ValueError for infinities and NaN."""
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Share = Annotated[float, Field(ge=0, lt=1), AfterValidator(finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(finite)]
Count = Annotated[int, Field(ge=1)]
ResolvedPath = Annotated[Path, Field(strict=False)]


class Section(BaseModel):
    """A part of such a file: unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
