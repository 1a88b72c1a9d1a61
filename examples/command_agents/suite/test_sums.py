"""What the agent `test.run` runs."""

from __future__ import annotations

import os


def test_a_sum() -> None:
    """A test as any."""
    assert sum(range(10)) == 45


def test_the_environment_is_what_the_file_says() -> None:
    """Nothing of the host's environment is here."""
    assert os.environ["SUITE_LIMIT"] == "100"
    assert "CALLBOARD_NATS_URL" not in os.environ
