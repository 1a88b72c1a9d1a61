"""NATS: connection, streams, wire messages, subjects, blobs, and the client that posts."""
