"""Encoded images of every kind → upright RGB, compared with Pillow; and every way in which a file can be wrong."""

import random
import struct
import zlib
from contextlib import suppress
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageOps

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.decode import decode_image
from modelpool_worker.imaging.encoded import encoded_image
from modelpool_worker.imaging.headers import MAX_RATIO, read_header

FORMATS = ["PNG", "JPEG", "WEBP"]
ANY = 10**6


def noise(width=31, height=20, channels=3):
    made = np.random.default_rng(width * height + channels).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return made if channels > 1 else made[:, :, 0]


def encode(image, kind="PNG", **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(data, **options):
    decoded = decode_image(data, **({"max_pixels": ANY} | options))
    assert decoded.mode == "RGB"
    return np.asarray(decoded)


def refused(data, *, max_pixels=ANY):
    """Return the sentence of a refusal, which is ours."""
    with pytest.raises(InvalidRequestError) as caught:
        decode_image(data, max_pixels=max_pixels, param="input")
    assert caught.value.param == "input"
    assert "expected" in str(caught.value) or "save it anew" in str(caught.value)
    return str(caught.value)


RGB = Image.fromarray(noise())


@pytest.mark.parametrize("kind", FORMATS)
def test_colour_is_what_pillow_decodes(kind):
    data = encode(RGB, kind)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 2}, {"optimize": True}], ids=str)
def test_all_sorts_of_jpeg(options):
    data = encode(RGB, "JPEG", **options)
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_modes_without_alpha_become_rgb(mode):
    image = RGB.convert(mode)
    np.testing.assert_array_equal(pixels(encode(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparent_pixels_lie_on_white(kind):
    image = Image.fromarray(noise(channels=4))
    data = encode(image, kind, lossless=True, exact=True)
    colour, alpha = noise(channels=4)[..., :3].astype(float), noise(channels=4)[..., 3:] / 255
    assert np.abs(pixels(data) - (colour * alpha + 255 * (1 - alpha))).max() <= 1


def test_grey_with_alpha_and_a_transparent_colour_lie_on_white_too():
    grey = Image.merge("LA", [Image.new("L", (4, 4), 9), Image.new("L", (4, 4), 0)])
    assert (pixels(encode(grey)) == 255).all()
    for image, transparent in (
        (Image.new("RGB", (4, 4), (1, 2, 3)), (1, 2, 3)),
        (Image.new("L", (4, 4), 7), 7),
        (Image.new("P", (4, 4), 0), 0),
        (Image.new("P", (4, 4), 0), b"\0"),
    ):
        assert (pixels(encode(image, transparency=transparent)) == 255).all()


def test_16_bit_grey_keeps_its_upper_8_bits():
    values = np.array([[0, 255, 256, 32_768, 65_535]], dtype=np.uint16).repeat(3, axis=0)
    assert pixels(encode(Image.fromarray(values)))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_cmyk_becomes_rgb():
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert np.abs(pixels(encode(image, "JPEG")).astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_upright(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(RGB, kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(BytesIO(data))).convert("RGB")
    np.testing.assert_array_equal(pixels(data), np.asarray(upright))


def test_an_orientation_in_the_other_byte_order_is_read():
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = encode(RGB, "JPEG", exif=exif)
    assert pixels(data).shape == (RGB.width, RGB.height, 3)
    np.testing.assert_array_equal(pixels(data), np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))))


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01", b"Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_an_orientation_that_cannot_be_read_is_ignored(exif):
    np.testing.assert_array_equal(pixels(encode(RGB, "JPEG", exif=exif)), pixels(encode(RGB, "JPEG")))


def test_of_a_jpeg_with_several_pictures_the_first_is_taken():
    other = Image.new("RGB", RGB.size)
    data = encode(RGB, "MPO", save_all=True, append_images=[other])
    np.testing.assert_array_equal(pixels(data), np.asarray(Image.open(BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_animations_are_refused(kind):
    data = encode(RGB, kind, save_all=True, append_images=[Image.new("RGB", RGB.size)])
    assert "animated" in refused(data)


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "PDF", "EPS", "TGA", "JPEG2000", "AVIF"])
def test_other_kinds_are_refused(kind):
    assert "unknown kind" in refused(encode(RGB, kind))


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF\0\0\0\0WAVE", b"/etc/passwd", b"BM"],
    ids=repr,
)
def test_what_is_no_image_is_refused(data):
    assert "unknown kind" in refused(data)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_is_cut_short_anywhere_is_refused(kind):
    data = encode(RGB, kind)
    # a JPEG's last two bytes, and a PNG's last four, say nothing of the picture
    for length in range(len(data) - 5):
        refused(data[:length])


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_is_decoded_or_refused_and_nothing_else(kind):
    seed = random.randrange(10**9)
    print("seed", seed)
    chance = random.Random(seed)
    data = encode(RGB, kind)
    for _ in range(400):
        broken = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        with suppress(InvalidRequestError):
            decode_image(bytes(broken), max_pixels=ANY)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_number_of_pixels_is_bounded_to_the_last_one(kind):
    data = encode(RGB, kind)
    width, height = RGB.size
    assert pixels(data, max_pixels=width * height).shape == (height, width, 3)
    assert f"{width} x {height} pixels; expected at most {width * height - 1}" in refused(
        data, max_pixels=width * height - 1
    )


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width, height, *more, ihdr=b"\x08\x02\0\0\0"):
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">II", width, height) + ihdr)
    return b"".join([start, *more, chunk(b"IDAT", zlib.compress(b"\0")), chunk(b"IEND", b"")])


def jpeg(width, height):
    data = bytearray(encode(RGB, "JPEG"))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def webp(width, height):
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\x40\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + size + encode(RGB, "WEBP")[12:]


@pytest.mark.parametrize(
    "data",
    [png(50_000, 50_000), png(2**31 - 1, 2**31 - 1), jpeg(65_535, 65_535), webp(2**24, 2**24)],
    ids=["png", "largest png", "jpeg", "webp"],
)
def test_a_small_file_that_promises_a_huge_picture_is_refused_by_its_header(data):
    assert "pixels; expected at most 100000000 in all" in refused(data, max_pixels=100_000_000)


@pytest.mark.parametrize("data", [png(0, 5), png(5, 0), jpeg(5, 0)], ids=["no width", "no height", "JPEG"])
def test_a_picture_without_pixels_is_refused(data):
    assert "damaged" in refused(data)


def test_a_picture_with_fewer_pixels_than_promised_is_refused():
    assert "damaged" in refused(png(500, 500))
    assert "damaged" in refused(webp(500, 500))


@pytest.mark.parametrize("turned", [False, True], ids=["wide", "high"])
def test_one_side_may_not_be_many_times_the_other(turned):
    sizes = [(MAX_RATIO * 3, 3), (MAX_RATIO * 3 + 1, 3)]
    fits, too_long = (Image.new("RGB", size[::-1] if turned else size) for size in sizes)
    assert pixels(encode(fits)).size == MAX_RATIO * 27
    assert f"expected no side more than {MAX_RATIO} times the other" in refused(encode(too_long))


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png(9, 9, chunk(b"tEXt", b"a\0b") * 1100), id="PNG of 1100 texts"),
        pytest.param(png(9, 9, chunk(b"IDAT", b"") * 66_000), id="PNG of 66000 pieces"),
        pytest.param(b"\xff\xd8" + b"\xff\xfe\0\x02" * 1100 + encode(RGB, "JPEG")[2:], id="JPEG of 1100 comments"),
        pytest.param(
            encode(RGB, "JPEG", progressive=True)[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\0\0" * 60 + b"\xff\xd9",
            id="JPEG of 60 scans",
        ),
    ],
)
def test_a_file_of_parts_without_number_is_refused(data):
    assert "far more parts" in refused(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xd8\xff" + bytes(8_000_000), id="JPEG without a marker"),
        pytest.param(b"\xff\xd8" + b"\xff" * 100_000, id="JPEG of filling bytes"),
        pytest.param(b"\xff\xd8\xff\xd9" * 1000, id="JPEG that ends at once"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), id="PNG without a header"),
        pytest.param(png(9, 9, chunk(b"IHDR", bytes(13))), id="PNG with two headers"),
        pytest.param(png(9, 9, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))), id="PNG text of 100 MB"),
        pytest.param(b"RIFF\x40\0\0\0WEBP" + b"ALPH" + bytes(40), id="WebP without a picture"),
        pytest.param(b"RIFF\x40\0\0\0WEBPVP8X", id="WebP cut in its header"),
    ],
)
def test_a_file_of_nonsense_is_refused(data):
    assert "damaged" in refused(data)


def test_a_header_says_how_much_work_an_image_is_before_it_is_decoded():
    for kind in FORMATS:
        data = encode(RGB, kind)
        header = read_header(data, param="input")
        assert (header.kind, header.width, header.height) == (kind.lower(), *RGB.size)
        image = encoded_image(data, max_pixels=ANY, param="input")
        assert (image.data, len(image)) == (data, RGB.width * RGB.height)
    with pytest.raises(InvalidRequestError, match="expected at most 9 in all"):
        encoded_image(encode(RGB), max_pixels=9, param="input")
