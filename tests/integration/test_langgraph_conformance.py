"""The public conformance suite of LangGraph's checkpointers, all of it."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from langgraph.checkpoint.conformance import checkpointer_test, validate

from callboard_integrations.langgraph import JetStreamSaver
from tests.servers import NatsServer

_TESTS = {
    "put": 17,
    "put_writes": 10,
    "get_tuple": 10,
    "list": 16,
    "delete_thread": 5,
    "delete_for_runs": 7,
    "copy_thread": 8,
    "prune": 8,
}


async def test_all_81_tests_of_the_conformance_suite_run_and_pass(
    nats: NatsServer, tell: Callable[[str], None]
):
    @checkpointer_test(name="JetStreamSaver")
    async def fresh():
        prefix = f"t{uuid.uuid4().hex[:8]}"
        async with JetStreamSaver.from_url(nats.url, prefix=prefix) as saver:
            yield saver

    report = await validate(fresh)
    report.print_report()
    passed = ", ".join(f"{name} {found.tests_passed}" for name, found in report.results.items())
    tell(f"LangGraph's conformance suite, tests passed: {passed}")
    failures = [failure for result in report.results.values() for failure in result.failures]
    assert not failures, failures
    # A saver that implements nothing is reported as complete: count what was found and has run.
    assert {name for name, result in report.results.items() if result.detected} == set(_TESTS)
    assert {name: result.tests_passed for name, result in report.results.items()} == _TESTS
    assert sum(result.tests_passed for result in report.results.values()) == 81
    assert not any(result.tests_skipped for result in report.results.values())
