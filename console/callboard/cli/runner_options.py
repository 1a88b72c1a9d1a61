"""The options by which a command names who does the work, and under which budgets."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Agents", "Budget", "Chat", "Endpoint", "Graph", "KeyVariable", "Line", "Model", "Wait"]

Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Of chat completions, up to /v1.", show_default=False),
]
Model = Annotated[
    str | None, typer.Option(metavar="NAME", help="The endpoint's.", show_default=False)
]
KeyVariable = Annotated[
    str, typer.Option(metavar="NAME", help="The variable with the endpoint's key.")
]
Line = Annotated[
    str | None,
    typer.Option(
        metavar="LINE", help="The prompt on its input; {system}: a file.", show_default=False
    ),
]
Chat = Annotated[
    str | None,
    typer.Option(metavar="MODULE:NAME", help="A LangChain chat model.", show_default=False),
]
Graph = Annotated[
    str | None,
    typer.Option(metavar="MODULE:NAME", help="A compiled LangGraph.", show_default=False),
]
Budget = Annotated[list[str] | None, typer.Option(metavar="KEY", help="Such as provider:openai.")]
Agents = Annotated[bool, typer.Option("--agents/--no-agents", help="Do the work here as well.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the end.")]
