"""What a handler returns, as its outcome carries it: JSON that any reader accepts, or a failure."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from callboard_agents.failures import bad_result
from callboard_broker.bounds import check_document, check_size
from callboard_broker.encoding import encode_payload
from callboard_broker.errors import BadInput
from callboard_broker.wire import Failure

__all__ = ["check_result", "encode_result"]

_MAX_RESULT = 64 * 1024 * 1024  # what the reader of a blob accepts

_skim = msgspec.json.Decoder(Raw).decode


def encode_result(result: object) -> tuple[bytes | None, Failure | None]:
    """Return the JSON of what a handler of this process returned, or why it has none."""
    try:
        data = encode_payload(result, field="result")
        check_size(data, _MAX_RESULT, "result")
    except BadInput as error:
        return None, bad_result(error)
    return data, None


def check_result(data: bytes) -> tuple[bytes | None, Failure | None]:
    """Return what a child process wrote, or why it is no result: nothing in it is taken on trust.

    It is never decoded into objects, which might take many times its size in memory.
    """
    try:
        check_size(data, _MAX_RESULT, "result")
        check_document(data, field="result")
        data.decode()
        _skim(data)
    except BadInput as error:
        return None, bad_result(error)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return None, bad_result(BadInput("result", f"is no JSON: {error}"))
    return data, None
