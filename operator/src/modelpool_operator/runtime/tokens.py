"""The bearer tokens of the pools' lifecycle ports: made once, read again when a worker refuses one."""

import secrets
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from modelpool_api.pod import TOKEN_FILE
from modelpool_operator.domain.errors import ConflictError, NotFoundError
from modelpool_operator.domain.objects import PoolView
from modelpool_operator.domain.pods import build_token_secret, token_secret_name
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.runtime.cache import Key

_BYTES: Final = 32
#: Seconds for which the token before a rotation is still tried: mounted Secrets reach their pods late.
_OVERLAP: Final = 120.0
#: A token is read from the API server at most this often.
_MIN_AGE: Final = 5.0


@dataclass
class _Known:
    token: str
    read: float
    previous: str = ""
    changed: float = 0.0


class Tokens:
    """Reads and makes the pools' token Secrets; nothing else ever reads a Secret."""

    def __init__(self, client: KubeClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._known: dict[Key, _Known] = {}

    async def ensure(self, pool: PoolView) -> str:
        """Return the pool's token; make the Secret where there is none."""
        key = (pool.namespace, pool.name)
        if key in self._known:
            return self._known[key].token
        try:
            return await self._read(key)
        except NotFoundError:
            made = build_token_secret(pool, secrets.token_urlsafe(_BYTES))
            with suppress(ConflictError):  # the other operator was quicker
                await self._client.create(paths.secrets(pool.namespace), made)
            return await self._read(key)

    async def candidates(self, key: Key, *, refused: bool = False) -> list[str]:
        """Return the tokens to try, the present one first; after a refusal the Secret is read again."""
        known = self._known.get(key)
        if known is None or (refused and self._monotonic() - known.read >= _MIN_AGE):
            await self._read(key)
            known = self._known[key]
        recent = known.previous and self._monotonic() - known.changed < _OVERLAP
        return [known.token, known.previous] if recent else [known.token]

    def forget(self, key: Key) -> None:
        """Drop a pool's token, so that it is read, or made, anew."""
        self._known.pop(key, None)

    async def _read(self, key: Key) -> str:
        secret = await self._client.get(paths.secrets(key[0], token_secret_name(key[1])))
        token = b64decode((secret.get("data") or {}).get(TOKEN_FILE, "")).decode("ascii", "replace").strip()
        now, known = self._monotonic(), self._known.get(key)
        if known is None:
            self._known[key] = _Known(token, now)
        elif known.token == token:
            known.read = now
        else:
            self._known[key] = _Known(token, now, previous=known.token, changed=now)
        return token
