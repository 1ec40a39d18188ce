"""What a client is told of an error that its own text met, and the log of it: never the error's own words."""

import structlog

from modelpool_worker.errors import InferenceFailedError, OutOfMemoryError, RequestError
from modelpool_worker.logs import where
from modelpool_worker.models.memory import is_out_of_memory

_log = structlog.get_logger(__name__)


def prompt_failed(error: Exception) -> RequestError:
    """Log an error that a prompt met while it was read or took its place; return what its client is told."""
    _log.error("prompt failed", error=type(error).__name__, where=where(error))
    if is_out_of_memory(error):
        return OutOfMemoryError(
            "there is no memory for this prompt beside what runs now; expected a shorter one, or the same again later"
        )
    return InferenceFailedError("the model failed on this prompt; the worker's log has the details")


def text_failed(error: Exception) -> RequestError:
    """Log that a text that runs alone found no memory; return what its client is told."""
    _log.error("text failed", error=type(error).__name__, where=where(error))
    return OutOfMemoryError("there is no memory for a text this long; expected a shorter one, or the same again later")
