"""The versions behind the proxy: each endpoint says who it is, what it was asked, and under which epoch."""

import asyncio
import os
import urllib.parse

import chaos_h2 as h2
import chaos_wire as wire

PIECE = 4096


class Origin:
    """One endpoint. `protocol`: http1 or h2c; `directory`: of its socket, when it is a Unix socket."""

    def __init__(self, record, service, version, number, protocol="http1", directory=None):
        self.record, self.service, self.version, self.number = record, service, version, number
        self.protocol, self.directory = protocol, directory
        self.address = None
        self.serial = 0

    def __str__(self):
        return f"{self.service}/{self.version}/{self.number}"

    async def start(self):
        loop = asyncio.get_running_loop()
        kind = {"http1": Http1, "h2c": Http2}[self.protocol]
        if self.directory:
            path = os.path.join(self.directory, f"{self.service}-{self.version}-{self.number}")
            self.server = await loop.create_unix_server(lambda: kind(self), path, backlog=1024)
            self.address = f"unix:{path}"
        else:
            self.server = await loop.create_server(lambda: kind(self), "127.0.0.1", 0, backlog=1024)
            self.address = "127.0.0.1:%d" % self.server.sockets[0].getsockname()[1]
        return self

    def arrive(self, path, fields, writes, lasting=False):
        """A request has come: what is recorded of it, and the fields of its answer."""
        name = path.path.rsplit("/", 1)[1]
        epoch = int(fields["x-epoch"])
        self.serial += 1
        work = self.record.arrived(self, name, epoch, writes, lasting)
        fields = [("x-origin", str(self)), ("x-id", name), ("x-seen", epoch), ("x-serial", self.serial)]
        return work, fields


def asked(path, what):
    """A number in the query; 0 when it is not there."""
    return int(urllib.parse.parse_qs(path.query).get(what, ["0"])[0])


class Connection(asyncio.StreamReaderProtocol):
    """A connection whose task ends with it, at once."""

    def __init__(self, origin):
        super().__init__(asyncio.StreamReader(limit=wire.LARGEST), self.begin)
        self.origin = origin
        self.task = None
        self.work = set()

    def begin(self, reader, writer):
        self.task = asyncio.create_task(self.run(reader, writer))

    async def run(self, reader, writer):
        try:
            await self.serve(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            self.over()
            writer.close()

    def over(self):
        while self.work:
            self.work.pop().end()

    def eof_received(self):
        super().eof_received()
        return False

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.over()
        if self.task:
            self.task.cancel()


class Http1(Connection):
    """HTTP/1.1, and WebSockets."""

    async def serve(self, reader, writer):
        while True:
            (method, target, _), fields = await wire.read_head(reader)
            path = urllib.parse.urlsplit(target)
            if "upgrade" in fields:
                return await self.talk(path, fields, reader, writer)
            work, mine = self.origin.arrive(path, fields, method != "GET")
            self.work.add(work)
            body = await wire.read_body(reader, fields)
            if method != "GET":
                mine.append(("x-sum", wire.checksum(body)))
            await asyncio.sleep(asked(path, "ms") / 1000)
            await self.send(path, mine, work, writer)

    async def send(self, path, mine, work, writer):
        """The answer, in pieces when it is a long one."""
        size = asked(path, "size")
        name = dict(mine)["x-id"]
        if not size:
            work.end()
            writer.write(wire.head("HTTP/1.1 200 OK", [*mine, ("content-length", len(name))]) + name.encode())
        else:
            body = wire.filler(name, size)
            length = ("transfer-encoding", "chunked") if size % 2 else ("content-length", size)
            form = wire.chunk if size % 2 else bytes
            writer.write(wire.head("HTTP/1.1 200 OK", [*mine, length]))
            pieces = [body[at : at + PIECE] for at in range(0, size, PIECE)]
            for piece in pieces[:-1]:
                writer.write(form(piece))
                await writer.drain()
                await asyncio.sleep(asked(path, "pause") / 1000)
            work.end()
            writer.write(form(pieces[-1]) + (b"0\r\n\r\n" if size % 2 else b""))
        await writer.drain()
        self.work.discard(work)

    async def talk(self, path, fields, reader, writer):
        """A WebSocket: says back what it hears."""
        work, mine = self.origin.arrive(path, fields, False, lasting=True)
        self.work.add(work)
        mine += [("upgrade", "websocket"), ("connection", "upgrade")]
        mine.append(("sec-websocket-accept", wire.accept(fields["sec-websocket-key"])))
        writer.write(wire.head("HTTP/1.1 101 Switching Protocols", mine))
        while True:
            opcode, data = await wire.read_message(reader)
            writer.write(wire.message(opcode, data, is_masked=False))
            if opcode == wire.CLOSE:
                return await writer.drain()


class Http2(Connection):
    """HTTP/2 by prior knowledge."""

    async def serve(self, reader, writer):
        await reader.readexactly(len(h2.PREFACE))
        writer.write(h2.frame(h2.SETTINGS, 0, 0))
        heads, open_streams = h2.Heads(), {}
        async for kind, flags, stream, payload in h2.frames(reader):
            writer.write(h2.answer(kind, flags, payload))
            if kind == h2.HEADERS and stream not in open_streams:
                open_streams[stream] = Stream(self, stream, heads.read(payload))
            elif kind == h2.DATA and stream in open_streams:
                open_streams[stream].body += payload
            elif kind == h2.RESET and stream in open_streams:
                open_streams.pop(stream).cancel()
            if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                open_streams[stream].whole(writer)


class Stream:
    """One request over HTTP/2."""

    def __init__(self, connection, number, fields):
        self.connection, self.number, self.body = connection, number, b""
        self.path = urllib.parse.urlsplit(fields[":path"])
        self.writes = fields[":method"] != "GET"
        self.work, self.mine = connection.origin.arrive(self.path, fields, self.writes)
        self.task = None
        connection.work.add(self.work)

    def whole(self, writer):
        self.task = asyncio.create_task(self.send(writer))

    def cancel(self):
        self.work.end()
        self.connection.work.discard(self.work)
        if self.task:
            self.task.cancel()

    async def send(self, writer):
        await asyncio.sleep(asked(self.path, "ms") / 1000)
        name = dict(self.mine)["x-id"]
        body = wire.filler(name, asked(self.path, "size")) or name.encode()
        fields = [(":status", "200"), *((name, str(value)) for name, value in self.mine)]
        if self.writes:
            fields.append(("x-sum", wire.checksum(self.body)))
        writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS, self.number, h2.head(fields)))
        self.work.end()
        for at in range(0, len(body), PIECE):
            flags = h2.END_STREAM if at + PIECE >= len(body) else 0
            writer.write(h2.frame(h2.DATA, flags, self.number, body[at : at + PIECE]))
        self.connection.work.discard(self.work)
