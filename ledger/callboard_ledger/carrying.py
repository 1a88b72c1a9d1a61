"""Carries checkpoints to a URL, by HTTP POST: a second place that the server cannot rewrite.

Only the newest is carried. One that does not arrive is tried again with growing pauses, until a
newer one takes its place; nothing else waits for it.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.error
import urllib.request
from contextlib import suppress
from urllib.parse import urlsplit

from callboard_broker.errors import BadInput

__all__ = ["Carrier", "check_url"]

_log = logging.getLogger(__name__)

_TRY_SECONDS = 10.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class Carrier:
    """`bring` the newest; `run` carries it. The body is the note, as text/plain in UTF-8."""

    def __init__(self, url: str) -> None:
        self._url = check_url(url)
        self._host = urlsplit(url).hostname
        self._note: str | None = None
        self._fresh = asyncio.Event()

    def bring(self, note: str) -> None:
        """Carry this one from now on."""
        self._note = note
        self._fresh.set()

    async def run(self) -> None:
        """Carry what is brought, until cancelled."""
        pause = _FIRST_PAUSE
        while True:
            await self._fresh.wait()
            self._fresh.clear()
            if await self.carry():
                pause = _FIRST_PAUSE
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._fresh.wait()
            pause = min(2 * pause, _LONGEST_PAUSE)
            self._fresh.set()

    async def carry(self) -> bool:
        """Try once, for 10 s at most; True if there is nothing to carry any more."""
        note = self._note
        if note is None:
            return True
        try:
            await asyncio.to_thread(self._post, note)
        except (OSError, ValueError) as error:  # the URL itself may hold a token: it is not logged
            reason = error.code if isinstance(error, urllib.error.HTTPError) else error
            _log.warning("the checkpoint does not reach %s: %s", self._host, reason)
            return False
        if self._note == note:
            self._note = None
        return True

    def _post(self, note: str) -> None:
        request = urllib.request.Request(  # noqa: S310  `check_url` lets only http and https pass
            self._url,
            data=note.encode(),
            headers={"Content-Type": "text/plain; charset=utf-8"},
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=_TRY_SECONDS):  # noqa: S310  as above
            pass


def check_url(url: str) -> str:
    """Raises `BadInput` for what is no http(s) address."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("checkpoint_url", "not an http:// or https:// address")
    return url
