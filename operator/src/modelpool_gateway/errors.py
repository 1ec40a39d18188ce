"""What the gateway itself answers, in OpenAI's shape. Texts are ours: none repeats what the client sent."""

from collections.abc import Mapping
from typing import Final

import orjson

_NO_RETRY: Final = ((b"x-should-retry", b"false"),)


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
    ) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after, self.permanent = retry_after, permanent

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer; clients do not try again what stays as it is."""
        found = [(b"content-type", b"application/json")]
        if self.retry_after is not None:
            found.append((b"retry-after", str(max(1, min(120, self.retry_after))).encode()))
        if self.permanent:
            found.extend(_NO_RETRY)
        return found

    def body(self) -> bytes:
        """Return the body of the answer."""
        return orjson.dumps({"error": self.content()})

    def content(self) -> Mapping[str, str | None]:
        """Return the error object, which a stream sends as an event."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


def unknown_model() -> GatewayError:
    """No ModelWorker has this name."""
    return GatewayError(404, "model_not_found", "there is no model of this name; GET /v1/models lists them")


def worker_failed(reason: str, message: str) -> GatewayError:
    """The worker that would have served has failed."""
    return GatewayError(503, reason or "Failed", f"the model's worker has failed: {message}", permanent=True)


def nobody_serves() -> GatewayError:
    """The workers there are will serve no more."""
    return GatewayError(503, "no_worker", "no worker of this model takes requests now", retry_after=5)


def too_many_wait() -> GatewayError:
    """As many requests wait as may."""
    return GatewayError(429, "too_many_waiting", "too many requests wait for this model already", retry_after=10)


def waited_too_long(seconds: float) -> GatewayError:
    """No worker has been ready in time."""
    return GatewayError(504, "cold_start_timeout", f"no worker was ready within {seconds:g} s", retry_after=30)


def cut_off() -> GatewayError:
    """A worker's answer broke off, after the first byte or as often as may be tried."""
    return GatewayError(502, "worker_connection", "the connection to the model's worker broke", retry_after=1)
