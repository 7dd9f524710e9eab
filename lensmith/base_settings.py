"""The recipe's section `base`: the checkpoint that is tuned."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from lensmith.downloaded import is_commit
from lensmith.section import ResolvedPath, Section


class Base(Section):
    """The checkpoint that is tuned."""

    path: ResolvedPath = Field(description="directory of the base checkpoint")
    revision: Annotated[str, AfterValidator(is_commit)] = Field(
        default="",
        description="its commit on the hub, all 40 digits; the one that `hf download` noted where empty; "
        "COMMIT: its user is to choose one, and nothing is planned or trained before",
    )
    licence: str = Field(default="", description="SPDX name of its licence; the family's where empty")
