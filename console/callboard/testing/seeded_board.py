"""A client whose choices come from a seed: the shard of its posts, and their nonces."""

from __future__ import annotations

import asyncio
import random

from callboard_agents.spawning import Children
from callboard_broker.client import Board, BoardOptions
from callboard_broker.connection import Connection
from callboard_broker.subjects import SHARDS

__all__ = ["SeededBoard", "SeededChildren"]


class SeededBoard(Board):
    """A board whose posts are the same in every run."""

    def __init__(
        self,
        connection: Connection,
        options: BoardOptions,
        group: asyncio.TaskGroup,
        rng: random.Random,
    ) -> None:
        super().__init__(connection, options, group)
        self._shard = rng.randrange(SHARDS)
        self._nonce = f"{rng.getrandbits(64):016x}"


class SeededChildren(Children):
    """What handlers of one host spawn, likewise."""

    def __init__(
        self, connection: Connection, *, host: str, group: asyncio.TaskGroup, rng: random.Random
    ) -> None:
        super().__init__(connection, prefix="cb", host=host, group=group)
        self._board = SeededBoard(connection, BoardOptions(name=host), group, rng)
