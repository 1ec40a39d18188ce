"""What can go wrong in a worker, and the shape in which a client is told.

WorkerError
├── RequestError          one request cannot be served; the worker goes on
│   ├── InvalidRequestError    400  the request is wrong
│   │   └── ContextLengthError      prompt and answer are longer than the model takes
│   ├── ModelNotFoundError     404  the name of another model
│   ├── PathNotFoundError      404
│   ├── MethodNotAllowedError  405
│   ├── RequestTimeoutError    408  the client did not send its request in time
│   ├── TooFarBehindError      408  the client reads its stream too slowly
│   ├── BodyTooLargeError      413
│   ├── HeadersTooLargeError   431
│   ├── QueueFullError         429  too much waits already
│   ├── InferenceFailedError   500  the model failed on a valid request
│   │   └── OutOfMemoryError            it found no memory for it
│   └── NotServingError        503  Loading or Evicting, or stopped while it waited
└── LoadError             the model is not loaded; the process ends
    ├── NeverLoadsError    exit 78  trying again is pointless
    └── RetryLoadError     exit 1   may work next time

Every text here is ours: never a library's message, a traceback or the client's own words.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from modelpool_api import WorkerState
from modelpool_api.inference import HEADER_STATE
from modelpool_api.pod import EXIT_CRASHED, EXIT_NEVER_LOADS

#: Clients try a 5xx again unless this says that it is pointless.
NO_RETRY: Final[Mapping[str, str]] = {"x-should-retry": "false"}


class WorkerError(Exception):
    """The root. ``str(error)`` is a sentence that may be shown to anybody."""


class RequestError(WorkerError):
    """One request cannot be served. ``status`` is the HTTP status, ``headers`` go along with the answer."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.headers: dict[str, str] = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


class InvalidRequestError(RequestError):
    """The request is wrong and stays wrong: 400."""

    status = 400
    kind = "invalid_request_error"


class ContextLengthError(InvalidRequestError):
    """Prompt and answer together are longer than the model takes: 400."""

    code = "context_length_exceeded"


class ModelNotFoundError(RequestError):
    """The worker serves another model: 404."""

    status = 404
    kind = "invalid_request_error"
    code = "model_not_found"


class PathNotFoundError(RequestError):
    """There is no such path: 404."""

    status = 404
    kind = "invalid_request_error"
    code = "not_found"


class MethodNotAllowedError(RequestError):
    """The path exists, the method does not: 405."""

    status = 405
    kind = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeoutError(RequestError):
    """The client took too long to send its request: 408."""

    status = 408
    kind = "invalid_request_error"
    code = "request_timeout"


class TooFarBehindError(RequestError):
    """The client reads its stream so slowly that what waits for it takes too much memory: 408."""

    status = 408
    kind = "invalid_request_error"
    code = "too_far_behind"


class BodyTooLargeError(RequestError):
    """The body is beyond the limit: 413."""

    status = 413
    kind = "invalid_request_error"
    code = "body_too_large"


class HeadersTooLargeError(RequestError):
    """The headers are beyond the limit: 431."""

    status = 431
    kind = "invalid_request_error"
    code = "headers_too_large"


class QueueFullError(RequestError):
    """Too much waits already: 429, and when to come again."""

    status = 429
    kind = "rate_limit_error"
    code = "queue_full"

    def __init__(self, message: str, *, retry_after: int, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, headers={"Retry-After": str(retry_after), **(headers or {})})


class InferenceFailedError(RequestError):
    """The model failed on a request that was right: 500."""

    status = 500
    kind = "server_error"
    code = "inference_failed"


class OutOfMemoryError(InferenceFailedError):
    """The model found no memory for a request that was right: 500, which is worth another try when less runs."""

    code = "out_of_memory"


class NotServingError(RequestError):
    """The worker takes no requests now: 503 with its state and when to come again."""

    status = 503
    kind = "server_error"
    code = "worker_not_serving"

    def __init__(self, state: WorkerState, *, retry_after: int) -> None:
        headers = {"Retry-After": str(retry_after), HEADER_STATE: str(state)}
        super().__init__(f"this worker is {state} and takes no requests now; try again or ask another", headers=headers)


class LoadError(WorkerError):
    """The model is not loaded; the process ends with ``exit_code`` and the sentence as its last word."""

    exit_code: ClassVar[int] = EXIT_CRASHED


class NeverLoadsError(LoadError):
    """The model can never load here: exit 78."""

    exit_code = EXIT_NEVER_LOADS


class RetryLoadError(LoadError):
    """It may work next time, such as a hub that could not be reached: exit 1."""

    exit_code = EXIT_CRASHED
