"""The recipe's section `data.video`: how videos are sampled."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lensmith.section import Count, Positive, Section

# A message from a worker holds all frames of a video.
MOST_FRAMES = 256


class VideoSampling(Section):
    """How videos are taken: as frames sampled of them, without sound."""

    fps: Annotated[Positive, Field(le=60)] = Field(
        default=1.0, description="frames that are taken of a second of video"
    )
    max_frames: Annotated[int, Field(ge=2, le=MOST_FRAMES, multiple_of=2)] = Field(
        default=32,
        description="most frames of one video, an even number: of a longer one as many, evenly spread",
    )
    max_pixels: Count = Field(
        default=500_000, description="larger frames are reduced to this area, in pixels"
    )
    max_bytes: Count = Field(default=500_000_000, description="encoded size accepted, in bytes")
