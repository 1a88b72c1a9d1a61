"""Supabase as a projector's target: one request a call, of a function that the migrations made.

A batch travels as text inside the request, so that its numbers arrive as they were written. A
write is never repeated by the client itself: whether it was stored, the position says.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from callboard_broker.errors import BadInput, TargetAway, TargetRefused

try:
    import httpx
    from postgrest import APIError
    from supabase import AsyncClient, AsyncClientOptions, acreate_client
except ImportError as error:  # pragma: no cover  the tests have it
    raise BadInput("to", "Supabase needs its client: pip install 'callboard[supabase]'") from error

__all__ = ["SupabaseTarget"]

_SECONDS = 15
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_ARGUMENT = {
    "callboard_cerebral_check": "question",
    "callboard_cerebral_find": "question",
    "callboard_find": "question",
    "callboard_versions": "question",
}
_TRANSIENT = ("08", "40", "53", "55", "57", "58", "PGRST0")


class SupabaseTarget:
    """A project. url: `https://....supabase.co`. key: of the service role, or a secret key; it
    goes into the requests' headers and nowhere else. Raises `BadInput`."""

    def __init__(self, url: str, key: str) -> None:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
        except ValueError:
            host, parts = "", urlsplit("")
        if parts.scheme not in ("https", "http") or not host or parts.username or parts.query:
            raise BadInput("supabase_url", "must be the address of a project, https://...")
        if parts.scheme == "http" and host not in _LOCAL:
            raise BadInput("supabase_url", "must begin with https://: the key would be readable")
        if not key or not key.isascii() or any(letter.isspace() for letter in key):
            raise BadInput("supabase_key", "is no key; set CALLBOARD_SUPABASE_KEY or a file")
        self._url, self._key = url.rstrip("/"), key
        self._host = host if parts.port is None else f"{host}:{parts.port}"
        self._http: httpx.AsyncClient | None = None
        self._client: AsyncClient | None = None

    def __repr__(self) -> str:
        return f"SupabaseTarget({self.name})"

    @property
    def name(self) -> str:
        """`supabase://` and the project's host."""
        return f"supabase://{self._host}"

    async def call(self, function: str, document: str) -> Any:
        """See `Target.call`."""
        client = await self._connected()
        argument = {_ARGUMENT.get(function, "batch"): document}
        try:
            answer: Any = (await client.rpc(function, argument).execute()).data
        except APIError as error:
            raise self._told(error) from None
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise TargetAway(f"{self.name}: {said}") from None
        except json.JSONDecodeError:  # of a proxy in between
            raise TargetAway(f"{self.name} answers with something that is no JSON") from None
        return answer

    async def _connected(self) -> AsyncClient:
        if self._client is None:
            self._http = httpx.AsyncClient(timeout=_SECONDS, follow_redirects=False)
            options = AsyncClientOptions(
                postgrest_client_timeout=_SECONDS,
                httpx_client=self._http,
                auto_refresh_token=False,
                persist_session=False,
            )
            self._client = await acreate_client(self._url, self._key, options)
        return self._client

    def _told(self, error: APIError) -> TargetAway | TargetRefused:
        code, text = str(error.code or ""), str(error.message or "refused")
        status = code if len(code) == 3 and code.isdecimal() else ""
        if not code or status.startswith("5") or status == "429" or code.startswith(_TRANSIENT):
            return TargetAway(f"{self.name}: {text[:500]} ({code or 'no code'})")
        return TargetRefused(code, text[:500])

    async def close(self) -> None:
        """Close its connections."""
        self._client = None
        if self._http is not None:
            await self._http.aclose()
            self._http = None
