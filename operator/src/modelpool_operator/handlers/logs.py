"""Logging: one JSON object a line by default, event names and values, never text of clients."""

import logging
import sys

import structlog


class _Brief(logging.Filter):
    """Drops the stack of an answer of the API server that ends one of kopf's watches: its message says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and is_answer(record.exc_info[1]):
            record.exc_info = None
            record.msg, record.args = record.getMessage()[:500], None
        return True


def is_answer(error: BaseException | None) -> bool:
    """Whether an error of kopf's is what the API server answered, and no bug."""
    return type(error).__module__.startswith("kopf._cogs.clients")


def configure_logging(level: str, log_format: str) -> None:
    """Send our own and the libraries' records to standard error in one format."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer() if log_format == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                renderer,
            ],
        )
    )
    handler.addFilter(_Brief())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("kopf", "aiohttp", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
