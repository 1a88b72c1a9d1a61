"""Graphs that are agents, for hosts other than those of the agents that they use."""

from __future__ import annotations

from langgraph.graph import START, StateGraph

from callboard_integrations.langgraph import agent_node, graph_agent
from tests.langgraph_agents import Form, ListNode, ask, outline, pages

asking = StateGraph(Form)
asking.add_node("outline", outline)
asking.add_node("ask", ask)
asking.add_edge(START, "outline")
asking.add_edge("outline", "ask")

asking_agent = graph_agent(asking, capability="docs.ask")

nested = StateGraph(Form)
nested.add_node("inner", agent_node("docs.ask"))
nested.add_edge(START, "inner")

nested_agent = graph_agent(nested, capability="docs.nested")

pages_agent = graph_agent(pages(ListNode(agent_node("door"))), capability="docs.pages")
