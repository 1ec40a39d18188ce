"""A wall clock that is off by ``SHIFTED_SECONDS``: Python runs this first where it is on the path."""

import datetime
import os
import time

_SHIFT = float(os.environ.get("SHIFTED_SECONDS", "0"))
_real, _time, _time_ns = datetime.datetime, time.time, time.time_ns  # noqa: TID251 - to be replaced


class _Kind(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


class _Shifted(_real, metaclass=_Kind):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return _real.now(tz) + datetime.timedelta(seconds=_SHIFT)


datetime.datetime = _Shifted  # type: ignore[misc]
time.time = lambda: _time() + _SHIFT  # noqa: TID251
time.time_ns = lambda: _time_ns() + int(_SHIFT * 1e9)
