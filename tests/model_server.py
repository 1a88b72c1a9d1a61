"""A model for tests: a real HTTP endpoint on loopback, whose answers follow from the request alone.

It keeps what it was asked, counts how many requests it holds at once, and can hold them back until
as many have come as a test waits for.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["ModelServer", "model_server"]

STORIES = "".join(
    f"### Story {epic}.{number}: Part {number} of epic {epic}\n"
    for epic in (1, 2)
    for number in (1, 2, 3)
)
_PATIENCE = 20.0


class ModelServer:
    """asked: `(system, prompt)` of each request. most: the highest number at once.

    most_of_epic: likewise of each epic's stories.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, str]] = []
        self.most = 0
        self.most_of_epic: dict[str, int] = {}
        self._now_of_epic: Counter[str] = Counter()
        self.fail_with: list[int] = []
        self.meeting: tuple[str, int] | None = None
        self._now = 0
        self._met = 0
        self._changed = threading.Condition()

    def meet(self, word: str, count: int) -> None:
        """Answer prompts with `word` in them only when `count` of them are there at once."""
        self.meeting = (word, count)
        self._met = 0

    def wait_for(self, count: int) -> None:
        """Return when so many requests have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, _PATIENCE)

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        system, prompt = (message["content"] for message in body["messages"])
        with self._changed:
            if self.fail_with:
                return self.fail_with.pop(0), {"error": {"message": "planned"}}
            self.asked.append((system, prompt))
            self._changed.notify_all()
            meets = self.meeting is not None and self.meeting[0] in prompt
            if meets:
                self._now += 1
                self.most = max(self.most, self._now)
                epic = (re.findall(r'"epic":"(\d+)"', prompt) or [""])[0]
                self._now_of_epic[epic] += 1
                most = max(self.most_of_epic.get(epic, 0), self._now_of_epic[epic])
                self.most_of_epic[epic] = most
                self._changed.notify_all()
                if not self._changed.wait_for(self._all_met, _PATIENCE):
                    return 500, {"error": {"message": "the others did not come"}}
                self._now -= 1
                self._now_of_epic[epic] -= 1
        text = said(system, prompt)
        usage = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
        return 200, {
            "choices": [{"message": {"role": "assistant", "content": text}}],
            "usage": usage,
        }

    def _all_met(self) -> bool:
        assert self.meeting is not None
        if self._now >= self.meeting[1]:
            self._met = max(self._met, self._now)
        return self._met >= self.meeting[1]


def said(system: str, prompt: str) -> str:
    """Name what was read, so that a test sees it arrive further down."""
    digest = hashlib.sha256(f"{system}\0{prompt}".encode()).hexdigest()[:12]
    stories = STORIES if "sharded" in prompt or "shard" in prompt else ""
    return f"answer {digest}\n{stories}"


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Serve on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, answer = model.answer(body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Tests read the requests, not their log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    model = ModelServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield model
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
