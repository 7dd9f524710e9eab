"""New pictures that an earlier exam shows: the check against held-out sets of other datasets."""

from __future__ import annotations

from data_prep.similar.clusters import Clusters
from data_prep.similar.search import Fingerprints, find_near


def find_exam_pictures(pictures: Fingerprints, exam: int) -> list[tuple[int, int]]:
    """(new picture, the exam's) for every new one that the exam shows, exactly or nearly, in order.

    `pictures` are the exam's, `exam` of them, and then the new ones, whose numbers start at 0 again. Where
    several of the exam are in one cluster with the new one, the first of them is named. Pictures without
    contrast are not compared (search.LEAST_CONTRAST).
    """
    # Sealed first, new behind them: equal thumbnails then pair with the sealed one.
    found = find_near(pictures, start=exam)
    # A new picture may repeat another new one that repeats the exam: clusters tell, not pairs.
    clusters = Clusters(len(pictures))
    clusters.join(found.first, found.second)
    reached = enumerate(clusters.labels()[exam:].tolist())
    return [(number, label) for number, label in reached if label < exam]
