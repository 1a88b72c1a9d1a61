"""Signs the outcomes of a host, if that is wanted.

The key is made when the host works already, after the processes that its handlers run in were
prepared: those never have it. The library is imported only where something is signed.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from callboard_agents.options import OWN_KEY, HostOptions

__all__ = ["Signer"]


class Signer:
    """public: what a beat announces, base64; empty: nothing is signed. Raises `BadInput`."""

    def __init__(self, options: HostOptions) -> None:
        self.public = ""
        self._pool = options.pool
        self._sign: Callable[[str, str, str, bytes], bytes] | None = None
        if not options.signing:
            return
        from callboard_broker.outcome_signature import sign_outcome  # noqa: PLC0415  see above
        from callboard_broker.signing import SigningKey  # noqa: PLC0415  see above

        name = f"{options.pool}/{options.name}"
        if options.signing == OWN_KEY:
            key = SigningKey.new(name)
        else:
            key = SigningKey.read_or_make(Path(options.signing), name).named(name)
        self.public = base64.b64encode(key.public.raw).decode()
        self._sign = lambda *message: sign_outcome(key, *message)

    def headers(self, subject: str, capability: str, data: bytes) -> bytes:
        """The headers of the outcome `data`."""
        return b"" if self._sign is None else self._sign(subject, self._pool, capability, data)
