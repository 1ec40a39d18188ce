"""Server-sent events as OpenAI's clients read them. Pure: bytes out."""

from typing import Final

import orjson

from modelpool_worker.errors import RequestError

#: A comment: clients ignore it, and proxies see that the connection lives.
KEEP_ALIVE: Final = b": keep-alive\n\n"
#: The end of a stream that is complete; one that is not never has it.
DONE: Final = b"data: [DONE]\n\n"


def event(content: bytes) -> bytes:
    """Return one event; ``content`` is JSON without line breaks."""
    return b"data: " + content + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """Return the event that tells a client what went wrong after the answer had begun."""
    return event(orjson.dumps(error.body()))
