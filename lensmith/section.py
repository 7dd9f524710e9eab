"""What the files that people write share (recipes, policies, profiles): strictness, and types of values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from lensmith.address import checked_address, is_address


def finite(value: float) -> float:
    """The value. Raises ValueError for infinities and NaN."""
    if not math.isfinite(value):
        raise ValueError("must be a finite number")
    return value


Share = Annotated[float, Field(ge=0, lt=1), AfterValidator(finite)]
Positive = Annotated[float, Field(gt=0), AfterValidator(finite)]
Count = Annotated[int, Field(ge=1)]


def _share_or_count(value: object) -> object:
    share = isinstance(value, int | float) and 0 <= value < 1
    count = isinstance(value, int) and value >= 1
    if (share or count) and not isinstance(value, bool):
        return value
    raise ValueError(f"a share (0 to below 1) or a whole number of rows is expected, not {value!r}")


# Without the validator a wrong value would be told twice, once as each.
ShareOrCount = Annotated[Share | Count, BeforeValidator(_share_or_count)]


def _every(value: object) -> object:
    if isinstance(value, bool) or (isinstance(value, int) and value >= 2):
        return value
    raise ValueError(f"true, false, or every how many (2 or more) is expected, not {value!r}")


# All, none, or one of so many.
Every = Annotated[bool | Annotated[int, Field(ge=2)], BeforeValidator(_every)]
ResolvedPath = Annotated[Path, Field(strict=False)]


def _place(value: object) -> object:
    if not isinstance(value, str):
        return value
    return checked_address(value) if is_address(value) else Path(value)


# A path as `ResolvedPath`; or an address (see `lensmith.address`), which stays text.
Place = Annotated[Path | str, BeforeValidator(_place)]


class Section(BaseModel):
    """A part of such a file: unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Unusable(ValueError):
    """What is wrong with a section whose values are each well formed; a line of the error for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problems))


def refuse(problems: Sequence[str]) -> None:
    """Raise Unusable with `problems`, where there are any."""
    if problems:
        raise Unusable(problems)
