"""What a host carries for its handlers: what they tell whoever follows, checkpoints and blobs.

A handler says a kind and bytes, wherever it runs. What is told is sent and forgotten; what is asked
for is done before the answer comes, patiently while the board cannot be reached, because the
attempt's own timeout and its lease bound the waiting.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw

from callboard_agents.checkpoints import Checkpoints
from callboard_agents.news import News
from callboard_agents.payloads import Payloads
from callboard_agents.run import Run
from callboard_broker.errors import BadInput
from callboard_broker.wire import BlobRef, encode

__all__ = ["Stagehand"]

_ref = msgspec.json.Decoder(BlobRef).decode


class Stagehand:
    """One for all attempts of a host; on its loop."""

    def __init__(self, news: News, payloads: Payloads, checkpoints: Checkpoints) -> None:
        self._news = news
        self._payloads = payloads
        self._checkpoints = checkpoints

    def tell(self, run: Run, kind: str, value: bytes) -> None:
        """Send on a `progress` or an `output`. value: JSON."""
        if kind == "output":
            run.outputs += 1
            self._news.output(run.tenant, run.dispatch, run.outputs, value)
        else:
            self._news.progress(run.tenant, run.dispatch, value)

    async def ask(self, run: Run, kind: str, data: bytes) -> bytes:
        """Do a `checkpoint` (of JSON), a `blob_put` (of anything) or a `blob_get` (of a reference).

        Returns the reference or the content of the blob. Raises `BadInput`, `LookupError` if there
        is no such blob, `LeaseEnded`, `WriteRefused`.
        """
        if kind == "checkpoint":
            await self._checkpoints.store(run, data)
            return b"null"
        if kind == "blob_put":
            return encode(await self._payloads.write(data))
        if kind == "blob_get":
            return await self._payloads.blob(_ref(data))
        raise BadInput(kind[:40], "is nothing that a host does for a handler")

    async def fetch(self, run: Run) -> bytes | Raw:
        """Return the payload of the run; what it is to be restored from is then there, too.

        Raises `LookupError` if one of them is gone, and `BadInput`.
        """
        payload = await self._payloads.read(run.dispatch)
        if run.lane.needs_context:
            run.restored = await self._payloads.restored(run.dispatch)
        return payload

    def at_hand(self, run: Run) -> bytes | Raw | None:
        """Return the payload, if nothing has to be fetched; else None."""
        dispatch = run.dispatch
        if dispatch.payload is UNSET or dispatch.restored_at is not None:
            return None
        if dispatch.restored is not UNSET:
            run.restored = dispatch.restored
        return dispatch.payload
