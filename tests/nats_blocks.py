"""Forges a message in nats-server's file store, checksum and all, as an intruder with its source
at hand would: the server then serves the changed message as its own.

A record of a `.blk` file is: length (4 bytes, its top bit says that there are headers), sequence
(8), time (8), length of the subject (2), subject, [length of the headers (4), headers], payload,
and a HighwayHash-64 over all but the lengths, keyed by the SHA-256 of `<stream>-<block's number>`.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Forged", "forge", "highway_hash"]

_MASK = (1 << 64) - 1
_HEADERS = 1 << 31
_MUL0 = (0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3)
_MUL1 = (0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377)


class Forged(NamedTuple):
    """What a record says; all of it may be changed but the lengths."""

    at_ns: int
    subject: bytes
    headers: bytes
    payload: bytes


def forge(
    block: bytearray, stream: str, number: int, seq: int, change: Callable[[Forged], Forged]
) -> None:
    """Change message `seq` in place. Raises `LookupError`, and `ValueError` if the checksum that
    stands there is not the one that this module computes."""
    key = hashlib.sha256(f"{stream}-{number}".encode()).digest()
    place = 0
    while place < len(block):
        length, found, at_ns, size = struct.unpack_from("<IQqH", block, place)
        end = place + (length & ~_HEADERS)
        if found == seq:
            start = place + 22 + size
            subject = bytes(block[place + 22 : start])
            headers = b""
            if length & _HEADERS:
                (taken,) = struct.unpack_from("<I", block, start)
                start += 4
                headers = bytes(block[start : start + taken])
            payload = bytes(block[start + len(headers) : end - 8])
            record = Forged(at_ns, subject, headers, payload)
            if _checksum(key, seq, record) != bytes(block[end - 8 : end]):
                raise ValueError("the store's format is not the one that is known here")
            forged = change(record)
            if [len(part) for part in forged[1:]] != [len(part) for part in record[1:]]:
                raise ValueError("a forged part must be as long as the true one")
            struct.pack_into("<q", block, place + 12, forged.at_ns)
            block[place + 22 : place + 22 + size] = forged.subject
            block[start : end - 8] = forged.headers + forged.payload
            block[end - 8 : end] = _checksum(key, seq, forged)
            return
        place = end
    raise LookupError(f"no message {seq}")


def _checksum(key: bytes, seq: int, record: Forged) -> bytes:
    numbers = struct.pack("<Qq", seq, record.at_ns)
    return highway_hash(key, numbers + record.subject + record.headers + record.payload)


def highway_hash(key: bytes, data: bytes) -> bytes:
    """HighwayHash-64 (github.com/google/highwayhash) of `data` under a key of 32 bytes."""
    keys = struct.unpack("<4Q", key)
    mul0, mul1 = list(_MUL0), list(_MUL1)
    v0 = [mul ^ part for mul, part in zip(mul0, keys, strict=True)]
    v1 = [mul ^ _rotate(part, 32) for mul, part in zip(mul1, keys, strict=True)]
    state = (v0, v1, mul0, mul1)
    whole = len(data) & ~31
    for start in range(0, whole, 32):
        _update(state, struct.unpack_from("<4Q", data, start))
    rest = data[whole:]
    if rest:
        size = len(rest)
        for lane in range(4):
            v0[lane] = (v0[lane] + (size << 32) + size) & _MASK
            low, high = v1[lane] & 0xFFFFFFFF, v1[lane] >> 32
            v1[lane] = _rotate32(low, size) | _rotate32(high, size) << 32
        packet = bytearray(32)
        body = size & ~3
        packet[:body] = rest[:body]
        if size & 16:
            packet[28:32] = rest[size - 4 :]
        elif tail := size & 3:
            last = rest[body:]
            packet[16], packet[17], packet[18] = last[0], last[tail >> 1], last[tail - 1]
        _update(state, struct.unpack("<4Q", packet))
    for _ in range(4):
        _update(state, tuple(_rotate(v0[lane], 32) for lane in (2, 3, 0, 1)))
    return struct.pack("<Q", (v0[0] + v1[0] + mul0[0] + mul1[0]) & _MASK)


def _update(
    state: tuple[list[int], list[int], list[int], list[int]], lanes: tuple[int, ...]
) -> None:
    v0, v1, mul0, mul1 = state
    for lane in range(4):
        v1[lane] = (v1[lane] + mul0[lane] + lanes[lane]) & _MASK
        mul0[lane] ^= (v1[lane] & 0xFFFFFFFF) * (v0[lane] >> 32)
        v0[lane] = (v0[lane] + mul1[lane]) & _MASK
        mul1[lane] ^= (v0[lane] & 0xFFFFFFFF) * (v1[lane] >> 32)
    for source, target in ((v1, v0), (v0, v1)):
        for low in (0, 2):
            first, second = _zipper(source[low + 1], source[low])
            target[low] = (target[low] + first) & _MASK
            target[low + 1] = (target[low + 1] + second) & _MASK


def _zipper(high: int, low: int) -> tuple[int, int]:
    first = (
        ((low & 0xFF000000) | (high & 0xFF00000000)) >> 24
        | ((low & 0xFF0000000000) | (high & 0xFF000000000000)) >> 16
        | (low & 0xFF0000)
        | (low & 0xFF00) << 32
        | (high & 0xFF00000000000000) >> 8
        | (low << 56) & _MASK
    )
    second = (
        ((high & 0xFF000000) | (low & 0xFF00000000)) >> 24
        | (high & 0xFF0000)
        | (high & 0xFF0000000000) >> 16
        | (high & 0xFF00) << 24
        | (low & 0xFF000000000000) >> 8
        | (high & 0xFF) << 48
        | low & 0xFF00000000000000
    )
    return first, second


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _rotate32(value: int, bits: int) -> int:
    return (value << bits | value >> (32 - bits)) & 0xFFFFFFFF if bits % 32 else value
