"""What of kopf's own records is worth a line."""

import logging

from modelpool_operator.logs import send_logs


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
    send_logs(level, log_format, quiet=("kopf", "aiohttp", "asyncio"), brief=_Brief())
