"""NATS' header blocks, raw: written once, and searched for one name without being parsed."""

from __future__ import annotations

from collections.abc import Mapping

from callboard_broker.errors import BadInput

__all__ = ["header", "raw_headers", "status"]

_STATUS_START = b"NATS/1.0 "


def raw_headers(mapping: Mapping[str, str]) -> bytes:
    """Return the header block of `mapping`. Raises `BadInput` for what would break its lines."""
    lines = []
    for name, value in mapping.items():
        line = f"{name}: {value}"
        if not name or ":" in name or "\r" in line or "\n" in line:
            raise BadInput("headers", f"{name[:80]!r} does not fit into a header line")
        lines.append(line + "\r\n")
    return f"NATS/1.0\r\n{''.join(lines)}\r\n".encode()


def header(raw: bytes, name: str) -> str | None:
    """Return the first value of header `name` (case as written) in a raw block, or None."""
    start = raw.find(b"\r\n%s:" % name.encode())
    if start < 0:
        return None
    start += len(name) + 3
    stop = raw.find(b"\r\n", start)
    return raw[start : stop if stop >= 0 else len(raw)].strip().decode("utf-8", "replace")


def status(raw: bytes) -> tuple[int, str] | None:
    """Return the status line of a block (`(503, "")`, `(100, "Idle Heartbeat")`), or None."""
    if not raw.startswith(_STATUS_START):
        return None
    line = raw[len(_STATUS_START) : raw.find(b"\r\n")]
    code, _, text = line.partition(b" ")
    return (int(code), text.decode("utf-8", "replace")) if code.isdigit() else None
