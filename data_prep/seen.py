"""What is known of a picture. Quick to import: worker processes hold nothing else of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Seen:
    """What looking at a picture gave: upright size in pixels; 16 bytes of digest over its encoded bytes; the
    digest of its pixels, equal for equal pictures; thumbnail and detail that find near copies."""

    width: int
    height: int
    file: bytes
    identity: bytes
    fingerprint: bytes = b""
