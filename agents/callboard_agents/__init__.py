"""The agent SDK, the agent host process, heartbeats, drain, the local pool."""
