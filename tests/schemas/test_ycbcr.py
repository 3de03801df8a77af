"""A TIFF of plain YCbCr is read to its true pixels by every Pillow that refloom may be installed with."""

import io

import numpy as np
import pytest
from PIL import Image

from refloom.schemas import pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(40, 64), (23, 31), (1, 1), (40, 3)])
@pytest.mark.parametrize("strip_bytes", [1 << 16, 500])
@pytest.mark.parametrize("orientation", [1, 6])
def test_plain_ycbcr_in_a_tiff_has_its_own_pixels(monkeypatch, height, width, strip_bytes, orientation):
    monkeypatch.setattr("PIL.TiffImagePlugin.STRIP_SIZE", strip_bytes)
    image = Image.fromarray(PIXELS[:height, :width]).convert("YCbCr")
    file = io.BytesIO()
    image.save(file, "TIFF", tiffinfo={274: orientation})
    expected = np.asarray(image.convert("RGB"))
    if orientation == 6:
        expected = np.rot90(expected, -1)
    assert np.array_equal(pictures.decode(file.getvalue()), expected)
