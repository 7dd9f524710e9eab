"""The thumbnail of an image: 64 x 64 grey values (`grey.small_grey`).

Hashes, alignment and verdict are computed from it and the size of the original; only copies within a crowd of
one template are told by a detail as well (details.py). So 4 KB an image, and up to 15 KB for its detail, are
all that an index or a sealed exam has to keep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.similar.grey import SIDE

__all__ = ["SIDE", "Thumbnails"]

# uint8 [n, 64, 64].
Thumbnails = npt.NDArray[np.uint8]
