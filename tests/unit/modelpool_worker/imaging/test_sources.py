"""What a client writes for an image, and what is made of it: bytes, a URL taken apart, or a refusal."""

import base64

import pytest

from modelpool_worker.errors import InvalidRequestError
from modelpool_worker.imaging.addresses import parse_networks
from modelpool_worker.imaging.sources import (
    MAX_IMAGE_BYTES,
    MAX_URL_CHARS,
    ImageUrl,
    Origin,
    parse_hosts,
    parse_image,
)

BYTES = bytes(range(256))
BASE64 = base64.b64encode(BYTES).decode()


@pytest.mark.parametrize(
    "text",
    [
        BASE64,
        f"data:image/png;base64,{BASE64}",
        f"data:image/jpeg;base64,{BASE64}",
        f"data:image/webp;base64,{BASE64}",
        f"DATA:Image/PNG;Base64,{BASE64}",
    ],
    ids=["bare", "png", "jpeg", "webp", "capitals"],
)
def test_base64_and_data_urls_give_their_bytes(text):
    assert parse_image(text, param="input") == BYTES


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://a.example", Origin("https", "a.example", 443), "/"),
        ("HTTPS://A.Example/B?c=%20&d", Origin("https", "a.example", 443), "/B?c=%20&d"),
        ("http://a.example:8080/x#y?z", Origin("http", "a.example", 8080), "/x"),
        ("https://a.example?q", Origin("https", "a.example", 443), "/?q"),
        ("https://xn--bcher-kva.example/", Origin("https", "xn--bcher-kva.example", 443), "/"),
        ("https://93.184.215.14/", Origin("https", "93.184.215.14", 443), "/"),
        ("https://[2606:2800:21F::0:1]:444/", Origin("https", "2606:2800:21f::1", 444), "/"),
        ("https://a.example/http://b.example/", Origin("https", "a.example", 443), "/http://b.example/"),
        ("https://a.example/@b.example", Origin("https", "a.example", 443), "/@b.example"),
    ],
)
def test_a_url_is_taken_apart_into_one_form(url, origin, target):
    assert parse_image(url, param="input") == ImageUrl(origin, target)


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("https://user@a.example/", id="user name"),
        pytest.param("https://user:key@a.example/", id="password"),
        pytest.param("https://a.example:80@b.example/", id="what looks like a port"),
        pytest.param("https://a.example\\@b.example/", id="backslash"),
        pytest.param("https:\\\\a.example/", id="backslashes for slashes"),
        pytest.param("https:///a.example/", id="no host"),
        pytest.param("https://", id="nothing"),
        pytest.param("https:a.example", id="no slashes"),
        pytest.param("https://a.example./", id="dot at the end"),
        pytest.param("https://.a.example/", id="dot at the start"),
        pytest.param("https://a..example/", id="two dots"),
        pytest.param("https://-a.example/", id="hyphen at the start"),
        pytest.param("https://a_b.example/", id="underscore"),
        pytest.param(f"https://{'a' * 64}.example/", id="label too long"),
        pytest.param("https://bücher.example/", id="unicode"),
        pytest.param("https://a。example/", id="ideographic full stop"),
        pytest.param("https://ⓐ.example/", id="letter that becomes another"),
        pytest.param("https://a%2eexample/", id="percent in the host"),
        pytest.param("https://a.example /", id="space"),
        pytest.param("https://a.example/ b", id="space in the path"),
        pytest.param("https://a.example/\r\nX: y", id="line break"),
        pytest.param("https://a.example/\x00", id="zero"),
        pytest.param("https://a.example/ü", id="unicode in the path"),
        pytest.param("https://a.example:0/", id="port 0"),
        pytest.param("https://a.example:65536/", id="port too large"),
        pytest.param("https://a.example:/", id="port empty"),
        pytest.param("https://a.example:+80/", id="port with a sign"),
        pytest.param("https://a.example:٨٠/", id="port of other digits"),
        pytest.param("https://2130706433/", id="decimal address"),
        pytest.param("https://0x7f000001/", id="hexadecimal address"),
        pytest.param("https://0x7f.0.0.1/", id="hexadecimal part"),
        pytest.param("https://127.0.0.0x1/", id="hexadecimal last part"),
        pytest.param("https://0177.0.0.1/", id="octal address"),
        pytest.param("https://127.1/", id="short address"),
        pytest.param("https://127.0.0.1.5/", id="long address"),
        pytest.param("https://127.0.0.256/", id="part too large"),
        pytest.param("https://[::1/", id="bracket open"),
        pytest.param("https://::1/", id="no brackets"),
        pytest.param("https://[127.0.0.1]/", id="IPv4 in brackets"),
        pytest.param("https://[fe80::1%25eth0]/", id="zone"),
        pytest.param("https://[v1.x]/", id="address of the future"),
        pytest.param("https://a.example/" + "x" * MAX_URL_CHARS, id="too long"),
    ],
)
def test_a_url_that_others_may_read_differently_is_refused(url):
    refused(url)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("data:image/png;base64,", id="no bytes"),
        pytest.param(BASE64[:-1], id="padding missing"),
        pytest.param(BASE64 + "=", id="padding too long"),
        pytest.param(BASE64 + BASE64, id="more after the padding"),
        pytest.param(BASE64[:76] + "\n" + BASE64[76:], id="line break"),
        pytest.param(BASE64.replace("/", "_"), id="URL alphabet"),
        pytest.param("ü" + BASE64[1:], id="unicode"),
        pytest.param(f"data:image/gif;base64,{BASE64}", id="another kind"),
        pytest.param(f"data:image/svg+xml;base64,{BASE64}", id="SVG"),
        pytest.param(f"data:text/html;base64,{BASE64}", id="HTML"),
        pytest.param(f"data:;base64,{BASE64}", id="no kind"),
        pytest.param(f"data:image/png,{BASE64}", id="not base64"),
        pytest.param(f"data:image/png;charset=x;base64,{BASE64}", id="more parameters"),
        pytest.param(f" data:image/png;base64,{BASE64}", id="space before"),
        pytest.param("file:///etc/passwd", id="file"),
        pytest.param("ftp://a.example/", id="ftp"),
        pytest.param("gopher://a.example/", id="gopher"),
        pytest.param("//a.example/x.png", id="no scheme"),
        pytest.param("/etc/passwd", id="path"),
        pytest.param("swordfish.png", id="file name"),
    ],
)
def test_what_is_neither_an_image_nor_a_url_is_refused(text):
    refused(text)


def test_the_size_is_bounded_before_anything_is_decoded():
    assert parse_image("A" * 4, param="input") == bytes(3)
    longest = (MAX_IMAGE_BYTES + 2) // 3 * 4
    assert "too large" in refused("A" * (longest + 4))
    assert "too large" in refused("data:image/png;base64," + "!" * (longest + 4))


def refused(text):
    """Return the sentence of a refusal, which repeats nothing."""
    with pytest.raises(InvalidRequestError) as caught:
        parse_image(text, param="input")
    assert caught.value.param == "input"
    for said in ("passwd", "swordfish", "a.example", "127", "user"):
        assert said not in str(caught.value).replace("user name", "")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", []),
        (" , ", []),
        ("a.example", [Origin("https", "a.example", 443)]),
        ("A.example:8443, http://b.example", [Origin("https", "a.example", 8443), Origin("http", "b.example", 80)]),
        ("https://a.example,a.example", [Origin("https", "a.example", 443)]),
        ("http://[2606::1]:81", [Origin("http", "2606::1", 81)]),
    ],
)
def test_the_setting_lists_hosts(text, origins):
    assert parse_hosts(text) == frozenset(origins)


@pytest.mark.parametrize(
    "text",
    ["*.example", "a.example/path", "https://", "ftp://a.example", "u@a.example", "a b", "127.1", "a.example:0", "é"],
)
def test_a_wrong_entry_of_the_setting_is_an_error(text):
    with pytest.raises(ValueError, match=r"expected for example images\.example"):
        parse_hosts(f"b.example,{text}")


def test_the_setting_has_a_bound():
    assert len(parse_hosts(",".join(f"h{number}" for number in range(256)))) == 256
    with pytest.raises(ValueError, match="at most 256"):
        parse_hosts(",".join(f"h{number}" for number in range(257)))
    with pytest.raises(ValueError, match="at most 256"):
        parse_networks(",".join(f"10.0.{number}.0/24" for number in range(257)))


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "everything"])
def test_a_wrong_network_of_the_setting_is_an_error(text):
    assert [str(network) for network in parse_networks("10.0.0.0/8, 2001:db8::/32,1.2.3.4")] == [
        "10.0.0.0/8",
        "2001:db8::/32",
        "1.2.3.4/32",
    ]
    with pytest.raises(ValueError, match=r"expected for example 10\.0\.0\.0/8"):
        parse_networks(text)
