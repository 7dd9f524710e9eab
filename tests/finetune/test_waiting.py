"""How long processes wait for each other is what the recipe says, and waiting in vain is told."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from torch import distributed

from finetune.waiting import check_patience, others_come
from lensmith.errors import InputError, IntegrityError
from lensmith.train_settings import Towers, Train

# As gloo of torch 2.13 says it.
IN_VAIN = "unbound_buffer.cc:78] Timed out waiting 7000ms for recv operation to complete"


def train(**settings: object) -> Train:
    towers = Towers(vision="adapt", connector="adapt", language="adapt")
    content = {"method": "lora", "towers": towers, "launcher": Path("l.yaml"), "learning_rate": 0.001}
    return Train.model_validate({**content, **settings})


def test_waiting_in_vain_is_told() -> None:
    with pytest.raises(InputError, match="waited in vain") as told, others_come(train(collective_timeout=7)):
        raise RuntimeError(IN_VAIN)
    assert "train.collective_timeout: waited longer than 7 s for another one" in str(told.value)


def test_other_errors_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="Connection closed by peer"), others_come(train()):
        raise RuntimeError("Connection closed by peer")


def test_another_patience_than_the_recipes_is_refused(tmp_path: Path) -> None:
    check_patience(train(collective_timeout=7))
    distributed.init_process_group(
        "gloo",
        store=distributed.FileStore(str(tmp_path / "s"), 1),
        rank=0,
        world_size=1,
        timeout=timedelta(seconds=7),
    )
    try:
        check_patience(train(collective_timeout=7))
        with pytest.raises(IntegrityError, match="7 s, the recipe says 1800"):
            check_patience(train())
    finally:
        distributed.destroy_process_group()
