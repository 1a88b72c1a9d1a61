"""Asks any endpoint that speaks the chat-completions protocol, hosted or on this machine.

The key comes from an environment variable and stands in no message. A busy or broken server is
worth another attempt; a request that it refuses is not. Needs the extra `[bmad]` (httpx).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from callboard_broker.errors import BadInput
from callboard_integrations.bmad.runner import Answer, ModelRefused, Request, RunnerFailed

if TYPE_CHECKING:
    import httpx

__all__ = ["EndpointRunner"]

_BUSY = frozenset({408, 409, 425, 429})
_MAX_ANSWER = 8 * 1024 * 1024
_CONNECT_SECONDS = 10.0


class EndpointRunner:
    """url: such as `http://127.0.0.1:8000/v1`. key_variable: holds the key, if one is needed.

    timeout: seconds for one answer. Raises `BadInput` if the URL is none or httpx is missing.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str = "OPENAI_API_KEY",
        timeout: float = 600.0,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise BadInput("endpoint", "an http:// or https:// URL is needed")
        try:
            import httpx  # noqa: PLC0415  an extra: whoever has another runner needs it not
        except ImportError as error:
            raise BadInput(
                "endpoint", "httpx is missing; install the extra: pip install 'callboard[bmad]'"
            ) from error
        self.name = f"{model} at {httpx.URL(url).host}"
        self._model = model
        self._url = url.rstrip("/") + "/chat/completions"
        self._key_variable = key_variable
        self._errors = httpx.HTTPError
        self._timeout = httpx.Timeout(timeout, connect=_CONNECT_SECONDS)
        self._client = httpx.AsyncClient
        self._trust = httpx.create_ssl_context()  # once: it reads all certificates of the machine

    async def run(self, request: Request) -> Answer:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.prompt},
            ],
        }
        if request.tokens is not None:
            body["max_tokens"] = request.tokens
        key = os.environ.get(self._key_variable, "")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            async with self._client(timeout=self._timeout, verify=self._trust) as client:
                response = await client.post(self._url, json=body, headers=headers)
        except self._errors as error:
            raise RunnerFailed(f"{self.name}: {type(error).__name__}") from error
        return self._read(response)

    def _read(self, response: httpx.Response) -> Answer:
        status = response.status_code
        if status >= 500 or status in _BUSY:
            raise RunnerFailed(f"{self.name} answers {status}")
        if status >= 400:
            raise ModelRefused(f"{self.name} refuses with {status}: {response.text[:300]}")
        if len(response.content) > _MAX_ANSWER:
            raise ModelRefused(f"{self.name}: more than {_MAX_ANSWER} bytes")
        try:
            found = response.json()
            text = found["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise RunnerFailed(f"{self.name}: no chat completion in its answer") from error
        if not isinstance(text, str):
            raise RunnerFailed(f"{self.name}: its answer holds no text")
        usage = found.get("usage")
        total = usage.get("total_tokens") if isinstance(usage, dict) else None
        return Answer(text=text, tokens=total if isinstance(total, int) and total >= 0 else None)
