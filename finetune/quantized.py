"""What a base in 4 bits was worth to a training, as its run keeps it. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from lensmith.errors import IntegrityError, Problem
from lensmith.families.family import Family
from lensmith.files import write_json
from lensmith.train_settings import Quantization

QUANTIZED = "quantized.json"
# Values, one behind the other in a weight, that share a scale: bitsandbytes 0.50's, unless told otherwise.
BLOCK = 64
_SHOWN = 5


class Quantized(BaseModel):
    """`quantized.json`. dtype: of the weights before and of their values after. linears: by module name the
    SHA-256 of its weight dequantised, in `dtype`, row-major, little-endian."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    quantization: Quantization
    dtype: str
    linears: dict[str, str]

    def check(self, module: str, found: str) -> None:
        """Raise IntegrityError where the dequantised weight of `module` has another digest."""
        if self.linears[module] != found:
            raise other_values([module])


def other_values(modules: list[str]) -> IntegrityError:
    """The error for linears whose values in 4 bits are not those that were trained on."""
    more = f" and {len(modules) - _SHOWN} more" if len(modules) > _SHOWN else ""
    mend = "use the version of bitsandbytes, and the kind of machine, that the training began on"
    return IntegrityError(
        "the base in 4 bits has other values here than in training",
        [Problem(f"differ once dequantised: {', '.join(modules[:_SHOWN])}{more}", "bitsandbytes", mend)],
    )


def quantized_linears(family: Family, config: dict[str, Any]) -> list[str]:
    """The linears that method qlora holds in 4 bits: all that the family states for the language tower.

    `config` is the model's, as the class holds it. The output head stays whole, as in the paper.
    """
    return family.expected_linears(config, "language")


def read_quantized(folder: Path) -> Quantized | None:
    """What a run, or a training's work directory, keeps of its base in 4 bits; None where it has none."""
    path = folder / QUANTIZED
    return Quantized.model_validate_json(path.read_bytes()) if path.is_file() else None


def write_quantized(folder: Path, quantized: Quantized) -> None:
    """Write it into `folder`."""
    write_json(folder / QUANTIZED, quantized.model_dump(mode="json"))
