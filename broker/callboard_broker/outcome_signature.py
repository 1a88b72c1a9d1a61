"""A host's signature of an outcome, in a header of the message, so that no reader must know of it.

Signed are the subject (with the board and the tenant), the pool, the capability, and the message
byte for byte: task, attempt, its secret, result, host and times stand there. The key's name is
`<pool>/<host>`; the ledger keeps in AUDIT which keys a host has announced in its beats.
"""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple

from callboard_broker.headers import header
from callboard_broker.signing import PublicKey, SigningKey

__all__ = ["OutcomeSignature", "sign_outcome"]

_HEADER = "Callboard-Signed"
_TEXT = b"callboard.outcome.1\n%b\n%b\n%b\n%b"


class OutcomeSignature(NamedTuple):
    """What the header says. key: the id of the key, 4 bytes. signature: 64 bytes."""

    pool: str
    capability: str
    key: bytes
    signature: bytes

    @classmethod
    def read(cls, headers: bytes) -> OutcomeSignature | None:
        """The signature in a raw block; None if there is none that can be read."""
        value = header(headers, _HEADER) if headers else None
        words = [] if value is None else value.split(" ")
        if len(words) != 4:
            return None
        try:
            key, signature = bytes.fromhex(words[2]), base64.b64decode(words[3], validate=True)
        except ValueError:
            return None
        return cls(words[0], words[1], key, signature)

    def holds(self, key: PublicKey, subject: str, data: bytes) -> bool:
        """Whether `key` has signed this message."""
        text = _text(subject, self.pool, self.capability, data)
        return self.key == key.id and key.verifies(self.signature, text)


def sign_outcome(key: SigningKey, subject: str, pool: str, capability: str, data: bytes) -> bytes:
    """The header block with the signature of the outcome `data`."""
    signature = base64.b64encode(key.sign(_text(subject, pool, capability, data)))
    return b"NATS/1.0\r\n%b: %b %b %b %b\r\n\r\n" % (
        _HEADER.encode(),
        pool.encode(),
        capability.encode(),
        key.public.id.hex().encode(),
        signature,
    )


def _text(subject: str, pool: str, capability: str, data: bytes) -> bytes:
    parts = (part.encode("utf-8", "surrogateescape") for part in (subject, pool, capability))
    return _TEXT % (*parts, hashlib.sha256(data).digest())
