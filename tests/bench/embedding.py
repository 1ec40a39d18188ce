"""Text embedding: the worker, infinity-emb, LitServe and `SentenceTransformer.encode` with the same model and texts."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import ours, peer_environments
from bench.figures import Sample, Samples, Target, worst
from bench.place import Place
from bench.references import Reference, started_reference
from bench.servers import Program, Server, started
from bench.table import Table
from bench.texts import common_words, sentences
from bench.wrk import ensure_wrk, post, write_bodies
from cluster.host import ClusterError, free_ports

TEXTS = 1024
BATCH = 64
ONE_BY_ONE = 150
LEAST_COSINE = 0.99
WARM_SECONDS = 1.0

TARGETS = (
    Target("embedding.ratio_infinity_32_same_dtype", "ours / infinity-emb, 32 concurrent, same dtype", least=2.0),
    Target("embedding.ratio_infinity_32_default", "ours with auto / infinity-emb's default, 32 concurrent", least=4.0),
    Target("embedding.ratio_encode_fp32", "ours in float32, 128 concurrent / encode in batches of 32", least=0.85),
    Target("embedding.ratio_encode_auto", "ours with auto, 128 concurrent / encode in float32", least=1.7),
    Target("embedding.p50_1_ratio", "p50 at 1 concurrent / p50 of a direct call in float32", most=1.15),
)


@dataclass(frozen=True)
class Load:
    """So many connections that send so many texts a request; measured in every round, or in the first only.

    ``direct`` is what of ``direct.py`` is measured right after it, to be compared with it.
    """

    name: str
    connections: int
    texts: int
    seconds: float
    every_round: bool
    direct: str = ""


LOADS = (
    Load("1", 1, 1, 4, every_round=True, direct="one_by_one"),
    Load("8", 8, 1, 4, every_round=False),
    Load("32", 32, 1, 6, every_round=True),
    Load("128", 128, 1, 7, every_round=True, direct="batches"),
    Load("batches of 64", 1, BATCH, 6, every_round=False),
)


@dataclass(frozen=True)
class Contender:
    """A server with the shape of its requests and answers."""

    program: Program
    path: str
    body: Callable[[Sequence[str]], object]
    vectors: Callable[[Any], list[list[float]]]
    every_round: bool = True


def measure(place: Place, rounds: int, table: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure; return the figures by key, and the raw numbers. Raises `ClusterError` where it cannot."""
    ensure_wrk()
    model = place.embedding_model
    texts = sentences(common_words(model / "vocab.txt"), TEXTS)
    samples: list[Sample] = []
    with ExitStack() as stack:
        direct = stack.enter_context(started_reference(place, "sentences", model, "float32"))
        servers = [(each, stack.enter_context(started(place, each.program))) for each in contenders(place, model)]
        _check(servers, direct, texts[:8])
        dtypes = {each.program.name: ours.dtype_in_use(server.log) for each, server in servers if _is_ours(each)}
        for number in range(rounds):
            # the order turns from round to round: nobody is always the first after somebody else
            turned = servers[number % len(servers) :] + servers[: number % len(servers)]
            for load in LOADS:
                if number and not load.every_round:
                    continue
                for contender, server in turned:
                    if contender.every_round or number == 0:
                        numbers = _load(place, contender, server, texts, load)
                        samples.append(Sample(number, contender.program.name, load.name, numbers))
                        table.row(number, contender.program.name, load.name, numbers)
                if load.direct:
                    direct.ask(load.direct, texts=texts[:BATCH])
                    numbers = direct.ask(load.direct, texts=texts if load.direct == "batches" else texts[:ONE_BY_ONE])
                    samples.append(Sample(number, direct.name, load.direct, numbers))
                    table.row(number, direct.name, load.direct.replace("_", " "), numbers)
    return figures(Samples(samples), dtypes), {"samples": [asdict(each) for each in samples], "dtypes": dtypes}


def figures(samples: Samples, dtypes: dict[str, str]) -> dict[str, Any]:
    """The figures of the issue and those beside them; ``dtypes`` says what the worker's settings became."""
    infinity, infinity_bf16 = "infinity float32", "infinity bfloat16"
    found: dict[str, Any] = {"embedding.rps_32": samples.median("ours auto", "32", "per_second")}
    pairs = {"float32": ("ours float32", infinity)}
    for name, dtype in dtypes.items():
        if dtype == "bfloat16":
            pairs["bfloat16"] = (name, infinity_bf16)
    by_dtype = {
        dtype: samples.ratio("per_second", (mine, "32"), (theirs, "32")) for dtype, (mine, theirs) in pairs.items()
    }
    found["embedding.ratio_infinity_32_same_dtype"] = worst(by_dtype.values(), high_is_good=True)
    found |= {f"embedding.ratio_infinity_32_{dtype}": ratio for dtype, ratio in by_dtype.items()}
    default = samples.ratio("per_second", ("ours auto", "32"), (infinity, "32"))
    found["embedding.ratio_infinity_32_default"] = default
    for key, who in (("fp32", "ours float32"), ("auto", "ours auto")):
        ratio = samples.ratio("per_second", (who, "128"), ("direct float32", "batches"))
        found[f"embedding.ratio_encode_{key}"] = ratio
    alone = {
        key: samples.ratio("p50_ms", (f"ours {key}", "1"), ("direct float32", "one_by_one"))
        for key in ("float32", "auto")
    }
    found["embedding.p50_1_ratio"] = worst(alone.values(), high_is_good=False)
    found |= {f"embedding.p50_1_ratio_{key}": ratio for key, ratio in alone.items()}
    found["embedding.ratio_litserve_32"] = samples.ratio("per_second", ("ours auto", "32"), ("litserve float32", "32"))
    found["embedding.medians"] = samples.medians()
    return found


def contenders(place: Place, model: Path) -> list[Contender]:
    """Who is measured, each with its defaults but for what is named."""
    infinity = peer_environments.environment("infinity", place.python)
    current = peer_environments.environment("current", place.python)
    ports = iter(free_ports(5))
    result = []
    for dtype in ("float32", "auto"):
        program = ours.program(place, capability="text-embedding", model=model, dtype=dtype, port=next(ports))
        result.append(Contender(program, "/v1/embeddings", _openai_body, _openai_vectors))
    # its default on a CPU is float32; its own warm-up takes ten seconds and is left to our first requests
    for name, options in (("float32", ()), ("bfloat16", ("--dtype", "bfloat16"))):
        port = next(ports)
        command = (
            *(str(infinity / "bin/infinity_emb"), "v2", "--model-id", str(model)),
            *("--served-model-name", ours.MODEL_NAME, "--host", "127.0.0.1", "--port", str(port)),
            *("--no-model-warmup", *options),
        )
        quiet = {"INFINITY_ANONYMOUS_USAGE_STATS": "0"}
        program = Program(f"infinity {name}", command, port, "/health", quiet)
        result.append(Contender(program, "/embeddings", _openai_body, _openai_vectors))
    port = next(ports)
    script = peer_environments.FOLDER / "litserve_app.py"
    command = (str(current / "bin/python"), str(script), str(model), str(port))
    program = Program("litserve float32", command, port, "/health")
    result.append(Contender(program, "/predict", _litserve_body, _litserve_vectors, every_round=False))
    return result


def _openai_body(texts: Sequence[str]) -> object:
    return {"model": ours.MODEL_NAME, "input": list(texts)}


def _openai_vectors(answer: Any) -> list[list[float]]:
    return [each["embedding"] for each in answer["data"]]


def _litserve_body(texts: Sequence[str]) -> object:
    return {"input": list(texts)}


def _litserve_vectors(answer: Any) -> list[list[float]]:
    vectors: list[list[float]] = answer["embeddings"]
    return vectors


def _is_ours(contender: Contender) -> bool:
    return contender.program.name.startswith("ours ")


def _check(servers: Sequence[tuple[Contender, Server]], direct: Reference, texts: Sequence[str]) -> None:
    """Nobody is measured who computes something else."""
    expected = direct.ask("vectors", texts=texts)["vectors"]
    for contender, server in servers:
        with server.running():
            got = contender.vectors(server.post(contender.path, contender.body(texts)))
        least = min(cosine(*pair) for pair in zip(expected, got, strict=True))
        if not least >= LEAST_COSINE:
            raise ClusterError(
                f"{contender.program.name} gives other vectors than encode: cosine {least:.4f}, "
                f"expected at least {LEAST_COSINE}"
            )


def _load(place: Place, contender: Contender, server: Server, texts: Sequence[str], load: Load) -> dict[str, float]:
    groups = [texts[first : first + load.texts] for first in range(0, len(texts), load.texts)]
    name = f"{contender.program.name} {load.texts}".replace(" ", "-")
    bodies = write_bodies((contender.body(group) for group in groups), place.scratch / f"{name}.jsonl")
    url = server.program.url(contender.path)
    with server.running():
        for seconds in (WARM_SECONDS, load.seconds):
            seen = post(url, bodies, connections=load.connections, seconds=seconds)
            # answered after what wrk left behind when its time was up
            server.post(contender.path, contender.body(["done"]))
    numbers = asdict(seen)
    numbers["per_second"] *= load.texts
    return numbers


def cosine(left: Sequence[float], right: Sequence[float]) -> float:
    """The cosine of the angle between two vectors; not a number where one has no length."""
    lengths = math.hypot(*left) * math.hypot(*right)
    return sum(a * b for a, b in zip(left, right, strict=True)) / lengths if lengths else math.nan
