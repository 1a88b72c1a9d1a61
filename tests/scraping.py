"""Reads metrics as Prometheus does."""

from __future__ import annotations

import asyncio
import socket
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from callboard_broker.endpoint import Endpoint

__all__ = ["Samples", "free_endpoint", "scrape"]

Samples = dict[tuple[str, ...], float]
"""Each sample by its name and the values of its labels, in their alphabetical order."""


def free_endpoint() -> Endpoint:
    """At a port that nobody has at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return Endpoint(found.getsockname()[1])


async def scrape(endpoint: Endpoint) -> Samples:
    """Fetch everything that is shown there."""

    def get() -> str:
        with urlopen(endpoint.url) as answer:  # noqa: S310  http, of this machine
            text: str = answer.read().decode()
            return text

    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(await asyncio.to_thread(get))
        for sample in family.samples
    }
