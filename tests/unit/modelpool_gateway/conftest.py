"""A gateway, a client and a worker, for whoever asks for them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from unit.modelpool_gateway.site import Site, Upstream, serving


@pytest.fixture
def gateway() -> Site:
    return Site()


@pytest.fixture
async def url(gateway) -> AsyncIterator[str]:
    async with gateway.serving() as url:
        yield url


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(trust_env=False) as client:
        yield client


@pytest.fixture
async def one(gateway) -> AsyncIterator[Upstream]:
    """One worker that is Ready."""
    upstream = Upstream()
    async with serving(upstream) as address:
        gateway.show("a", "Ready", address)
        yield upstream
