"""What the gateway itself answers, in OpenAI's shape. Texts are ours: none repeats what the client sent."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import orjson

_NO_RETRY: Final = ((b"x-should-retry", b"false"),)


class ClientLeftError(Exception):
    """The client has closed its connection: there is nobody to answer."""


class GatewayError(Exception):
    """A request that gets an answer of the gateway's own instead of a worker's."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
        permanent: bool = False,
        header: tuple[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after, self.permanent, self.header = retry_after, permanent, header

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer; clients do not try again what stays as it is."""
        found = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, min(120, self.retry_after))).encode()))
        if self.permanent:
            found.extend(_NO_RETRY)
        if self.header is not None:
            found.append(self.header)
        return found

    def body(self) -> bytes:
        """Return the body of the answer."""
        return orjson.dumps({"error": self.content()})

    def content(self) -> Mapping[str, str | None]:
        """Return the error object, which a stream sends as an event."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


def unknown_model() -> GatewayError:
    """No Model and no ModelWorker has this name."""
    return GatewayError(404, "model_not_found", "there is no model of this name; GET /v1/models lists them")


def worker_failed(reason: str, message: str, wait: float | None = None) -> GatewayError:
    """The worker that would have served has failed; another one is made after ``wait`` seconds, None: never."""
    said = f"the model's worker has failed: {message}"
    retry_after = None if wait is None else math.ceil(wait)
    return GatewayError(503, reason or "Failed", said, retry_after=retry_after, permanent=wait is None)


def never_fits(reason: str, message: str) -> GatewayError:
    """A worker of the model can never get what it asks for."""
    return GatewayError(503, reason, f"the model's worker cannot be started: {message}", permanent=True)


def held_back(reason: str, message: str) -> GatewayError:
    """A worker of the model is not started before somebody allows it."""
    return GatewayError(503, reason, f"the model's worker is not started now: {message}", retry_after=60)


def switched_off() -> GatewayError:
    """The Model may have no worker."""
    return GatewayError(503, "switched_off", "this model is switched off (maxReplicas: 0)", permanent=True)


def unknown_path(expected: Iterable[str]) -> GatewayError:
    """Nothing is served at the path."""
    return GatewayError(404, "unknown_path", f"no such path; expected one of {', '.join(expected)}")


def method_not_allowed(expected: str) -> GatewayError:
    """The path takes another method."""
    said = f"this path takes {expected} only"
    return GatewayError(405, "method_not_allowed", said, header=(b"allow", expected.encode()))


def no_key() -> GatewayError:
    """The request carries no key that is known."""
    said = "expected a valid API key, as in Authorization: Bearer sk-…"
    return GatewayError(401, "invalid_api_key", said, header=(b"www-authenticate", b"Bearer"))


def not_allowed() -> GatewayError:
    """The key is known and not for this model."""
    return GatewayError(
        403, "model_not_allowed", "this API key may not use this model; GET /v1/models lists those it may"
    )


def nobody_serves() -> GatewayError:
    """The workers there are will serve no more."""
    return GatewayError(503, "no_worker", "no worker of this model takes requests now", retry_after=5)


def too_many_wait(load_seconds: float | None = None) -> GatewayError:
    """As many requests wait as may; ``load_seconds`` is how long the model's last cold start has taken."""
    said = "too many requests wait for this model already"
    return GatewayError(429, "too_many_waiting", said, retry_after=_after(load_seconds, 10))


def waited_too_long(seconds: float, state: str = "", load_seconds: float | None = None) -> GatewayError:
    """No worker has been ready in time; ``state`` is what the one that is on its way was doing."""
    said = f"no worker was ready within {seconds:g} s" + (f"; the one on its way: {state}" if state else "")
    return GatewayError(504, "cold_start_timeout", said, retry_after=_after(load_seconds, 30))


def _after(load_seconds: float | None, otherwise: int) -> int:
    return otherwise if load_seconds is None else math.ceil(load_seconds)


def cut_off() -> GatewayError:
    """A worker's answer broke off, after the first byte or as often as may be tried."""
    return GatewayError(502, "worker_connection", "the connection to the model's worker broke", retry_after=1)


def answer_late() -> GatewayError:
    """A worker has begun no answer, or did not go on with it, for as long as it has time."""
    return GatewayError(504, "worker_timeout", "the model's worker has been silent for too long")


def shutting_down() -> GatewayError:
    """The gateway takes nothing new: it is about to end."""
    return GatewayError(503, "shutting_down", "this gateway is being shut down; ask again", retry_after=1)


def failed() -> GatewayError:
    """A fault of the gateway's own."""
    return GatewayError(500, "internal_error", "the gateway failed on this request; its log has the details")


def worker_refused_us() -> GatewayError:
    """A worker does not take the pool's token, or none."""
    return GatewayError(502, "worker_unauthorized", "the model's worker does not accept this gateway's token")


def worker_error() -> GatewayError:
    """A worker has answered with an error after the stream had begun; it could not be read."""
    return GatewayError(502, "worker_error", "the model's worker refused this request")
