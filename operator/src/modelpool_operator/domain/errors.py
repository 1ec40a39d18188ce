"""What can go wrong at the API server, in our words.

ApiError
├── NotFoundError        404
├── ConflictError        409, and a failed precondition: somebody else wrote first
├── InvalidError         422: refused by schema, CEL rule, or a failed JSON-patch test
├── DeniedError          401, 403
├── BusyError            429, and 5xx that carry Retry-After
└── UnreachableError     no answer, or one that is not the API server's: the write may have been applied
"""


class ApiError(Exception):
    """A request to the API server did not succeed; ``status`` is its HTTP status, 0 where there was none."""

    def __init__(self, message: str, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class NotFoundError(ApiError):
    """The object is not there."""


class ConflictError(ApiError):
    """The object exists already, or has changed since it was read."""


class InvalidError(ApiError):
    """The API server refused the object's content."""


class DeniedError(ApiError):
    """The operator's role does not allow this."""


class BusyError(ApiError):
    """The API server asks to come back later."""


class UnreachableError(ApiError):
    """No usable answer: the connection failed, timed out, or the server broke."""
