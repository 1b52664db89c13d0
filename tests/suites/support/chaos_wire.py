"""HTTP/1.1 and WebSockets as the chaos suite's clients, origins and operators speak them."""

import asyncio
import base64
import hashlib
import itertools
import json
import os
import struct
import zlib

CLOSE, BINARY = 0x8, 0x2
LARGEST = 256 * 1024


def checksum(data):
    return f"{zlib.crc32(data):08x}"


def filler(name, size):
    """So many bytes that nobody else sends."""
    unit = f"<{name}>".encode()
    return (unit * (size // len(unit) + 1))[:size]


async def read_head(reader):
    """The first line's words and the fields."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines[1:-2])
    return lines[0].split(" ", 2), {name.lower(): value.strip() for name, _, value in pairs}


async def read_body(reader, fields):
    """A whole body, by its length or in chunks."""
    if fields.get("transfer-encoding", "").lower() == "chunked":
        body = bytearray()
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return bytes(body)
    return await reader.readexactly(int(fields.get("content-length", "0")))


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def head(first, fields):
    return (first + "\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n").encode()


def accept(key):
    """What a WebSocket's key is answered with (RFC 6455 §4.2.2)."""
    return base64.b64encode(hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()


async def read_message(reader):
    """A WebSocket's frame: its opcode and what it says."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack(">H", await reader.readexactly(2))
    mask = await reader.readexactly(4) if second & 0x80 else b""
    data = await reader.readexactly(length)
    if mask:
        data = bytes(byte ^ key for byte, key in zip(data, itertools.cycle(mask)))
    return first & 0xF, data


def message(opcode, data, is_masked):
    """A WebSocket's frame, of less than 126 bytes."""
    if not is_masked:
        return bytes([0x80 | opcode, len(data)]) + data
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(data)]) + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


class Answer:
    """What the admin API says to a call."""

    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def json(self):
        return json.loads(self.body)

    def token(self):
        """Which problem it is."""
        return self.json()["type"].rsplit(":", 1)[1] if self.status >= 400 else None


async def call(path, method, target, body=None, fields=(), timeout=30):
    """One call to the admin socket.

    Raises OSError or EOFError when the connection ends before the answer, and TimeoutError.
    """
    data = b"" if body is None else json.dumps(body).encode()
    fields = [("host", "localhost"), ("connection", "close"), ("content-length", len(data)), *fields]
    async with asyncio.timeout(timeout):
        reader, writer = await asyncio.open_unix_connection(path, limit=LARGEST)
        try:
            writer.write(head(f"{method} {target} HTTP/1.1", fields) + data)
            (_, status, *_), fields = await read_head(reader)
            return Answer(int(status), fields, await read_body(reader, fields))
        finally:
            writer.close()


async def events(path):
    """What `/v1/events` tells, until the connection ends."""
    reader, writer = await asyncio.open_unix_connection(path, limit=LARGEST)
    try:
        writer.write(head("GET /v1/events HTTP/1.1", [("host", "localhost")]))
        (_, status, *_), _ = await read_head(reader)
        if status != "200":
            return
        text = ""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            text += (await reader.readexactly(size + 2))[:-2].decode()
            *whole, text = text.split("\n\n")
            for event in whole:
                data = [line[6:] for line in event.split("\n") if line.startswith("data: ")]
                if data:
                    yield json.loads("\n".join(data))
    finally:
        writer.close()
