"""What users give as pictures, masks and places: every kind becomes the same arrays, or an error that helps."""

import io
import re

import numpy as np
import pytest
import tinypipes as tiny
from drawing import encoded
from PIL import Image

from refloom.inference.adapters.reading import read_mask, read_picture, several
from refloom.inference.adapters.reference import Reference
from refloom.schemas.errors import Refused

PICTURE = tiny.picture(3, 24, 40)


def test_a_file_its_bytes_a_pillow_picture_and_an_array_are_the_same_picture(tmp_path):
    image = Image.fromarray(PICTURE)
    file = tmp_path / "a.png"
    image.save(file)
    for source in (file, str(file), file.read_bytes(), image, PICTURE):
        assert np.array_equal(read_picture(source), PICTURE)


@pytest.mark.parametrize("opened", [True, False])
def test_transparent_pixels_are_white_and_exif_turns_the_picture(opened):
    alpha = np.zeros((24, 40), np.uint8)
    alpha[:, :20] = 255
    data = encoded(Image.fromarray(np.dstack([PICTURE, alpha])), "PNG")
    seen = read_picture(Image.open(io.BytesIO(data)) if opened else data)
    assert np.array_equal(seen[:, :20], PICTURE[:, :20])
    assert (seen[:, 20:] == 255).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right
    data = encoded(Image.fromarray(PICTURE), "PNG", exif=exif)
    assert np.array_equal(read_picture(Image.open(io.BytesIO(data)) if opened else data), np.rot90(PICTURE, -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_mode_of_pillow_is_read(mode):
    image = Image.fromarray(PICTURE)
    if mode == "I;16":
        gray = np.asarray(image.convert("L"))
        image, wanted = Image.fromarray(gray.astype(np.uint16) << 8), np.repeat(gray[..., None], 3, axis=2)
    else:
        image = image.convert(mode)
        wanted = np.asarray(image.convert("RGB"))
    assert np.array_equal(read_picture(image), wanted)


def test_a_mask_is_where_it_is_white():
    wanted = np.zeros((6, 8), bool)
    wanted[2:4, 1:5] = True
    white = (wanted * 255).astype(np.uint8)
    soft = np.where(wanted, 0.5, 0.49)
    for source in (wanted, white, wanted.astype(np.uint8), soft, Image.fromarray(white), Image.fromarray(wanted)):
        assert np.array_equal(read_mask(source), wanted)
    cut_out = np.dstack([np.zeros((6, 8, 3), np.uint8), 255 - white])  # transparent where the picture may change
    assert np.array_equal(read_mask(Image.fromarray(cut_out)), wanted)
    for wrong in (np.zeros((6, 8, 3), np.uint8), np.full((6, 8), 2.0), np.zeros((6, 8), np.int64)):
        with pytest.raises(Refused, match="boolean, uint8 or floating"):
            read_mask(wrong)


def test_several_pictures_are_a_list_or_a_folder_and_keep_their_sizes(tmp_path):
    for name, seed in (("b.png", 1), ("a.png", 0)):
        Image.fromarray(tiny.picture(seed, 16 + 8 * seed, 24)).save(tmp_path / name)
    (tmp_path / ".hidden").write_text("not a picture")
    assert [file.name for file in several(tmp_path)] == ["a.png", "b.png"]
    reference = Reference(tmp_path, "cat", boxes=[[0.1, 0.2, 0.5, 0.6], (0.5, 0.5, 1, 1)])
    assert [image.shape for image in reference.images] == [(16, 24, 3), (24, 24, 3)]
    assert reference.boxes == ((0.1, 0.2, 0.5, 0.6), (0.5, 0.5, 1.0, 1.0))
    assert Reference(PICTURE, boxes=np.array([0, 0, 0.5, 1])).boxes == ((0.0, 0.0, 0.5, 1.0),)


def test_several_masks_are_one_place():
    left, top = np.zeros((10, 20), bool), np.zeros((4, 4), bool)
    left[:, :10] = True
    top[:2] = True
    mask = Reference(PICTURE, masks=[left, top]).mask
    assert mask is not None
    assert mask.shape == (10, 20)
    assert mask[:5].all()
    assert mask[5:, :10].all()
    assert not mask[5:, 10:].any()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ("nowhere.jpg", "the picture nowhere.jpg cannot be read: No such file"),
        (b"no picture at all", "not a picture of a supported format"),
        (encoded(Image.new("1", (10_001, 10_000)), "PNG"), "make it smaller first"),
        (Image.new("1", (10_001, 10_000)), "10001x10000 is too large: make it smaller"),
        (encoded(Image.fromarray(PICTURE), "PNG")[:-40], "the file ends before the picture does"),
        (np.zeros((8, 8, 4), np.uint8), r"shape \(8, 8, 4\).*give the file or a Pillow picture"),
        (np.zeros((8, 8, 3)), r"type float64, not \(H, W, 3\) uint8"),
        ([3], "not a int"),
        ([], "has no image"),
    ],
)
def test_a_picture_that_cannot_be_used_names_its_reference_and_the_remedy(images, message):
    with pytest.raises(Refused, match="the reference 'cat'") as error:
        Reference(images, "cat")
    assert re.search(message, str(error.value)), error.value


def test_boxes_in_pixels_are_refused_with_what_to_do():
    with pytest.raises(Refused, match="divide pixels by the width and height"):
        Reference(PICTURE, "cat", boxes=(10, 20, 300, 400))
    with pytest.raises(Refused, match="four numbers"):
        Reference(PICTURE, "cat", boxes=[(0.1, 0.2, 0.3)])
    with pytest.raises(Refused, match="'face', or None"):
        Reference(PICTURE, "cat", crop="head")
