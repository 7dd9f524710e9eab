"""What a worker process sees in a picture, and how it writes one down. Imported by name, quick to import."""

from __future__ import annotations

import hashlib

from PIL import Image

from data_prep.seen import Seen
from data_prep.similar.grey import fingerprint
from lensmith.images import ImageLimits, decode_image, decode_stored, encode_png, pixel_digest
from lensmith.stored_image import StoredImage

SEE = "data_prep.sight:see"
STORE = "data_prep.sight:store"
SHOW = "data_prep.sight:show"


def see(data: bytes, limits: ImageLimits) -> Seen:
    """Size, digests and fingerprint of an encoded image. Raises BadImage."""
    image = decode_image(data, limits)
    identity = bytes.fromhex(pixel_digest(image))
    return Seen(image.width, image.height, file_digest(data), identity, fingerprint(image))


def store(data: bytes, limits: ImageLimits) -> StoredImage:
    """The image as a split keeps it. Raises BadImage."""
    image = decode_image(data, limits)
    return StoredImage(pixel_digest(image), image.width, image.height, encode_png(image), fingerprint(image))


def reduce(png: bytes, size: tuple[int, int]) -> StoredImage:
    """A stored image at another size, (width, height) in pixels."""
    small = decode_stored(png).resize(size, Image.Resampling.BICUBIC)
    return StoredImage(pixel_digest(small), *size, encode_png(small), fingerprint(small))


def show(data: bytes, limits: ImageLimits) -> bytes:
    """The digest of an image's pixels, 32 bytes. Raises BadImage."""
    return bytes.fromhex(pixel_digest(decode_image(data, limits)))


def file_digest(data: bytes) -> bytes:
    """16 bytes of SHA-256 over a picture's encoded bytes."""
    return hashlib.sha256(data).digest()[:16]
