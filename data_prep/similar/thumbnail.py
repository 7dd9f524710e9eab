"""The perceptual fingerprint of an image: 64 x 64 grey values (`grey.small_grey`).

Everything else (hashes, alignment, verdict) is computed from this thumbnail and the size of the original, so
4 KB an image are all that an index or a sealed exam has to keep.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from data_prep.similar.grey import SIDE

__all__ = ["SIDE", "Thumbnails"]

# uint8 [n, 64, 64].
Thumbnails = npt.NDArray[np.uint8]
