"""The bearer tokens of the pools' lifecycle ports: made once, read again when a worker refuses one."""

import secrets
import time
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from modelpool_api.pod import TOKEN_FILE
from modelpool_operator.domain.errors import BusyError, ConflictError, NotFoundError
from modelpool_operator.domain.objects import PoolView
from modelpool_operator.domain.pods import build_token_secret, token_secret_name
from modelpool_operator.kube import paths
from modelpool_operator.kube.client import KubeClient
from modelpool_operator.runtime.cache import Key

_BYTES: Final = 32
_MAX_CHARS: Final = 4096
#: Seconds for which the token before a rotation is still tried: mounted Secrets reach their pods late.
_OVERLAP: Final = 120.0
#: A token is read from the API server at most this often.
_MIN_AGE: Final = 5.0


@dataclass
class _Known:
    token: str
    read: float
    #: uid of the pool that the Secret belongs to; "" for one that its user made
    owner: str
    previous: str = ""
    changed: float = 0.0


class Tokens:
    """Reads and makes the pools' token Secrets; nothing else ever reads a Secret."""

    def __init__(self, client: KubeClient, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._monotonic = monotonic
        self._known: dict[Key, _Known] = {}

    async def ensure(self, pool: PoolView, *, max_age: float = 0.0) -> None:
        """Make the pool's Secret where there is none; a look at most ``max_age`` seconds old is good enough.

        Pods cannot start without it, and anybody may have deleted it. Raises ``BusyError`` while the Secret of an
        earlier pool of the same name still waits to be collected as garbage.
        """
        key = (pool.namespace, pool.name)
        known = self._known.get(key)
        if known is not None and known.owner in ("", pool.uid) and self._monotonic() - known.read < max_age:
            return
        try:
            await self._read(key)
        except NotFoundError:
            made = build_token_secret(pool, secrets.token_urlsafe(_BYTES))
            with suppress(ConflictError):  # the other operator was quicker
                await self._client.create(paths.secrets(pool.namespace), made)
            await self._read(key)
        if self._known[key].owner not in ("", pool.uid):
            raise BusyError(f"the Secret {token_secret_name(pool.name)} of an earlier pool is still being removed")

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

    async def _read(self, key: Key) -> None:
        secret = await self._client.get(paths.secrets(key[0], token_secret_name(key[1])))
        token = _token((secret.get("data") or {}).get(TOKEN_FILE, ""))
        now, known = self._monotonic(), self._known.get(key)
        owner = next((ref["uid"] for ref in secret["metadata"].get("ownerReferences") or ()), "")
        if known is None:
            self._known[key] = _Known(token, now, owner)
        elif known.token == token:
            known.read, known.owner = now, owner
        else:
            self._known[key] = _Known(token, now, owner, previous=known.token, changed=now)


def _token(encoded: str) -> str:
    """Read a token; "" for what does not fit into a header: anybody with rights in the namespace may have put it."""
    token = b64decode(encoded).decode("ascii", "replace").strip()
    return token if token.isascii() and token.isprintable() and len(token) <= _MAX_CHARS else ""
