"""As much of HTTP/2 as the chaos suite needs, for its clients and its origins: frames, and heads in HPACK.

Heads are written without compression and read with all of it (RFC 7541). Payloads are smaller than a frame, and windows are
given back as soon as they are used.
"""

import collections
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8
END_STREAM = ACK = 0x1
END_HEADERS = 0x4
REFUSED_STREAM = 0x7

STATIC = (
    ":authority|:method=GET|:method=POST|:path=/|:path=/index.html|:scheme=http|:scheme=https|:status=200|:status=204|"
    ":status=206|:status=304|:status=400|:status=404|:status=500|accept-charset|accept-encoding=gzip, deflate|accept-language|"
    "accept-ranges|accept|access-control-allow-origin|age|allow|authorization|cache-control|content-disposition|"
    "content-encoding|content-language|content-length|content-location|content-range|content-type|cookie|date|etag|expect|"
    "expires|from|host|if-match|if-modified-since|if-none-match|if-range|if-unmodified-since|last-modified|link|location|"
    "max-forwards|proxy-authenticate|proxy-authorization|range|referer|refresh|retry-after|server|set-cookie|"
    "strict-transport-security|transfer-encoding|user-agent|vary|via|www-authenticate"
)
TABLE = [tuple((entry + "=").split("=")[:2]) for entry in STATIC.split("|")]
"""RFC 7541, appendix A."""

BY_LENGTH = {
    5: "012aceiost",
    6: " %-./3456789=A_bdfghlmnpru",
    7: ":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz",
    8: "&*,;XZ",
    10: '!"()?',
    11: "'+|",
    12: "#>",
    13: "\0$@[]~",
    14: "^}",
    15: "<`{",
}
"""Which characters have codes of so many bits (RFC 7541, appendix B): shorter ones come first, each one more than the last."""


def huffman_codes():
    """The character of each (code, length); those that no head of ours has are left out."""
    codes, code, before = {}, 0, 0
    for length, characters in BY_LENGTH.items():
        code <<= length - before
        before = length
        for character in characters:
            codes[code, length] = character
            code += 1
    return codes


CODES = huffman_codes()


def unpack_text(data):
    """A string in Huffman's code; padding is what is left over."""
    text, code, length = [], 0, 0
    for byte in data:
        for shift in range(7, -1, -1):
            code, length = code << 1 | byte >> shift & 1, length + 1
            if character := CODES.get((code, length)):
                text.append(character)
                code = length = 0
    return "".join(text)


class Heads:
    """Reads the heads of one direction of a connection, in their order."""

    def __init__(self):
        self.added = collections.deque()
        self.room = 4096

    def read(self, block):
        """The fields of a head; of those of one name the last."""
        self.block, self.at, fields = block, 0, {}
        while self.at < len(block):
            byte = block[self.at]
            if byte & 0x80:
                name, value = self.entry(self.number(7))
            elif byte & 0xE0 == 0x20:
                self.room = self.number(5)
                self.evict()
                continue
            else:
                name, value = self.literal(6 if byte & 0x40 else 4, byte & 0x40)
            fields[name] = value
        return fields

    def literal(self, bits, is_added):
        index = self.number(bits)
        name = self.entry(index)[0] if index else self.text()
        value = self.text()
        if is_added:
            self.added.appendleft((name, value))
            self.evict()
        return name, value

    def evict(self):
        while sum(len(name) + len(value) + 32 for name, value in self.added) > self.room:
            self.added.pop()

    def entry(self, index):
        return TABLE[index - 1] if index <= len(TABLE) else self.added[index - len(TABLE) - 1]

    def number(self, bits):
        most = (1 << bits) - 1
        number = self.block[self.at] & most
        self.at += 1
        shift = 0
        while number >= most:
            byte = self.block[self.at]
            self.at += 1
            number += (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        return number

    def text(self):
        is_packed = self.block[self.at] & 0x80
        length = self.number(7)
        data = self.block[self.at : self.at + length]
        self.at += length
        return unpack_text(data) if is_packed else data.decode()


def head(fields):
    """A head in HPACK: literals that nobody remembers."""
    text = lambda value: integer(len(value), 7) + value.encode()
    return b"".join(b"\0" + text(name) + text(value) for name, value in fields)


def integer(number, bits):
    """A number in HPACK, the first byte's upper bits clear."""
    most = (1 << bits) - 1
    if number < most:
        return bytes([number])
    number, coded = number - most, [most]
    while number >= 0x80:
        coded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*coded, number])


def frame(kind, flags, stream, payload=b""):
    """One frame."""
    return len(payload).to_bytes(3) + struct.pack(">BBI", kind, flags, stream) + payload


async def frames(reader):
    """The frames that come: (kind, flags, stream, payload), until the connection ends."""
    while True:
        start = await reader.readexactly(9)
        kind, flags, stream = struct.unpack(">BBI", start[3:])
        yield kind, flags, stream, await reader.readexactly(int.from_bytes(start[:3]))


def answer(kind, flags, payload):
    """What is to be sent for a frame that is about the connection."""
    if kind == SETTINGS and not flags & ACK:
        return frame(SETTINGS, ACK, 0)
    if kind == PING and not flags & ACK:
        return frame(PING, ACK, 0, payload)
    if kind == DATA and payload:
        return frame(WINDOW, 0, 0, struct.pack(">I", len(payload)))
    return b""
