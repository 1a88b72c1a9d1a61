"""Whoever does the work: asked with the persona's bytes, and honest about what went wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from callboard_broker.errors import BadInput
from callboard_integrations.bmad import (
    CommandRunner,
    EndpointRunner,
    Request,
    RunnerChoice,
    RunnerFailed,
    chosen_runner,
)
from callboard_integrations.bmad.runner import ModelRefused
from tests.model_server import model_server, said

ASK = Request(system="You are Ada.\r\n\tÄ", prompt="Step: build\n")


async def test_an_endpoint_gets_the_text_unmodified_and_its_tokens_are_counted():
    with model_server() as model:
        answer = await EndpointRunner(model.url, "local").run(ASK)
        assert model.asked == [(ASK.system, ASK.prompt)]
    assert answer.text == said(ASK.system, ASK.prompt)
    assert answer.tokens == 42


async def test_a_busy_endpoint_is_worth_another_attempt_and_a_refusal_is_not():
    with model_server() as model:
        runner = EndpointRunner(model.url, "local")
        for status in (503, 429):
            model.fail_with = [status]
            with pytest.raises(RunnerFailed, match=str(status)) as failed:
                await runner.run(ASK)
            assert not isinstance(failed.value, ModelRefused)
        model.fail_with = [401]
        with pytest.raises(ModelRefused, match="401") as refused:
            await runner.run(ASK)
        assert refused.value.retry is False
    with pytest.raises(RunnerFailed, match="Connect"):
        await runner.run(ASK)


async def test_the_key_stands_in_no_message(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODEL_KEY", "very-secret")
    with model_server() as model:
        runner = EndpointRunner(model.url, "local", key_variable="MODEL_KEY")
        model.fail_with = [400]
        with pytest.raises(ModelRefused) as refused:
            await runner.run(ASK)
    assert "very-secret" not in f"{refused.value!r}{runner.name}{vars(runner)}"


async def test_a_command_gets_prompt_persona_and_folder(tmp_path: Path):
    program = tmp_path / "tool.py"
    program.write_text(
        "import os, sys\n"
        "system = open(sys.argv[1], 'rb').read()\n"
        "assert open(os.environ['CALLBOARD_SYSTEM_PROMPT'], 'rb').read() == system\n"
        "sys.stdout.buffer.write(system + b'|' + sys.stdin.buffer.read())\n"
        "open('here', 'w').close()\n"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    runner = CommandRunner(f"{sys.executable} {program} {{system}}")
    answer = await runner.run(Request(system=ASK.system, prompt=ASK.prompt, folder=folder))
    assert answer.text == f"{ASK.system}|{ASK.prompt}"
    assert answer.tokens is None
    assert (folder / "here").exists()


async def test_git_in_a_command_sees_the_tasks_folder_and_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    ask = Request(system=ASK.system, prompt=ASK.prompt, folder=tmp_path)
    line = "import os; print(os.environ.get('GIT_DIR'), os.environ['GIT_CEILING_DIRECTORIES'])"
    answer = await CommandRunner(f'{sys.executable} -c "{line}"').run(ask)
    assert answer.text.split() == ["None", str(tmp_path.parent)]


async def test_a_command_that_fails_says_why():
    runner = CommandRunner(f"{sys.executable} -c 'import sys; sys.exit(\"no model\")'")
    with pytest.raises(RunnerFailed, match="ended with 1: no model"):
        await runner.run(ASK)
    with pytest.raises(RunnerFailed, match="does not start"):
        await CommandRunner("/nowhere/tool").run(ASK)


def test_exactly_one_way_to_do_the_work_must_be_named():
    with pytest.raises(BadInput, match="--endpoint"):
        chosen_runner(RunnerChoice())
    with pytest.raises(BadInput, match="--endpoint"):
        chosen_runner(RunnerChoice(endpoint="http://x", model="m", command="y"))
    with pytest.raises(BadInput, match="--model"):
        chosen_runner(RunnerChoice(endpoint="http://x"))
    with pytest.raises(BadInput, match="ainvoke"):
        chosen_runner(RunnerChoice(chat="os:path"))
    with pytest.raises(BadInput, match="cannot be imported"):
        chosen_runner(RunnerChoice(graph="no_such_module:x"))


async def test_a_langchain_chat_model_answers():
    models = pytest.importorskip("langchain_core.language_models")
    from callboard_integrations.bmad import ChatModelRunner  # noqa: PLC0415  after the skip

    model = models.GenericFakeChatModel(messages=iter(["built"]))
    answer = await ChatModelRunner(model).run(ASK)
    assert answer.text == "built"


async def test_a_langgraph_answers_with_its_last_message():
    graphs = pytest.importorskip("langgraph.graph")
    from callboard_integrations.bmad import GraphRunner  # noqa: PLC0415  after the skip

    def echo(state: dict[str, list[object]]) -> dict[str, object]:
        told = [getattr(message, "content", "") for message in state["messages"]]
        return {"messages": [("ai", "|".join(map(str, told)))]}

    graph = graphs.StateGraph(graphs.MessagesState)
    graph.add_node("echo", echo)
    graph.add_edge(graphs.START, "echo")
    answer = await GraphRunner(graph.compile()).run(ASK)
    assert answer.text == f"{ASK.system}|{ASK.prompt}"
