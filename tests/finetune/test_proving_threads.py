"""Matrices that are proven side by side: each weight of the class by one thread, with one of torch's."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from finetune.layout import Part
from finetune.proving.large import by_weight
from finetune.proving.sample import Matrix
from finetune.proving.threads import threads


def matrix(name: str, disk: str, first: int) -> Matrix:
    return Matrix(name, disk, first, 1, "model.safetensors", "language")


def test_what_one_layer_of_peft_holds_is_one_job() -> None:
    """Rows of a weight that lie in two tensors on disk, and experts of one parameter, each of which is a
    tensor of its own: whoever computes one of them puts its values into the layer."""
    places = {
        "joined (q)": (Part("q"), None),
        "joined (k)": (Part("k"), None),
        "more (q)": (Part("q", rows=(1, 2)), None),
        **{f"experts.{at}": (Part("experts", expert=at), None) for at in range(3)},
    }
    matrices = [
        matrix("more (q)", "more", 0),
        *(matrix(f"experts.{at}", f"experts.{at}", 0) for at in (2, 0, 1)),
        matrix("joined (k)", "joined", 1),
        matrix("joined (q)", "joined", 0),
    ]
    jobs = [[each.name for each in job] for job in by_weight(matrices, places)]
    assert jobs == [["experts.0", "experts.1", "experts.2"], ["joined (q)", "more (q)"], ["joined (k)"]]


def test_a_thread_for_each_core_which_computes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(3)))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    met = threading.Barrier(3, timeout=30)

    def counts(_: int) -> int:
        met.wait()
        return torch.get_num_threads()

    with threads() as pool:
        assert list(pool.map(counts, range(3))) == [1, 1, 1]
    with threads(2) as pool:
        assert pool._max_workers == 2
    with ThreadPoolExecutor(1) as pool:
        behind = {torch.get_num_threads(), pool.submit(torch.get_num_threads).result()}
    torch.set_num_threads(before)
    assert behind == {2}


def test_behind_a_failure_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    done: list[int] = []

    def job(at: int) -> None:
        if at == 0:
            raise ValueError("a file that ended")
        time.sleep(0.01)
        done.append(at)

    with pytest.raises(ValueError, match="a file that ended"), threads() as pool:
        list(pool.map(job, range(2000)))
    assert len(done) < 1000


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("change", [lambda bits: bits ^ 1, lambda bits: bits ^ (1 << 7)])
def test_one_bit_is_another_weight(
    dtype: torch.dtype, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    from finetune.proving.weights import same_bits

    one = torch.arange(6).view(2, 3).to(dtype)
    other = one.clone()
    assert same_bits(one, other)
    flat = other.view(-1).view(torch.uint8)
    flat[-1] = change(flat[-1])
    assert not same_bits(one, other)
