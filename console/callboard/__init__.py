"""Callboard: an event-driven actor system over NATS JetStream."""
