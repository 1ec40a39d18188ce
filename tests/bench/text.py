"""Text generation: the worker, `transformers serve` and `generate` called directly, with the same model and prompts."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import ours, peer_environments
from bench.figures import Sample, Samples, Target, worst
from bench.place import Place, machine
from bench.references import Reference, started_reference
from bench.servers import Program, Server, started
from bench.streams import ensure_client, stream
from bench.table import Table
from bench.texts import common_words, prompts
from bench.wrk import write_bodies
from cluster.cache import cached, hash_of
from cluster.host import ClusterError, free_ports, run
from cluster.progress import step

NEW_TOKENS = 64
WARM_TOKENS = 8
TOGETHER = 8
PATH = "/v1/completions"
SCRIPT = Path(__file__).with_name("decoder.py")

#: continuous batching sizes itself by the host's memory unless it is told; it is measured in the first round
CONTINUOUS = ("--continuous-batching", "--cb-block-size", "32", "--cb-num-blocks", "64", "--cb-max-batch-tokens", "128")


@dataclass(frozen=True)
class Load:
    """So many connections share out so many prompts, and each answer has so many tokens."""

    name: str
    connections: int
    prompts: int
    tokens: int


ALONE = Load("1", 1, 4, NEW_TOKENS)
#: Whole answers take long: the median of four first tokens says little.
FIRST = Load("first tokens, 1", 1, 16, WARM_TOKENS)
EIGHT = Load(str(TOGETHER), TOGETHER, 2 * TOGETHER, NEW_TOKENS)
LOADS = (ALONE, FIRST, EIGHT)

TARGETS = (
    Target("text.ratio_sequential_8", "ours, 8 concurrent / one generate after the other, same dtype", least=2.5),
    Target("text.ratio_padded_8", "ours, 8 concurrent / one padded generate of 8, same dtype", least=0.8),
    Target("text.ttft_ratio", "first token: ours / transformers serve, at 1 and 8 concurrent", most=1.0),
)


@dataclass(frozen=True)
class Contender:
    """A server, and what it calls the model."""

    program: Program
    model: str
    every_round: bool = True


def measure(place: Place, rounds: int, table: Table) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure; return the figures by key, and the raw numbers. Raises `ClusterError` where it cannot."""
    client = ensure_client()
    model = text_model(place)
    words = common_words(place.embedding_model / "vocab.txt")
    texts = prompts(words, max(load.prompts for load in LOADS))
    dtypes = dtypes_of(machine()["cpu_features"])
    samples: list[Sample] = []
    with ExitStack() as stack:
        direct = {dtype: stack.enter_context(started_reference(place, "decoder", model, dtype)) for dtype in dtypes}
        servers = [
            (each, stack.enter_context(started(place, each.program))) for each in contenders(place, model, dtypes)
        ]
        same = _same_text([server for each, server in servers if each.program.name == "ours float32"], direct, texts)
        for number in range(rounds):
            turned = servers[number % len(servers) :] + servers[: number % len(servers)]
            for load in LOADS:
                for contender, server in turned:
                    if contender.every_round or number == 0:
                        numbers = _load(place, client, contender, server, texts, load)
                        samples.append(Sample(number, contender.program.name, load.name, numbers))
                        table.row(number, contender.program.name, f"{load.name} concurrent", numbers)
            for dtype in dtypes:
                for do in ("sequential", "padded"):
                    direct[dtype].ask(do, texts=texts[:TOGETHER], tokens=WARM_TOKENS)
                    said = direct[dtype].ask(do, texts=texts[:TOGETHER], tokens=NEW_TOKENS)
                    numbers = {"tokens_per_second": said["tokens_per_second"]}
                    samples.append(Sample(number, direct[dtype].name, do, numbers))
                    table.row(number, direct[dtype].name, f"{do} {TOGETHER}", numbers)
    found = figures(Samples(samples), dtypes) | {"text.greedy_equals_generate": same}
    return found, {"samples": [asdict(each) for each in samples]}


def figures(samples: Samples, dtypes: Sequence[str]) -> dict[str, Any]:
    """The figures of the issue and those beside them: of several dtypes and loads the worst one counts."""
    eight = EIGHT.name
    found: dict[str, Any] = {"text.tokens_per_second_8": samples.median("ours float32", eight, "tokens_per_second")}
    for key, do in (("text.ratio_sequential_8", "sequential"), ("text.ratio_padded_8", "padded")):
        ratios = {
            dtype: samples.ratio("tokens_per_second", (f"ours {dtype}", eight), (f"direct {dtype}", do))
            for dtype in dtypes
        }
        found[key] = worst(ratios.values(), high_is_good=True)
        found |= {f"{key}_{dtype}": ratio for dtype, ratio in ratios.items()}
    firsts = {
        f"{load.connections}_{dtype}": samples.ratio(
            "first_p50_ms", (f"ours {dtype}", load.name), (f"serve {dtype}", load.name)
        )
        for load in (FIRST, EIGHT)
        for dtype in dtypes
    }
    found["text.ttft_ratio"] = worst(firsts.values(), high_is_good=False)
    found |= {f"text.ttft_ratio_{key}": ratio for key, ratio in firsts.items()}
    for dtype in dtypes:
        found[f"text.ratio_serve_8_{dtype}"] = samples.ratio(
            "tokens_per_second", (f"ours {dtype}", eight), (f"serve {dtype}", eight)
        )
    found["text.medians"] = samples.medians()
    return found


def dtypes_of(cpu_features: Sequence[str]) -> list[str]:
    """float32, and bfloat16 where the CPU multiplies in it."""
    return ["float32", *(["bfloat16"] if {"avx512_bf16", "amx_bf16"} & set(cpu_features) else [])]


def text_model(place: Place) -> Path:
    """The folder of the random decoder, made at most once."""
    vocabulary = place.embedding_model / "vocab.txt"

    def make(folder: Path) -> None:
        with step("Making a random decoder of 87.5 million parameters (350 MB)"):
            run([place.python, SCRIPT, vocabulary, folder], env=place.environment(), timeout=600)

    return cached("bench-decoder", hash_of(files=[SCRIPT, vocabulary]), make, keep=1)


def contenders(place: Place, model: Path, dtypes: Sequence[str]) -> list[Contender]:
    """Who is measured."""
    current = peer_environments.environment("current", place.python)
    result = []
    for dtype in dtypes:
        mine, theirs = free_ports(2)
        program = ours.program(place, capability="text-to-text", model=model, dtype=dtype, port=mine)
        result += [Contender(program, ours.MODEL_NAME), _serve(current, model, f"serve {dtype}", dtype, theirs)]
    (port,) = free_ports(1)
    result.append(_serve(current, model, "serve continuous float32", "float32", port, CONTINUOUS))
    return result


def _serve(environment: Path, model: Path, name: str, dtype: str, port: int, options: Sequence[str] = ()) -> Contender:
    command = (
        *(str(environment / "bin/transformers"), "serve", str(model), "--device", "cpu", "--dtype", dtype),
        *("--host", "127.0.0.1", "--port", str(port), *options),
    )
    return Contender(Program(name, command, port, "/health"), str(model), every_round=not options)


def _body(model: str, prompt: str, tokens: int, *, streamed: bool) -> Mapping[str, Any]:
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": streamed}
    return body | ({"stream_options": {"include_usage": True}} if streamed else {})


def _same_text(servers: Sequence[Server], direct: Mapping[str, Reference], texts: Sequence[str]) -> bool:
    """Whether the worker's greedy text in float32 is that of `generate`."""
    expected = direct["float32"].ask("sequential", texts=texts[:2], tokens=NEW_TOKENS)["texts"]
    for server in servers:
        with server.running():
            for text, wanted in zip(texts[:2], expected, strict=True):
                answer = server.post(PATH, _body(ours.MODEL_NAME, text, NEW_TOKENS, streamed=False))
                if answer["choices"][0]["text"] != wanted:
                    return False
    return True


def _load(
    place: Place, client: Path, contender: Contender, server: Server, texts: Sequence[str], load: Load
) -> dict[str, float]:
    url = server.program.url(PATH)
    with server.running():
        numbers: dict[str, float] = {}
        for some, tokens in ((texts[: load.connections], WARM_TOKENS), (texts[: load.prompts], load.tokens)):
            bodies = place.scratch / "prompts.jsonl"
            write_bodies((_body(contender.model, text, tokens, streamed=True) for text in some), bodies)
            try:
                numbers = stream(client, url, bodies, connections=load.connections, tokens=tokens)
            except ClusterError as error:
                raise ClusterError(f"{contender.program.name}: {error}") from error
        return numbers
