"""Pixels → the bytes of an image file. Imports Pillow."""

from io import BytesIO
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8], kind: Literal["png", "jpeg", "webp"], quality: int) -> bytes:
    """Return an image file of height × width × 3 (RGB) pixels. ``quality`` of 0–100 is for jpeg and webp only."""
    file = BytesIO()
    options = {} if kind == "png" else {"quality": quality}
    Image.fromarray(pixels, mode=None).save(file, kind, **options)
    return file.getvalue()
