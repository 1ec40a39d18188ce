"""The loads, and the figures that come of them."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import Sample, Samples, Target
from bench.gateway import programs
from bench.gateway.contenders import DIRECT, HAPROXY, LITELLM, NGINX, OURS, STREAM, WHOLE, Contender
from bench.gateway.usage import cpu_seconds, peak_mib
from bench.place import Place
from bench.servers import Server
from bench.table import Table
from bench.wrk import post, write_bodies
from cluster.host import ClusterError

Numbers = dict[str, float]
STREAMS = 512
#: Twenty tokens a second, which is about how fast people read, for five seconds.
FRAMES, APART_MS = 100, 50
WARM_SECONDS = 1.0
#: 32 clients that rest for 6 ms on average ask about 4,500 times a second, which leaves all but LiteLLM time to spare.
REST_MS = 12
PROMPT = "How old is the bridge over the river, and who built it? " * 12
#: What is shown of each measurement.
TITLES = {
    "per_second": "requests/s",
    "cpu_us": "µs CPU",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "whole": "whole streams",
    "first_p50_ms": "first frame ms",
    "frame_p50_ms": "frame p50 ms",
    "frame_p99_ms": "frame p99 ms",
    "rss_mb": "MiB",
}

TARGETS = (
    Target("rps_32", "requests a second on one core, 32 concurrent", least=8000),
    Target("added_p50_ms_1", "p50 more than without a proxy, 1 concurrent, ms", most=0.3),
    Target("added_p99_ms_32", "p99 more than without a proxy, 32 concurrent as fast as they can, ms", most=2.0),
    Target("added_p99_ms_32_rested", "the same where each of the 32 rests for 0 to 12 ms, ms", most=2.0),
    Target("ttft_added_ms", "first frame later than without a proxy, 1 concurrent, ms", most=1.0),
    Target("streams_without_loss", f"of {STREAMS} concurrent streams, those without a lost frame", least=STREAMS),
    Target("ratio_litellm", "requests a second: ours / LiteLLM, 32 concurrent", least=10),
)


@dataclass(frozen=True)
class Stage:
    """What loads are made with."""

    place: Place
    programs: Path

    def requests(
        self, contender: Contender, server: Server | None, connections: int, seconds: float, rest_ms: int = 0
    ) -> Numbers:
        """Small requests that are answered at once."""
        bodies = write_bodies([programs.chat(WHOLE, PROMPT)], self.place.scratch / "bodies.jsonl")
        post(contender.whole_url, bodies, connections=connections, seconds=WARM_SECONDS, rest_ms=rest_ms)
        before = cpu_seconds(server.pid) if server else 0.0
        seen = asdict(post(contender.whole_url, bodies, connections=connections, seconds=seconds, rest_ms=rest_ms))
        if server:  # what it takes of its core, whoever else wants that core
            seen["cpu_us"] = (cpu_seconds(server.pid) - before) * 1e6 / seen["requests"]
        return seen

    def streams(self, contender: Contender, clients: int, streams: int, frames: int, apart_ms: int) -> Numbers:
        """Streams; where some are not whole the reason is said, and the numbers are of what came."""
        seen = programs.stream(
            self.programs,
            contender.stream_url,
            STREAM,
            clients=clients,
            streams=streams,
            frames=frames,
            apart_ms=apart_ms,
        )
        if reason := seen.pop("reason"):
            print(f"    {contender.name}: {streams - seen['whole']} streams are not whole; one {reason}", flush=True)
        numbers: Numbers = seen
        return numbers


@dataclass(frozen=True)
class Load:
    """A load by name."""

    name: str
    put: Callable[[Stage, Contender, Server | None], Numbers]
    #: those who are measured in the first round only
    once: frozenset[str] = frozenset()


REQUESTS = (
    Load("1", lambda stage, on, server: stage.requests(on, server, 1, 3)),
    Load("32", lambda stage, on, server: stage.requests(on, server, 32, 4)),
    Load("32 rested", lambda stage, on, server: stage.requests(on, server, 32, 3, REST_MS)),
)
STREAMED = (
    Load("first frame", lambda stage, on, _: stage.streams(on, 1, 200, 1, 5)),
    Load(
        f"{STREAMS} streams",
        lambda stage, on, _: stage.streams(on, STREAMS, STREAMS, FRAMES, APART_MS),
        once=frozenset({LITELLM}),  # it takes many times as long as the others
    ),
)
SUBJECTS = {"requests": REQUESTS, "streams": STREAMED}


def rounds(
    stage: Stage, contenders: Sequence[tuple[Contender, Server | None]], loads: Sequence[Load], count: int, table: Table
) -> list[Sample]:
    """Measure all of them under every load, so often. Raises `ClusterError` where a measurement could not be made.

    The order turns from round to round: nobody is always the first after somebody else.
    """
    samples: list[Sample] = []
    for number in range(count):
        turn = number % len(contenders)
        for load in loads:
            for contender, server in (*contenders[turn:], *contenders[:turn]):
                if number and contender.name in load.once:
                    continue
                try:
                    numbers = _put(stage, load, contender, server)
                except ClusterError as error:
                    raise ClusterError(f"{contender.name}: {error}") from error
                samples.append(Sample(number, contender.name, load.name, numbers))
                table.row(number, contender.name, load.name, numbers)
    return samples


def _put(stage: Stage, load: Load, contender: Contender, server: Server | None) -> Numbers:
    if server is None:
        return load.put(stage, contender, None)
    with server.running():
        return {**load.put(stage, contender, server), "rss_mb": peak_mib(server.pid)}


def figures(samples: Samples) -> dict[str, Any]:
    """The figures of the issue and those beside them; of several rounds the median."""
    streams = STREAMED[-1].name
    whole = [each.numbers["whole"] for each in samples.all if (each.who, each.load) == (OURS, streams)]
    memory = [each.numbers["rss_mb"] for each in samples.all if each.who == OURS]

    def added(number: str, load: str, who: str = OURS) -> float | None:
        return samples.difference(number, (who, load), (DIRECT, load))

    def ratio(peer: str) -> float | None:
        return samples.ratio("per_second", (OURS, "32"), (peer, "32"))

    found: dict[str, Any] = {
        "rps_32": samples.median(OURS, "32", "per_second"),
        "added_p50_ms_1": added("p50_ms", "1"),
        "added_p99_ms_32": added("p99_ms", "32"),
        "added_p99_ms_32_rested": added("p99_ms", "32 rested"),
        "ttft_added_ms": added("first_p50_ms", "first frame"),
        "streams_without_loss": min(whole, default=None),
        "frame_added_p99_ms": added("frame_p99_ms", streams),
        "ratio_litellm": ratio(LITELLM),
        "ratio_nginx": ratio(NGINX),
        "ratio_haproxy": ratio(HAPROXY),
        "ratio_no_proxy": ratio(DIRECT),
        "cpu_us_32": samples.median(OURS, "32", "cpu_us"),
        "rss_mb": max(memory, default=None),
    }
    found["added_by_peers"] = {
        who: {
            "p50_ms_1": added("p50_ms", "1", who),
            "p99_ms_32": added("p99_ms", "32", who),
            "p99_ms_32_rested": added("p99_ms", "32 rested", who),
            "ttft_ms": added("first_p50_ms", "first frame", who),
            "frame_p99_ms": added("frame_p99_ms", streams, who),
        }
        for who in (LITELLM, HAPROXY, NGINX)
    }
    found["medians"] = samples.medians()
    return found
