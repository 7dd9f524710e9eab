"""PEFT takes the names of modules as they stand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PreTrainedModel


@contextmanager
def named_in_full(model: PreTrainedModel) -> Iterator[None]:
    """While it is open, PEFT adapts and loads the modules that are named, and no others.

    For adapters of transformers 4, PEFT 0.21 (utils/transformers_weight_conversion.py) takes every target
    that ends in gate_proj, up_proj or down_proj for routed experts where the model's type has some: linears
    of that name, those of GLM-4.6V's vision tower too, would get no adapter. It goes by `config.model_type`.
    Its warning of patterns without a module is not shown: it knows those of parameters for none, and applies
    them all the same (what arrived is checked on every layer).
    """
    config = model.config
    kept = config.model_type
    config.model_type = ""  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys did not match")
            yield
    finally:
        config.model_type = kept  # pyright: ignore[reportAttributeAccessIssue]
