"""Parts of a result as they come, on stderr: stdout has the result alone, which is complete.

Texts are joined as the handler gave them; every other value is a line of JSON.
"""

from __future__ import annotations

import sys

import msgspec

from callboard.cli.screen import Screen, visible
from callboard_broker.handle import Chunk

__all__ = ["Chunks"]


class Chunks:
    """What was given so far of one task, or of the steps of one workflow."""

    def __init__(self, task: str, screen: Screen) -> None:
        self._task = task
        self._json = screen.json
        self._heard: dict[str, tuple[int, int]] = {}
        self._last = task
        self._in_line = False

    def write(self, chunk: Chunk) -> None:
        """Show it, and say what is missing before it."""
        if self._json:
            sys.stderr.write(msgspec.json.encode(chunk).decode() + "\n")
            sys.stderr.flush()
            return
        self._note_gap(chunk)
        if chunk.task != self._last:
            self.close()
            self._last = chunk.task
        if isinstance(chunk.value, str):
            self._text(chunk.value)
        else:
            self.close()
            self._text(msgspec.json.encode(chunk.value).decode() + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Let whatever comes next begin on a line of its own."""
        if self._in_line:
            self._text("\n")

    def _note_gap(self, chunk: Chunk) -> None:
        attempt, number = self._heard.get(chunk.task, (chunk.attempt, 0))
        self._heard[chunk.task] = (chunk.attempt, chunk.number)
        if chunk.attempt != attempt:
            number = 0
            self.close()
            self._text(f"callboard: attempt {chunk.attempt} begins anew\n")
        missing = chunk.number - number - 1
        if missing > 0:
            self.close()
            self._text(f"callboard: {missing} parts were not heard\n")

    def _text(self, text: str) -> None:
        for line in text.splitlines(keepends=True):
            if not self._in_line and self._last != self._task:
                sys.stderr.write(f"{self._last}: ")
            body = line.removesuffix("\n")
            self._in_line = body == line
            sys.stderr.write(visible(body) + ("" if self._in_line else "\n"))
