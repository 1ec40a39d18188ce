"""Many requests through gateways while all that can go away does: what each client was answered."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp

#: A client that was cut off by a gateway that died asks again, as every client does; a request is that one answer.
_TIMEOUT = aiohttp.ClientTimeout(total=180, sock_connect=5)


@dataclass
class Tally:
    """What came of all requests: exactly one entry for each of them."""

    answers: Counter[str] = field(default_factory=Counter)
    #: answers that were cut, or never came, of which gateway
    cut: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def ended(self) -> int:
        """How many requests have ended, one way or the other."""
        return sum(self.answers.values()) + sum(self.cut.values())


class Storm:
    """Clients that ask one after the other until so many requests are spent; each knows what it must be answered."""

    def __init__(self, model: str, expected: dict[str, Sequence[float]], requests: int, clients: int) -> None:
        self._model, self._expected = model, list(expected.items())
        self._left, self._clients = requests, clients
        self.by_gateway: dict[str, Tally] = {}

    async def run(self, gateways: Sequence[str]) -> None:
        """Ask all gateways at once, each by as many clients."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=False) as session:
            await asyncio.gather(
                *(self._client(session, gateways[number % len(gateways)], number) for number in range(self._clients))
            )

    async def _client(self, session: aiohttp.ClientSession, gateway: str, number: int) -> None:
        tally = self.by_gateway.setdefault(gateway, Tally())
        turn = number
        while self._left > 0:
            self._left -= 1
            turn += 7
            text, vector = self._expected[turn % len(self._expected)]
            began = time.monotonic()
            try:
                async with session.post(
                    f"{gateway}/v1/embeddings", json={"model": self._model, "input": text}
                ) as answer:
                    body = await answer.json()
                    tally.answers[str(answer.status)] += 1
                    if answer.status == 200 and not _same(body["data"][0]["embedding"], vector):
                        tally.wrong.append(text)
                    if answer.status != 200:
                        tally.wrong.append(f"{answer.status} {body['error']['code']}: {body['error']['message']}")
            except aiohttp.ClientError as error:
                tally.cut[type(error).__name__] += 1
                await asyncio.sleep(0.2)
            tally.slowest = max(tally.slowest, time.monotonic() - began)


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether it is the vector of the same text: batched with others it may differ in its last digits."""
    return sum(a * b for a, b in zip(one, other, strict=True)) > 0.999
