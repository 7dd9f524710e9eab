"""Clusters against a plain search through the graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.similar.clusters import Clusters

pairs = st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40)


def reached(links: list[tuple[int, int]]) -> list[int]:
    labels = list(range(30))
    changed = True
    while changed:
        changed = False
        for a, b in links:
            low = min(labels[a], labels[b])
            changed |= labels[a] != low or labels[b] != low
            labels[a] = labels[b] = low
    return labels


@given(pairs, st.randoms())
def test_what_any_chain_joins_is_one_cluster_in_any_order(links: list[tuple[int, int]], random) -> None:
    clusters = Clusters(30)
    shuffled = random.sample(links, len(links))
    half = len(links) // 2
    for part in (shuffled[:half], shuffled[half:]):
        left, right = np.array(part, int).reshape(-1, 2).T
        clusters.join(left, right)
    assert clusters.labels().tolist() == reached(links)


def test_members_exist() -> None:
    with pytest.raises(IndexError):
        Clusters(3).join(np.array([-1]), np.array([0]))
    with pytest.raises(IndexError):
        Clusters(3).join(np.array([3]), np.array([0]))


def test_a_million_in_one_chain() -> None:
    clusters = Clusters(1_000_000)
    clusters.join(np.arange(999_999), np.arange(1, 1_000_000))
    assert not clusters.labels().any()
