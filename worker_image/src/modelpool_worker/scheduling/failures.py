"""What the clients of a batch or a step that failed are told. Imports no model library."""

from collections.abc import Callable

from modelpool_worker.errors import InferenceFailedError, OutOfMemoryError

#: Tells whether an error is that there was no memory: libraries have classes of their own for it.
OutOfMemory = Callable[[BaseException], bool]


def python_has_none(error: BaseException) -> bool:
    """Tell it for who uses no library."""
    return isinstance(error, MemoryError)


def told_of(error: Exception, out_of_memory: OutOfMemory) -> InferenceFailedError:
    """Return what a client is told of an error: never the error's own text."""
    if out_of_memory(error):
        return OutOfMemoryError(
            "there was no memory for this request beside what ran with it; expected a smaller one, or the same again "
            "later"
        )
    return InferenceFailedError("the model failed on this request; the worker's log has the details")
