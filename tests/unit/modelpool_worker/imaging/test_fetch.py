"""What is fetched from where, against a server on loopback that only the test's own connector can reach."""

import asyncio
import ssl
import subprocess
from functools import partial

import pytest

from modelpool_worker.errors import InvalidRequestError, QueueFullError
from modelpool_worker.imaging.fetch import MAX_URLS
from modelpool_worker.imaging.sources import parse_image
from modelpool_worker.web.body_budget import BodyBudget
from unit.modelpool_worker.imaging.image_host import PICTURE, PUBLIC, answer, fetcher, network, plainly

URL = "http://images.example/cat.png?size=2"


async def dripping(writer):
    writer.write(answer(b"", Content_Length="20000000"))
    while not writer.is_closing():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0)


async def without_end(writer):
    writer.write(answer(b"", Content_Length=None, Transfer_Encoding="chunked"))
    while not writer.is_closing():
        writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
        await writer.drain()


def uncounted(_count):
    """Let every byte pass."""


async def get(net, url=URL, **more):
    return await fetcher(net, **more).fetch(parse_image(url, param="input"), param="input", take=uncounted)


async def refused(net, url=URL, **more):
    """Return the sentence of a refusal."""
    async with asyncio.timeout(20):
        with pytest.raises(InvalidRequestError) as caught:
            await get(net, url, **more)
    assert caught.value.status == 400
    assert caught.value.param == "input"
    for text in ("images.example", "cat.png", "127.0.0.1", PUBLIC):
        assert text not in str(caught.value)
    return str(caught.value)


async def test_an_image_of_a_listed_host_is_fetched_by_one_plain_request():
    async with network(partial(plainly, given=answer())) as net:
        assert await get(net) == PICTURE
    assert net.asked == [("images.example", 80)]
    assert net.connected == [(PUBLIC, 80)]
    (request,) = net.requests
    lines = request.decode().lower().split("\r\n")
    assert lines[0] == "get /cat.png?size=2 http/1.1"
    assert "host: images.example" in lines
    assert "accept-encoding: identity" in lines
    assert not [line for line in lines if line.startswith(("authorization", "cookie", "referer"))]


async def test_a_port_that_is_listed_is_connected_to_and_named():
    async with network(partial(plainly, given=answer())) as net:
        assert await get(net, "http://images.example:8080/", hosts="http://images.example:8080") == PICTURE
    assert net.connected == [(PUBLIC, 8080)]
    assert b"host: images.example:8080\r\n" in net.requests[0].lower()


async def test_nothing_is_fetched_unless_hosts_are_listed():
    async with network(partial(plainly, given=answer())) as net:
        assert "not fetched from URLs here" in await refused(net, hosts="")
    assert (net.asked, net.connected) == ([], [])


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        pytest.param("http://other.example/cat.png", "http://images.example", id="another host"),
        pytest.param("http://sub.images.example/", "http://images.example", id="a host below"),
        pytest.param("http://images.example.evil.example/", "http://images.example", id="a host that begins alike"),
        pytest.param("http://images.example:8080/", "http://images.example", id="a port that is not listed"),
        pytest.param("http://images.example/", "images.example", id="http where https is listed"),
        pytest.param("https://images.example/", "http://images.example", id="https where http is listed"),
        pytest.param("https://images.example:80/", "images.example", id="https at the port of http"),
        pytest.param("http://93.184.215.14/", "http://images.example", id="the address in place of the name"),
    ],
)
async def test_only_what_is_listed_is_even_looked_up(url, hosts):
    async with network(partial(plainly, given=answer())) as net:
        assert "at a host that nothing is fetched from" in await refused(net, url, hosts=hosts)
    assert (net.asked, net.connected) == ([], [])


PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.1.2.3",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:10.0.0.1",
    "::ffff:93.184.215.14",
    "::93.184.215.14",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "not an address",
]


@pytest.mark.parametrize("address", PRIVATE)
async def test_an_address_that_is_not_public_is_never_connected_to(address):
    async with network(partial(plainly, given=answer()), [address]) as net:
        assert "expected a public one" in await refused(net)
    assert net.connected == []


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "172.32.0.1", "2606:2800:21f:cb07::1"])
async def test_a_public_address_is_connected_to(address):
    async with network(partial(plainly, given=answer()), [address]) as net:
        assert await get(net) == PICTURE
    assert net.connected == [(address, 80)]


@pytest.mark.parametrize("place", [0, 1], ids=["first", "last"])
async def test_a_name_with_one_private_address_among_public_ones_is_refused(place):
    addresses = [PUBLIC]
    addresses.insert(place, "10.0.0.1")
    async with network(partial(plainly, given=answer()), addresses) as net:
        assert "expected a public one" in await refused(net)
    assert net.connected == []


@pytest.mark.parametrize(
    ("address", "networks"),
    [(PUBLIC, "10.0.0.0/8, 93.184.0.0/16"), ("2606:2800:21f:cb07::1", "2606:2800::/32")],
    ids=["IPv4", "IPv6"],
)
async def test_networks_of_the_setting_are_refused_too(address, networks):
    async with network(partial(plainly, given=answer()), [address]) as net:
        assert "expected a public one" in await refused(net, refused=networks)
    assert net.connected == []


async def test_a_name_is_looked_up_once_so_another_answer_later_changes_nothing():
    async with network(partial(plainly, given=answer())) as net:
        answers = iter([[PUBLIC], ["127.0.0.1"]])

        async def resolve(host, port):
            net.asked.append((host, port))
            return next(answers)

        net.resolve = resolve
        assert await get(net) == PICTURE
        assert (len(net.asked), net.connected) == (1, [(PUBLIC, 80)])
        # and the next request looks again, and sees the other answer
        assert "expected a public one" in await refused(net)
    assert len(net.connected) == 1


async def test_the_next_checked_address_is_tried_where_one_does_not_answer():
    async with network(partial(plainly, given=answer()), ["93.184.215.13", PUBLIC]) as net:
        net.dead.add("93.184.215.13")
        assert await get(net) == PICTURE
    assert net.connected == [("93.184.215.13", 80), (PUBLIC, 80)]


async def test_a_listed_address_is_not_looked_up_and_must_be_public_all_the_same():
    async with network(partial(plainly, given=answer())) as net:
        assert await get(net, f"http://{PUBLIC}/", hosts=f"http://{PUBLIC}") == PICTURE
        assert "expected a public one" in await refused(net, "http://10.0.0.1/", hosts="http://10.0.0.1")
        assert "expected a public one" in await refused(net, "http://[::1]/", hosts="http://[::1]")
    assert (net.asked, net.connected) == ([], [(PUBLIC, 80)])


async def test_a_name_that_has_no_address_or_cannot_be_looked_up():
    async with network(partial(plainly, given=answer()), []) as net:
        assert "no whole answer" in await refused(net)

        async def resolve(_host, _port):
            raise OSError("Name or service not known: images.example")

        net.resolve = resolve
        assert "no whole answer" in await refused(net)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        pytest.param(answer(status="302 Found", Location="http://10.0.0.1/"), "not followed", id="redirect"),
        pytest.param(answer(status="308 Permanent Redirect", Location="/x"), "not followed", id="redirect to itself"),
        pytest.param(answer(status="404 Not Found"), "status 404", id="not found"),
        pytest.param(answer(status="206 Partial Content"), "status 206", id="a part"),
        pytest.param(answer(status="101 Switching Protocols"), "no whole answer", id="another protocol"),
        pytest.param(answer(Content_Type="text/html"), "did not say that it is an image", id="HTML"),
        pytest.param(answer(Content_Type="image/svg+xml"), "did not say that it is an image", id="SVG"),
        pytest.param(answer(Content_Type=None), "did not say that it is an image", id="no content type"),
        pytest.param(answer(Content_Encoding="gzip"), "compressed once more", id="compressed"),
        pytest.param(answer(bytes(2001)), "too large", id="too large by Content-Length"),
        pytest.param(answer(bytes(2001), Content_Length=None), "too large", id="too large without Content-Length"),
        pytest.param(answer(Content_Length="701"), "no whole answer", id="cut short"),
        pytest.param(answer(Content_Length="-1"), "no whole answer", id="a length that is none"),
        pytest.param(b"", "no whole answer", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no whole answer", id="not HTTP"),
        pytest.param(answer(X="y" * 300_000), "no whole answer", id="headers without end"),
    ],
)
async def test_an_answer_that_is_no_image_of_allowed_size_is_refused(given, sentence):
    async with network(partial(plainly, given=given)) as net:
        assert sentence in await refused(net, max_bytes=2000)
    assert len(net.requests) == 1


@pytest.mark.parametrize("size", [2000, 0])
async def test_an_answer_of_exactly_the_limit_is_taken(size):
    async with network(partial(plainly, given=answer(bytes(size)))) as net:
        assert len(await get(net, max_bytes=2000)) == size


async def test_a_stream_without_end_is_cut_at_the_limit():
    async with network(without_end) as net:
        assert "too large" in await refused(net, max_bytes=300_000)


async def test_a_server_that_drips_byte_by_byte_is_cut_at_the_deadline():
    async with network(dripping) as net:
        assert "no whole answer within 0.3 s" in await refused(net, seconds=0.3)
    assert len(net.requests) == 1


async def test_a_name_server_that_never_answers_is_left_at_the_deadline():
    async with network(partial(plainly, given=answer())) as net:
        net.resolve = lambda _host, _port: asyncio.get_running_loop().create_future()
        assert "no whole answer within 0.1 s" in await refused(net, seconds=0.1)


async def test_no_proxy_of_the_environment_is_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://10.0.0.1:3128")
    async with network(partial(plainly, given=answer())) as net:
        assert await get(net) == PICTURE
    assert net.connected == [(PUBLIC, 80)]


async def test_the_images_of_a_request_share_its_bytes_and_come_once_each():
    urls = [parse_image(f"http://images.example/{number}", param="input") for number in (1, 2, 1)]
    async with network(partial(plainly, given=answer())) as net:
        fetched = await fetcher(net, max_bytes=1400).fetch_all(urls, param="input", take=uncounted)
        assert fetched == dict.fromkeys(urls, PICTURE)
        assert len(net.requests) == 2
        with pytest.raises(InvalidRequestError, match="too large"):
            await fetcher(net, max_bytes=1399).fetch_all(urls, param="input", take=uncounted)
    assert await fetcher(net).fetch_all([], param="input", take=uncounted) == {}


async def test_every_byte_of_a_request_s_images_is_counted_before_it_is_kept():
    urls = [parse_image(f"http://images.example/{number}", param="input") for number in (1, 2)]
    budget = BodyBudget(10)  # one request alone may hold more
    async with network(partial(plainly, given=answer())) as net:
        with budget.hold() as held:
            await fetcher(net).fetch_all(urls, param="input", take=held.take)
            assert budget.bytes == 2 * len(PICTURE)
    assert budget.bytes == 0


async def test_where_others_hold_the_memory_an_image_is_not_read_to_its_end():
    """The server never ends, and its own limit is far away: only the budget can have ended it."""
    budget = BodyBudget(300_000)
    async with network(without_end) as net, asyncio.timeout(20):
        with budget.hold() as other, budget.hold() as held:
            other.take(100_000)
            reading = fetcher(net, max_bytes=2**40, seconds=60)
            with pytest.raises(QueueFullError) as full:
                await reading.fetch(parse_image(URL, param="input"), param="input", take=held.take)
            assert full.value.headers["Retry-After"] == "1"
            assert budget.bytes <= 300_000
        assert budget.bytes == 0


async def test_a_request_with_too_many_urls_is_refused_before_any_is_fetched():
    urls = [parse_image(f"http://images.example/{number}", param="input") for number in range(MAX_URLS + 1)]
    async with network(partial(plainly, given=answer())) as net:
        with pytest.raises(InvalidRequestError, match=f"{MAX_URLS + 1} URLs; expected at most {MAX_URLS}"):
            await fetcher(net).fetch_all(urls, param="input", take=uncounted)
    assert net.asked == []


async def test_only_so_many_are_fetched_at_once_and_one_that_is_given_up_makes_room():
    waiting, release = asyncio.Queue(), asyncio.Event()

    async def held(writer):
        waiting.put_nowait(None)
        await release.wait()
        await plainly(writer, given=answer())

    async with network(held) as net, asyncio.timeout(20):
        made = fetcher(net)
        url = parse_image(URL, param="input")
        tasks = [asyncio.create_task(made.fetch(url, param="input", take=uncounted)) for _ in range(10)]
        for _ in range(8):
            await waiting.get()
        assert len(net.connected) == 8
        tasks[0].cancel()
        await waiting.get()
        assert len(net.connected) == 9
        release.set()
        assert await asyncio.gather(*tasks[1:]) == [PICTURE] * 9


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Return a certificate for images.example, signed by itself."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=images.example -keyout key.pem -out cert.pem"
    names = ["-addext", "subjectAltName=DNS:images.example"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder


async def test_https_asks_for_the_name_and_believes_only_its_certificate(authority):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    named = []
    server.sni_callback = lambda _socket, name, _context: named.append(name)
    trusting = ssl.create_default_context(cafile=str(authority / "cert.pem"))
    async with network(partial(plainly, given=answer()), context=server) as net:
        hosts = "images.example, other.example"
        assert await get(net, "https://images.example/", hosts=hosts, context=trusting) == PICTURE
        assert (named, net.connected) == (["images.example"], [(PUBLIC, 443)])
        # the same server under another name, and by a context that does not know who signed
        assert "no whole answer" in await refused(net, "https://other.example/", hosts=hosts, context=trusting)
        assert "no whole answer" in await refused(net, "https://images.example/", hosts=hosts)
    assert len(net.requests) == 1
