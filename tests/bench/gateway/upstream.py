"""The mock upstreams, the same for everybody: nginx with one answer in memory, and a program that streams frames."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.gateway.contenders import HEALTH, Upstreams, nginx_command
from bench.place import Place
from bench.servers import Program, started
from cluster.host import free_ports

#: As many workers as 512 streams need: one gets at most 128 requests at once from a gateway.
STREAM_ADDRESSES = ("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4")
ANSWER = {
    "id": "chatcmpl-bench",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "bench",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "The bridge over the river is older than the town. " * 8},
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 64, "completion_tokens": 80, "total_tokens": 144},
}


@contextmanager
def running(place: Place, programs: Path) -> Iterator[Upstreams]:
    """Both, for as long as the block runs; they share their core with whoever loads them."""
    whole, stream = free_ports(2)
    servers = (
        f"server {{ listen 127.0.0.1:{whole} backlog=4096; default_type application/json;\n"
        f" location = {HEALTH} {{ return 200; }}\n location / {{ return 200 '{json.dumps(ANSWER)}'; }} }}\n"
    )
    streaming = (str(programs / "upstream"), str(stream), *STREAM_ADDRESSES)
    with ExitStack() as stack:
        for program in (
            Program("nginx upstream", nginx_command(place.scratch, "nginx-upstream", servers), whole, HEALTH),
            Program("streaming upstream", streaming, stream, HEALTH),
        ):
            server = stack.enter_context(started(place, program))
            stack.enter_context(server.running())
        yield Upstreams(whole, stream, STREAM_ADDRESSES)
