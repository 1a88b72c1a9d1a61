"""Settings: what holds, and where each value came from."""
