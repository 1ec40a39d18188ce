"""Logging: one JSON object per line, with ids, sizes and durations; never texts, tokens or keys."""

import logging
import sys
import traceback
from typing import Final

import structlog

_LIBRARIES: Final = (
    "transformers",
    "huggingface_hub",
    "httpx",
    "httpx2",
    "httpcore",
    "python_multipart",
    "PIL",
    "filelock",
    "asyncio",
    "torch",
)
#: Anybody could fill the log with these; each of them is answered, and the last is our own way to end a failed stream.
_CLIENTS: Final = (
    "Invalid HTTP request received",
    "Unsupported upgrade request",
    "No supported WebSocket library",
    "ASGI callable returned without completing response",
)


def configure(level: str) -> None:
    """Send our own log and the libraries' warnings to standard output as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.ERROR)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)
    logging.captureWarnings(capture=True)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of the server tells more than that some client did something odd, or that we cut a stream."""
    return not str(record.msg).startswith(_CLIENTS)


def where(error: BaseException, depth: int = 8) -> list[str]:
    """Return file, line and function of the innermost frames. The message is left out: it may quote a client."""
    frames = traceback.extract_tb(error.__traceback__)[-depth:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
