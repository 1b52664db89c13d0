"""What a client that minds nothing sends: the cases of Autobahn's fuzzing client, as the bytes of their frames.

A case is a name and a list of pieces; each piece is written on its own, so that frames also arrive in parts.
"""

import random
import struct

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
MASK = b"\x37\xfa\x21\x3d"


def frame(opcode, payload=b"", fin=True, rsv=0, mask=MASK, length=None):
    """A client's frame; `length` is what its head says when that is not the truth."""
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if mask else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 1 << 16:
        head += struct.pack("!BH", bit | 126, size)
    else:
        head += struct.pack("!BQ", bit | 127, size)
    if not mask:
        return head + payload
    return head + mask + masked(payload, mask)


def masked(payload, mask):
    keys = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(payload), "big")


def close(code=1000, reason=b""):
    return frame(CLOSE, struct.pack("!H", code) + (reason.encode() if isinstance(reason, str) else reason))


def chopped(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


def cases():
    """All of them: (name, pieces)."""
    yield from messages()
    yield from pings()
    yield from reserved()
    yield from fragments()
    yield from encodings()
    yield from closings()
    yield from lengths()


SIZES = (0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20)


def messages():
    for opcode, name, byte in ((TEXT, "text", b"*"), (BINARY, "binary", b"\xfe")):
        for size in SIZES:
            yield f"{name} of {size}", [frame(opcode, byte * size), close()]
        yield f"{name} of 65536 in pieces of 997", [*chopped(frame(opcode, byte * 65_536), 997), close()]
        yield f"{name} of 128 byte by byte", [*chopped(frame(opcode, byte * 128), 1), close()]
        yield f"100 of {name} in one piece", [frame(opcode, byte * 50) * 100 + close()]


def pings():
    for name, payload in (("nothing", b""), ("text", b"Hello, world!"), ("binary", b"\x00\xff\xfe\xfd"), ("125", b"\xfe" * 125)):
        yield f"a ping of {name}", [frame(PING, payload), close()]
        yield f"an unasked pong of {name}", [frame(PONG, payload), frame(PING, b"behind"), close()]
    yield "a ping of 126", [frame(PING, b"\xfe" * 126)]
    yield "a ping of 125 byte by byte", [*chopped(frame(PING, b"\xfe" * 125), 1), close()]
    yield "ten pings", [*(frame(PING, str(number)) for number in range(10)), close()]
    yield "ten pings in one piece", [b"".join(frame(PING, str(number)) for number in range(10)) + close()]
    yield "a fragmented ping", [frame(PING, b"a", fin=False), frame(0, b"b")]
    yield "a fragmented pong", [frame(PONG, b"a", fin=False), frame(0, b"b")]


def reserved():
    for bits in range(1, 8):
        for name, opcode in (("text", TEXT), ("ping", PING), ("close", CLOSE)):
            yield f"reserved bits {bits} of {name}", [frame(TEXT, "before"), frame(opcode, b"", rsv=bits), frame(PING, "behind")]
    for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        yield f"opcode {opcode}", [frame(opcode), frame(PING)]
        yield f"opcode {opcode} with a payload, after a message", [frame(TEXT, "before"), frame(opcode, b"payload"), frame(PING)]
    yield "a frame without a mask", [frame(TEXT, "bare", mask=None)]
    yield "a mask of zeros", [frame(TEXT, "zeros", mask=bytes(4)), close()]


def fragments():
    first, second, last = frame(TEXT, "one", fin=False), frame(0, "two", fin=False), frame(0, "three")
    yield "two fragments", [first, last, close()]
    yield "three fragments", [first, second, last, close()]
    yield "three fragments in one piece", [first + second + last + close()]
    yield "three fragments byte by byte", [*chopped(first + second + last, 1), close()]
    yield "fragments with pings between them", [first, frame(PING, "a"), second, frame(PING, "b"), last, close()]
    yield "fragments with pongs between them", [first, frame(PONG, "a"), second, frame(PONG, "b"), last, close()]
    yield "fragments of nothing", [frame(TEXT, "", fin=False), frame(0, "", fin=False), frame(0, ""), close()]
    yield "fragments of which one is something", [frame(TEXT, "", fin=False), frame(0, "x", fin=False), frame(0, ""), close()]
    yield "a continuation of nothing", [frame(0, "stray"), frame(TEXT, "x")]
    yield "an unfinished continuation of nothing", [frame(0, "stray", fin=False), frame(TEXT, "x")]
    yield "a message within a message", [first, frame(TEXT, "another")]
    yield "a close within a message", [first, close()]
    yield "a message, then a stray continuation", [first, last, frame(0, "stray")]
    for size in (64, 256, 1024, 4096, 65_536):
        parts = chopped(bytes(1 << 18), size)
        frames = [frame(BINARY, parts[0], fin=False), *(frame(0, part, fin=False) for part in parts[1:]), frame(0), close()]
        yield f"256 KiB in fragments of {size}", [b"".join(frames)]


VALID = [
    "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\x80", "\u0800", "\U00010000", "\x7f", "\u07ff", "\uffff", "\ud7ff", "\ue000", "\ufffd",
    "\U0010ffff", "\ufffe", "\U0001fffe", "☺\U0001f608", "a\u0300", "\u202e", "line\r\nbreak",
]  # fmt: skip
INVALID = [
    "80", "bf", "80bf", "80bf80bf80", "c020", "c320", "e020f020", "c0", "e080", "f08080", "f8808080", "fc80808080", "dfe0", "efbf",
    "f7bfbf", "fbbfbfbf", "fdbfbfbfbf", "fe", "ff", "fefeffff", "c0af", "e080af", "f08080af", "f8808080af", "fc80808080af", "c1bf",
    "e09fbf", "f08fbfbf", "f887bfbfbf", "c080", "e08080", "f0808080", "eda080", "edadbf", "edae80", "edafbf", "edb080", "edbe80",
    "edbfbf", "eda080edb080", "edafbfedbfbf", "f4908080", "cebae1bdb9cf83cebcceb5eda080656469746564", "f8888080 80".replace(" ", ""),
]  # fmt: skip


def encodings():
    for number, text in enumerate(VALID):
        yield f"text {number} that is UTF-8", [frame(TEXT, text), close()]
        yield f"text {number} that is UTF-8, in a fragment a byte", [*fragment_a_byte(text.encode()), close()]
    for text in map(bytes.fromhex, INVALID):
        yield f"text that is not UTF-8: {text.hex()}", [frame(TEXT, b"ok " + text + b" ok"), frame(PING)]
        yield f"in a fragment a byte: {text.hex()}", [b"".join(fragment_a_byte(text)), frame(PING)]
        yield f"a reason that is not UTF-8: {text.hex()}", [close(1000, text)]


def fragment_a_byte(data):
    yield frame(TEXT, data[:1], fin=False)
    for at in range(1, len(data)):
        yield frame(0, data[at : at + 1], fin=False)
    yield frame(0)


def closings():
    yield "an empty close", [frame(CLOSE)]
    yield "a close of one byte", [frame(CLOSE, b"\x03")]
    yield "a close with a reason", [close(1000, "Hello World!")]
    yield "a close with a reason of 123", [close(1000, "*" * 123)]
    yield "a close with a reason of 124", [close(1000, "*" * 124)]
    yield "two closes", [close(), close()]
    yield "a ping behind a close", [close(), frame(PING)]
    yield "a message behind a close", [close(), frame(TEXT, "late")]
    yield "1 MiB, and a close in the same breath", [frame(BINARY, bytes(1 << 20)) + close() + frame(PING)]
    for code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999):
        yield f"close {code}", [close(code)]
    for code in (0, 999, 1004, 1005, 1006, 1014, 1015, 1016, 1100, 2000, 2999, 5000, 65_535):
        yield f"close {code}, which there is not", [close(code)]


def lengths():
    yield "a length in more bytes than needed", [b"\x82\xfe\x00\x05" + MASK + b"\x37\xfa\x21\x3d\x37", close()]
    yield "a length of 2^63", [b"\x82\xff" + b"\xff" * 8 + MASK + b"x"]
    yield "more than the server takes", [frame(BINARY, bytes(100), length=64 << 20)]
    noise = random.Random(1)
    for number in range(20):
        yield f"noise {number}", [noise.randbytes(noise.randrange(2, 400)), close()]
