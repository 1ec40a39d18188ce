"""The gateway's application: who may ask for what, and the way of a request to a worker and of its answer back."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Final, Protocol

import orjson
import structlog

from modelpool_gateway import asgi, errors
from modelpool_gateway.asgi import Message, Receive, Send
from modelpool_gateway.bodies import Bodies
from modelpool_gateway.directory import Worker
from modelpool_gateway.endpoints import PATHS, STREAMED
from modelpool_gateway.errors import ClientLeftError, GatewayError
from modelpool_gateway.headers import check_query, find, read_head
from modelpool_gateway.holding import Asker, Holding
from modelpool_gateway.keys import ApiKey, ApiKeys
from modelpool_gateway.listing import PATH as MODELS_PATH
from modelpool_gateway.listing import Listing
from modelpool_gateway.models import Models
from modelpool_gateway.progress import error_event
from modelpool_gateway.relay import BrokenOffError, Relay
from modelpool_gateway.request import Asked, BadRequestError, read_request
from modelpool_gateway.server import LEAVING
from modelpool_gateway.ticket import Ticket
from modelpool_gateway.upstream import UpstreamError

_log = structlog.get_logger(__name__)

#: Workers that may fail one request, at most.
_TRIES: Final = 4
#: Bodies of more bytes than this are read beside the event loop.
_BIG_BODY: Final = 64 * 1024


class Tally(Protocol):
    """Who counts what the gateway does. Names of models are those that are known, "" for any other."""

    def answered(self, model: str, status: int) -> None:
        """A request was answered with this status; 0: the client had left."""

    def retried(self) -> None:
        """A request goes to another worker, or to the same one again."""


class Proxy:
    """Serves the models of one namespace. ``keys`` of None: anybody may use all of them."""

    def __init__(
        self,
        namespace: str,
        models: Models,
        holding: Holding,
        relay: Relay,
        bodies: Bodies,
        listing: Listing,
        asker: Asker,
        tally: Tally,
        keys: ApiKeys | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._namespace = namespace
        self._models, self._holding, self._relay, self._bodies = models, holding, relay, bodies
        self._listing, self._asker, self._tally, self._keys = listing, asker, tally, keys
        self._monotonic = monotonic

    def close(self) -> None:
        """Take nothing new; who waits is told so, and what is under way goes on."""
        self._holding.close()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        ticket: Ticket | None = None
        status = 0
        try:
            if scope["path"].startswith(MODELS_PATH):
                await self._list(scope, send)
                status = 200
            else:
                ticket = await self._admitted(scope, receive, send)
                await self._serve(ticket)
                status = ticket.status
        except ClientLeftError:
            pass
        except BrokenOffError:
            status = 502
        except GatewayError as error:
            status = error.status
            await self._refuse(error, ticket, send)
        except Exception as error:
            # not log.exception(): the message of a library's exception may quote the client
            _log.error("request.failed", error=type(error).__name__, line=_line(error))
            status = 500
            await self._refuse(errors.failed(), ticket, send)
        finally:
            if ticket is not None:
                ticket.body.let_go()
            known = ticket is not None and self._holding.knows(ticket.key)
            self._tally.answered(ticket.asked.model if ticket is not None and known else "", status)

    async def _admitted(self, scope: Message, receive: Receive, send: Send) -> Ticket:
        """Read a request as a whole. Raises `GatewayError`, `ClientLeftError`."""
        path = scope["path"]
        if path not in PATHS:
            raise errors.unknown_path((*sorted(PATHS), MODELS_PATH))
        if scope["method"] != "POST":
            raise errors.method_not_allowed("POST")
        if self._holding.closed:
            raise errors.shutting_down()
        head = read_head(scope["headers"])
        key = self._key(head.authorization)
        query = check_query(scope["query_string"])
        leaving = scope["extensions"][LEAVING]
        body = await self._bodies.read(head.length, receive, arrived=leaving.arrived)
        try:
            asked = await _read(head.content_type, query.decode("ascii"), body.data)
            _check(key, asked.model)
        except BaseException:
            body.let_go()
            raise
        name = (self._namespace, asked.model)
        progress = head.progress and asked.stream and path in STREAMED
        return Ticket(name, asked, path, query, head.lines, body, leaving, send, progress=progress)

    async def _list(self, scope: Message, send: Send) -> None:
        """Answer what models there are, or which one. Raises `GatewayError`."""
        _, _, name = scope["path"].partition(f"{MODELS_PATH}/")
        if not name and scope["path"] != MODELS_PATH:
            raise errors.unknown_path((*sorted(PATHS), MODELS_PATH))
        if scope["method"] != "GET":
            raise errors.method_not_allowed("GET")
        if self._holding.closed:
            raise errors.shutting_down()
        key = self._key(find(scope["headers"], b"authorization").decode("latin-1"))
        if name:
            _check(key, name)
            content = self._listing.one(name)
        else:
            content = self._listing.all(key.allows if key else lambda _name: True)
        await asgi.answer(send, 200, [(b"content-type", b"application/json")], orjson.dumps(content))

    def _key(self, authorization: str) -> ApiKey | None:
        if self._keys is None:
            return None
        key = self._keys.find(authorization)
        if key is None:
            raise errors.no_key()
        return key

    async def _serve(self, ticket: Ticket) -> None:
        while True:
            worker = await self._holding.worker_for(ticket)
            try:
                if await self._relay.ask(ticket, worker):
                    self._keep(ticket, worker)
                    return
            except UpstreamError as error:
                worker.breaker.failed(ticket.token, self._monotonic())
                ticket.tried.add(worker.uid)
                ticket.failures += 1
                if error.late:
                    raise errors.answer_late() from None
                if ticket.failures >= _TRIES:
                    raise errors.cut_off() from None
            except BrokenOffError:
                worker.breaker.failed(ticket.token, self._monotonic())
                raise
            finally:
                worker.breaker.abandoned(ticket.token)
                self._holding.release(ticket)
            self._tally.retried()

    def _keep(self, ticket: Ticket, worker: Worker) -> None:
        """Have a worker stay as long as the request says, if it was answered."""
        seconds = ticket.asked.keep_alive
        if seconds is None or ticket.status >= 400:
            return
        for model in self._models.of(*ticket.key):
            if model.name == worker.owner:
                self._asker.keep(model, math.ceil(seconds))

    async def _refuse(self, error: GatewayError, ticket: Ticket | None, send: Send) -> None:
        if ticket is None or not ticket.status:
            await asgi.answer(send, error.status, error.headers(), error.body())
        elif ticket.headed:
            await self._relay.end_with(ticket, error_event(error.content()))
        else:
            ticket.leaving.cut()


def _check(key: ApiKey | None, model: str) -> None:
    if key is not None and not key.allows(model):
        raise errors.not_allowed()


async def _read(content_type: str, query: str, body: bytes) -> Asked:
    try:
        if len(body) > _BIG_BODY:
            return await asyncio.to_thread(read_request, content_type, query, body)
        return read_request(content_type, query, body)
    except BadRequestError as error:
        code = "invalid_request" if error.status == 400 else "unsupported_content"
        raise GatewayError(error.status, code, str(error), param=error.param) from None


def _line(error: Exception) -> str:
    """Return where an error was raised, which tells nothing of what the client wrote."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}" if trace else ""
