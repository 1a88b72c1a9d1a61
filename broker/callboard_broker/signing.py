"""Ed25519 keys with names, as the signed notes of C2SP have them, in files and in text.

A key's id is the first four bytes of SHA-256(name, newline, 0x01, public key). In text a public key
is `<name>+<id in hex>+<base64 of 0x01 and 32 bytes>`, a private one the same behind
`PRIVATE+KEY+`: the format of Go's `sumdb/note`, so that other tools read it, too. The curve is
libsodium's, by its plain bindings: they take a megabyte, and a host must stay small.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from pathlib import Path
from typing import Self

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from callboard_broker.errors import BadInput

__all__ = ["PublicKey", "SigningKey"]

_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_LONGEST = 1_000
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64


class PublicKey:
    """What a signature is checked with. raw: 32 bytes. name: whose it is. id: 4 bytes."""

    def __init__(self, name: str, raw: bytes) -> None:
        self.name = _checked(name)
        self.raw = raw
        if len(raw) != _KEY_BYTES:
            raise BadInput("key", f"not a public key: {len(raw)} bytes instead of {_KEY_BYTES}")
        self.id = _key_id(name, raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<name>+<id>+<base64>`. Raises `BadInput`."""
        name, raw = _parse(text.strip(), "public")
        return cls(name, raw)

    @classmethod
    def read(cls, text_or_path: str) -> Self:
        """The key that stands here, or in the file of this name. Raises `BadInput`."""
        if text_or_path.count("+") >= 2:
            return cls.parse(text_or_path)
        path = Path(text_or_path)
        try:
            return cls.parse(path.read_text(encoding="utf-8")[: _LONGEST + 1])
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("key", f"{path} cannot be read: {error}") from error

    def verifies(self, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's, of `data`."""
        if len(signature) != _SIGNATURE_BYTES:
            return False
        try:
            crypto_sign_open(signature + data, self.raw)
        except BadSignatureError:
            return False
        return True

    def __str__(self) -> str:
        return _text(self.name, self.id, self.raw)


class SigningKey:
    """A private key. public: what its signatures are checked with. seed: 32 bytes."""

    def __init__(self, name: str, seed: bytes) -> None:
        raw, self._key = crypto_sign_seed_keypair(seed)
        self.public = PublicKey(name, raw)
        self._seed = seed

    @classmethod
    def new(cls, name: str) -> Self:
        """A new key. name: ends in `/` to be followed by eight hex digits of the key itself."""
        made = cls(name, secrets.token_bytes(_KEY_BYTES))
        if name.endswith("/"):
            return cls(name + hashlib.sha256(made.public.raw).hexdigest()[:8], made._seed)
        return made

    @classmethod
    def read(cls, path: Path) -> Self:
        """The key in the file `path`. Raises `BadInput` (unreadable), `FileNotFoundError`."""
        try:
            text = path.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput("key", f"{path} cannot be read: {error}") from error
        if not text.startswith(_PRIVATE):
            raise BadInput("key", f"{path} holds no private key; one begins with {_PRIVATE}")
        name, seed = _parse(text.removeprefix(_PRIVATE), "private")
        found = cls(name, seed)
        if text.removeprefix(_PRIVATE).split("+")[1] != found.public.id.hex():
            raise BadInput("key", f"{path} is damaged: its id is not that of its key")
        return found

    @classmethod
    def read_or_make(cls, path: Path, name: str) -> Self:
        """The key in `path`; a new one, in a file that only its owner may read, if there is none.

        Raises `BadInput`, and `OSError` as it comes.
        """
        try:
            return cls.read(path)
        except FileNotFoundError:
            made = cls.new(name)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{made.text()}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # not over a key that somebody else has made meanwhile
        except FileExistsError:
            return cls.read(path)
        finally:
            draft.unlink()
        return made

    def named(self, name: str) -> SigningKey:
        """The same key under another name."""
        return SigningKey(name, self._seed)

    def text(self) -> str:
        """The private key as its file holds it."""
        return _PRIVATE + _text(self.public.name, self.public.id, self._seed)

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return crypto_sign(data, self._key)[:_SIGNATURE_BYTES]


def _text(name: str, key_id: bytes, raw: bytes) -> str:
    return f"{name}+{key_id.hex()}+{base64.b64encode(_ED25519 + raw).decode()}"


def _parse(text: str, kind: str) -> tuple[str, bytes]:
    name, _, rest = text.partition("+")
    key_id, _, encoded = rest.partition("+")
    try:
        if len(text) > _LONGEST:
            raise BadInput("key", "too long to be a key")
        raw = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise BadInput("key", f"not a {kind} key (name+id+base64): {error}") from error
    if len(raw) != 33 or raw[:1] != _ED25519:
        raise BadInput("key", f"not a {kind} Ed25519 key (name+id+base64)")
    if kind == "public" and key_id != _key_id(name, raw[1:]).hex():
        raise BadInput("key", "the id in it is not that of its name and key")
    return _checked(name), raw[1:]


def _checked(name: str) -> str:
    if not name or "+" in name or not name.isprintable() or any(map(str.isspace, name)):
        raise BadInput("key", f"{name!r} cannot be a key's name: no spaces and no plus")
    return name


def _key_id(name: str, raw: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + raw).digest()[:4]
