"""The one decoder: upright sRGB whatever the file, and a reason for whatever is no picture."""

import io

import numpy as np
import pytest
from drawing import encoded, gradient
from PIL import Image, ImageCms

from refloom.schemas import headers, pictures
from refloom.schemas.errors import Rejected
from refloom.schemas.masks import orient_pixels

PIXELS = gradient(31, 23)
IMAGE = Image.fromarray(PIXELS)


def reason_of(data: bytes) -> str:
    with pytest.raises(Rejected) as caught:
        pictures.decode(data)
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_decode_to_the_pixels_that_were_saved(kind):
    data = encoded(IMAGE, kind)
    assert np.array_equal(pictures.decode(data), PIXELS)
    assert headers.looks_like_picture(data[:16])
    assert headers.read(data).format in (kind, "PPM")


def test_jpeg_decodes_to_what_pillow_decodes():
    data = encoded(IMAGE, "JPEG", quality=85)
    assert np.array_equal(pictures.decode(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_turns_the_picture_upright_and_the_header_says_its_size(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "JPEG" else {}
    data = encoded(IMAGE, kind, exif=exif, **options)
    header, pixels = headers.read(data), pictures.decode(data)
    assert header.orientation == orientation
    assert pixels.shape == (header.height, header.width, 3)
    assert (header.stored_width, header.stored_height) == IMAGE.size
    assert np.abs(pixels.astype(int) - orient_pixels(PIXELS, orientation)).mean() < 3


def test_an_illegal_orientation_is_no_orientation():
    exif = Image.Exif()
    exif[0x0112] = 99
    assert headers.read(encoded(IMAGE, "JPEG", exif=exif)).orientation == 1


def test_transparency_is_laid_on_white():
    image = IMAGE.convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 31).astype(np.uint8), (23, 1))))
    pixels = pictures.decode(encoded(image, "PNG"))
    assert (pixels[:, 0] == 255).all()
    assert np.array_equal(pixels[:, -1], PIXELS[:, -1])


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "RGBA", "PA", "I;16", "LAB", "YCbCr"])
def test_every_mode_becomes_three_channels(mode):
    if mode == "I;16":
        image = Image.fromarray((PIXELS[..., 0].astype(np.uint16) << 8) | 255)
    elif mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        image = ImageCms.applyTransform(IMAGE, transform)
    else:
        image = IMAGE.convert("P").convert("PA") if mode == "PA" else IMAGE.convert(mode)
    pixels = pictures.decode(encoded(image, "TIFF" if mode in ("CMYK", "LAB", "YCbCr", "PA") else "PNG"))
    assert pixels.shape == (23, 31, 3)
    assert pixels.dtype == np.uint8
    if mode == "I;16":
        assert np.array_equal(pixels[..., 0], PIXELS[..., 0])
    if mode == "LAB":
        assert np.abs(pixels.astype(int) - PIXELS).mean() < 4


def test_a_wide_gamut_profile_is_converted_and_srgb_is_left_alone():
    plain = encoded(IMAGE, "JPEG", quality=95)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pictures.decode(encoded(IMAGE, "JPEG", quality=95, icc_profile=srgb)), pictures.decode(plain))
    swapped = bytearray(srgb)  # red and blue primaries exchanged: a profile that visibly matters
    red, blue = swapped.find(b"rXYZ"), swapped.find(b"bXYZ")
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    other = bytes(swapped).replace(b"s\0R\0G\0B", b"o\0t\0h\0r")
    pixels = pictures.decode(encoded(IMAGE, "JPEG", quality=95, icc_profile=other))
    assert np.abs(pixels.astype(int) - pictures.decode(plain)).mean() > 5


def test_a_damaged_profile_is_ignored():
    data = encoded(IMAGE, "PNG", icc_profile=b"not a profile" * 20)
    assert np.array_equal(pictures.decode(data), PIXELS)


def test_mpo_gives_its_first_picture():
    file = io.BytesIO()
    IMAGE.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", IMAGE.size, "red")], quality=95)
    assert np.abs(pictures.decode(file.getvalue()).astype(int) - PIXELS).mean() < 4


def test_an_exif_thumbnail_does_not_hide_a_cut():
    thumbnail = encoded(IMAGE.resize((8, 8)), "JPEG")
    data = encoded(IMAGE, "JPEG", quality=95)
    segment = b"Exif\0\0" + thumbnail
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    assert np.array_equal(pictures.decode(with_thumbnail), pictures.decode(data))
    assert reason_of(with_thumbnail[:-30]) == "truncated"


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_more_than_one_picture_is_rejected(kind):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    assert reason_of(file.getvalue()) == "animated"


def test_a_bomb_is_seen_in_its_header():
    bomb = encoded(Image.new("1", (20_000, 20_000)), "PNG")
    assert len(bomb) < 200_000
    assert reason_of(bomb) == "too_many_pixels"
    assert reason_of(encoded(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4")) == "too_many_pixels"


@pytest.mark.parametrize("cut", [1, 3, 30, 400])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_cut_file_is_truncated(kind, cut):
    assert reason_of(encoded(IMAGE.resize((200, 160)), kind)[:-cut]) == "truncated"


@pytest.mark.parametrize(
    "data", [b"", b"x", b"<html>404</html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFFxxxxWEBP"]
)
def test_what_is_no_picture_says_so(data):
    assert reason_of(data) in ("not_an_image", "truncated")


def test_every_file_of_the_zoo_decodes_or_says_why(shared):
    truth = {}
    for line in (shared / "nasty/EXPECT.tsv").read_text().splitlines()[1:]:
        file, _, what, *_, observed = line.split("\t")
        truth[file] = (what, observed)
    seen = 0
    for file, (what, observed) in truth.items():
        if not file.startswith("images/") or file.endswith(".tar"):
            continue
        seen += 1
        data = (shared / "nasty" / file).read_bytes()
        loads = observed.endswith(" loads")
        single = "frames=1 " in observed
        if loads and single:
            header = headers.read(data)
            assert pictures.decode(data, header).shape == (header.height, header.width, 3), f"{file} ({what})"
        else:
            assert reason_of(data), f"{file} ({what}) is no single picture"
    assert seen > 80
