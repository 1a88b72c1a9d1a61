"""What whoever verifies knows beforehand: the log's public key, and checkpoints kept outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from callboard_broker.signing import PublicKey
from callboard_ledger.checkpoints import own_keys, read_checkpoints
from callboard_ledger.notes import Checkpoint

__all__ = ["Trust", "trust_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a verifier knows beforehand. keys: of the log. checkpoints: kept outside the server."""

    keys: Sequence[PublicKey] = ()
    checkpoints: Sequence[Checkpoint] = ()


def trust_of(directory: Path) -> Trust:
    """The key and the checkpoints in the directory of a ledger, as far as it has any.

    Raises `BadInput` if they are damaged.
    """
    keys = own_keys(directory)
    return Trust(keys=keys, checkpoints=read_checkpoints(directory, keys))
