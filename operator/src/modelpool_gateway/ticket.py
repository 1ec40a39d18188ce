"""One request on its way: what it asks for, and what has become of it so far."""

from dataclasses import dataclass, field

from modelpool_gateway.asgi import Send
from modelpool_gateway.bodies import Body
from modelpool_gateway.directory import Key, Worker
from modelpool_gateway.request import Asked
from modelpool_gateway.server import Leaving


@dataclass(slots=True)
class Ticket:
    """A request that has been read as a whole."""

    key: Key
    asked: Asked
    path: str
    query: bytes
    #: the client's headers, as they go to the worker
    lines: bytes
    body: Body
    leaving: Leaving
    send: Send
    #: the client wants a stream, and to be told in it what it waits for
    progress: bool = False
    #: uids of the workers that have failed it, or had no room for it
    tried: set[str] = field(default_factory=set)
    failures: int = 0
    #: those of them that had no room for it, and how often one had none
    full: set[str] = field(default_factory=set)
    turned_away: int = 0
    #: the worker that it has a place at; whoever takes the place says so in the worker, and gives it back
    worker: Worker | None = None
    #: the breaker's token there
    token: int = 0
    #: monotonic time until which it may be held; set when that begins
    deadline: float | None = None
    #: what the client has been answered: the status, 0 as long as there is none
    status: int = 0
    #: the head of the answer is the gateway's own: comments of what it waits for have been sent
    headed: bool = False
