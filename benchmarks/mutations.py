"""Files damaged as chance, a bad disk or an enemy damages them; a function of the random numbers given alone."""

import json
import random
import struct
import zlib

TOKENS = [b"null", b"[]", b"{}", b"-1", b"0", b"1e999", b"NaN", b'""', b'"\\ud800"', b"[" * 4000, b"9" * 400, b"true"]
VALUES = [None, [], {}, -1, 0, 2**63, 10**40, 1e308, "", "\ud800", "../../x", "/etc/passwd", "CON", "a" * 5000, True]
LONG = struct.pack("<Q", 2**40), struct.pack("<Q", 2**64 - 1), struct.pack("<Q", 0)
LARGEST = 1 << 16
"""Bytes that a mutation may add."""


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Damage a file's bytes in one to four places, within its format where that is known."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        ways = [_bits, _cut, _repeat, _insert, _token]
        ways += [_header, _header, _tensor_table] if _is_safetensors(data) else []
        ways += [_chunk, _chunk] if data.startswith(b"\x89PNG") else []
        ways += [_value, _value] if data[:1] in (b"{", b"[") else []
        data = rng.choice(ways)(data, rng)
    return data


def _bits(data, rng):
    data = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _cut(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] if rng.random() < 0.5 else data[:at] + data[at + rng.randrange(1, 64) :]


def _repeat(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at : at + rng.randrange(1, 64)] * rng.choice((2, 3, 100)) + data[at:]


def _insert(data, rng):
    at = rng.randrange(len(data) + 1)
    more = rng.choice((rng.randbytes(rng.randrange(1, 32)), *LONG, bytes(rng.randrange(1, 4096))))
    return data[:at] + more + data[at + rng.choice((0, len(more))) :]


def _token(data, rng):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at + rng.randrange(8) :]


def _value(data, rng):
    """Change one value or name of a JSON text."""
    try:
        return json.dumps(_changed(json.loads(data), rng)).encode()
    except (ValueError, RecursionError):
        return _bits(data, rng)


def _changed(value, rng):
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kept = {k: v for k, v in value.items() if k != key or rng.random() < 0.9}
        if rng.random() < 0.15:
            kept[str(rng.choice(VALUES))] = value[key]
            return kept
        return {k: _changed(v, rng) if k == key else v for k, v in kept.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return [_changed(v, rng) if i == at else v for i, v in enumerate(value)]
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.8:  # JSON in JSON, as metadata has it
        return _value(value.encode(), rng).decode("utf-8", "replace")
    if isinstance(value, int) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 2**31, -(2**31)))
    return rng.choice(VALUES)


def _is_safetensors(data):
    return len(data) > 9 and data[8:9] == b"{" and 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8


def _header(data, rng):
    """Change the header of a safetensors file and keep its length right."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = _value(data[8:end], rng)
    return struct.pack("<Q", len(header)) + header + data[end:]


def _tensor_table(data, rng):
    """Give a tensor another type or shape that fits its bytes, or another tensor's place."""
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:end])
        names = [name for name in header if name != "__metadata__"]
        one, other = rng.choice(names), rng.choice(names)
        about = dict(header[one])
        count = about["data_offsets"][1] - about["data_offsets"][0]
        if rng.random() < 0.5:
            header[one], header[other] = header[other], about
        else:
            dtype, size = rng.choice((("U8", 1), ("F16", 2), ("BF16", 2), ("I64", 8), ("F32", 4), ("BOOL", 1)))
            header[one] = {**about, "dtype": dtype, "shape": rng.choice(([count // size], [1, count // size], []))}
    except (ValueError, LookupError, TypeError, RecursionError):
        return _bits(data, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[end:]


def _chunk(data, rng):
    """Change the content of one chunk of a PNG and make its checksum right again."""
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((at, length))
        at += 12 + length
    at, length = rng.choice(chunks or [(8, 0)])
    content = bytearray(data[at + 8 : at + 8 + length])
    if content:
        if rng.random() < 0.3:
            start = rng.randrange(0, len(content), 4)
            content[start : start + 4] = rng.choice((b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(4)))
        content[rng.randrange(len(content))] = rng.randrange(256)
    kind = data[at + 4 : at + 8]
    whole = struct.pack(">I", len(content)) + kind + bytes(content) + struct.pack(">I", zlib.crc32(kind + content))
    return data[:at] + whole + data[at + 12 + length :]
