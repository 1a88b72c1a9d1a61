"""What a child process says by its channel: bounded, and with the number of what was left out."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from callboard_agents.sandbox.channel import TOLD, Frames, split
from callboard_agents.sandbox.remote import Remote, _Channel, _Lines, _Records


class Ear:
    """The host's end of the channel."""

    def __init__(self) -> None:
        self._host, self._child = socket.socketpair()
        self.channel = _Channel()
        self.channel.remote = Remote(self._child, None)

    def heard(self) -> list[dict[str, Any]]:
        frames = Frames({TOLD: 1 << 20})
        found = list(frames.feed(self._host.recv(1 << 20)))
        return [json.loads(split(body)[1]) for _, _, body in found]

    def close(self) -> None:
        self._host.close()
        self._child.close()


@pytest.fixture
def ear() -> Iterator[Ear]:
    found = Ear()
    yield found
    found.close()


def test_a_child_counts_what_it_does_not_say_and_says_so_at_the_end(ear: Ear):
    ear.channel._left = 2
    for number in range(5):
        ear.channel.tell(str(number))
    ear.channel.finish()
    assert ear.heard() == [{"text": "0"}, {"text": "1"}, {"dropped": 3}]


def test_what_is_printed_is_told_by_lines_and_the_last_one_at_the_end(ear: Ear):
    lines = _Lines(ear.channel, "stdout")
    lines.write("one\ntwo")
    lines.write(" and more\nrest")
    lines.finish()
    assert [line["text"] for line in ear.heard()] == ["one", "two and more", "rest"]


def test_a_record_is_told_with_its_level_fields_and_trace(ear: Ear):
    log = logging.getLogger("library")
    log.propagate = False
    log.addHandler(_Records(ear.channel))
    log.warning("%d files", 3, extra={"fields": {"a": 1}})
    try:
        raise LookupError("not there")
    except LookupError:
        log.exception("no")
    first, second = ear.heard()
    assert first == {
        "text": "3 files",
        "level": 30,
        "logger": "library",
        "fields": {"a": 1},
        "error": "",
    }
    assert second["error"].endswith("LookupError: not there")
