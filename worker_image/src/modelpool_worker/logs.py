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
    "filelock",
    "asyncio",
    "torch",
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
    logging.captureWarnings(capture=True)


def where(error: BaseException, depth: int = 8) -> list[str]:
    """Return file, line and function of the innermost frames. The message is left out: it may quote a client."""
    frames = traceback.extract_tb(error.__traceback__)[-depth:]
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
