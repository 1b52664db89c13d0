"""Clients of every kind: each asks, looks closely at what it gets, and asks again."""

import asyncio
import base64
import itertools
import os

import chaos_h2 as h2
import chaos_wire as wire

PATIENCE = 30
"""How long an answer may take, in seconds: longer than any hold."""
BROKEN = (OSError, EOFError)


class Clients:
    """All clients of one proxy."""

    def __init__(self, record, random, port):
        self.record, self.random, self.port = record, random, port
        self.names = itertools.count()
        self.is_open = True
        self.tasks = []

    def start(self, services):
        """Some of every kind for each service; `services`: by name, whether it is for WebSockets."""
        for service, talks in services.items():
            kinds = [self.keeps(service, 40) for _ in range(3)] + [self.keeps(service, 1), self.streams(service)]
            kinds += [self.talks(service) for _ in range(4 if talks else 0)]
            self.tasks += [asyncio.create_task(kind) for kind in kinds]

    async def stop(self):
        """Everybody finishes what he is at."""
        self.is_open = False
        await asyncio.gather(*self.tasks)

    def name(self):
        return f"n{next(self.names)}"

    async def pause(self, least=0.005, most=0.05):
        await asyncio.sleep(self.random.uniform(least, most))

    def wish(self, service):
        """What is asked for: method, query and body."""
        kind = self.random.random()
        if kind < 0.55:
            return "GET", "", b""
        if kind < 0.75:
            return "GET", f"?ms={self.random.randrange(80)}", b""
        if kind < 0.9:
            most = 8 if service == "api" else 100
            size = self.random.randrange(1, most * 1000)
            return "GET", f"?size={size}&pause={self.random.randrange(20)}", b""
        return "POST", f"?ms={self.random.randrange(40)}", os.urandom(self.random.randrange(60_000))

    # HTTP/1.1.

    async def keeps(self, service, most):
        """Up to `most` requests on a connection."""
        while self.is_open:
            born = self.record.now()
            reader, writer = await self.connect()
            try:
                for number in range(most):
                    await self.pause()
                    if not self.is_open or not await self.ask(service, born, number > 0, reader, writer):
                        break
            finally:
                writer.close()

    async def connect(self):
        async with asyncio.timeout(PATIENCE):
            return await asyncio.open_connection("127.0.0.1", self.port, limit=wire.LARGEST)

    async def ask(self, service, born, is_reused, reader, writer):
        """One request; true when the connection can take another one."""
        name = self.name()
        method, query, body = self.wish(service)
        ticket = self.record.ticket(service, name, born, is_reused)
        ticket.stage = f"{method} {query} {len(body)}"
        has_begun = False
        try:
            async with asyncio.timeout(PATIENCE):
                sending = self.send(writer, service, f"/{name}{query}", method, body)
                sent = asyncio.create_task(sending)
                (_, status, *_), fields = await wire.read_head(reader)
                has_begun, ticket.stage = True, f"{method} {query}: {fields}"
                version = self.record.answered(ticket, int(status), fields)
                told = await wire.read_body(reader, fields)
                await sent
        except BROKEN as why:
            sent.cancel()
            has_begun = has_begun or bool(getattr(why, "partial", b""))
            self.record.broke_off(ticket, why, has_begun)
            return False
        self.look(ticket, query, body, fields, told)
        self.record.complete(ticket, version, 200)
        return fields.get("connection", "") != "close"

    async def send(self, writer, service, target, method, body):
        """A request; a body goes in pieces, or in chunks."""
        in_chunks = len(body) % 2
        fields = [("host", f"{service}.chaos.test")]
        if method == "POST":
            fields.append(("transfer-encoding", "chunked") if in_chunks else ("content-length", len(body)))
        writer.write(wire.head(f"{method} {target} HTTP/1.1", fields))
        try:
            for at in range(0, len(body), 16_384):
                piece = body[at : at + 16_384]
                writer.write(wire.chunk(piece) if in_chunks else piece)
                await writer.drain()
                await self.pause(0, 0.01)
            if in_chunks:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        except OSError:
            # Who reads finds out, and judges.
            pass

    def look(self, ticket, query, body, fields, told):
        """The answer is what this request has to be answered with."""
        size = int(query.split("size=")[1].split("&")[0]) if "size=" in query else 0
        wanted = wire.filler(ticket.name, size) or ticket.name.encode()
        if told != wanted:
            self.record.violated(f"a wrong body of {len(told)} bytes, not {len(wanted)}: {ticket} {fields}")
        if body and fields["x-sum"] != wire.checksum(body):
            self.record.violated(f"the origin got another body: {ticket} {fields}")

    # WebSockets.

    async def talks(self, service):
        """A WebSocket that is opened again when it ends."""
        while self.is_open:
            born, name = self.record.now(), self.name()
            ticket = self.record.ticket(service, name, born, False)
            reader, writer = await self.connect()
            try:
                version = await self.open(ticket, reader, writer)
                ticket.stage = f"a WebSocket with {version}"
                await self.talk(ticket, reader, writer)
                self.record.complete(ticket, version, 101)
            except BROKEN as why:
                self.record.broke_off(ticket, why, has_begun=True)
            finally:
                writer.close()
            await self.pause(0, 0.2)

    async def open(self, ticket, reader, writer):
        key = base64.b64encode(os.urandom(16)).decode()
        fields = [("host", f"{ticket.service}.chaos.test"), ("upgrade", "websocket"), ("connection", "upgrade")]
        fields += [("sec-websocket-key", key), ("sec-websocket-version", "13")]
        writer.write(wire.head(f"GET /{ticket.name} HTTP/1.1", fields))
        async with asyncio.timeout(PATIENCE):
            (_, status, *_), fields = await wire.read_head(reader)
        version = self.record.answered(ticket, int(status), fields)
        if int(status) != 101 or fields["sec-websocket-accept"] != wire.accept(key):
            self.record.violated(f"no WebSocket: {ticket} {status} {fields}")
        return version

    async def talk(self, ticket, reader, writer):
        """Says something again and again, until told to go; a Close has to come before the end."""
        for number in itertools.count():
            said = b"" if not self.is_open else f"{ticket.name} {number}".encode()
            writer.write(wire.message(wire.BINARY if said else wire.CLOSE, said or b"\x03\xe8", is_masked=True))
            async with asyncio.timeout(PATIENCE):
                opcode, heard = await wire.read_message(reader)
            if opcode == wire.CLOSE:
                return await self.close(ticket, heard, reader, writer, is_ours=not said)
            if heard != said:
                self.record.violated(f"the echo of {said} is {heard}: {ticket}")
            self.record.figures["messages"] += 1
            ticket.stage = f"a WebSocket after message {number}"
            await self.pause()

    async def close(self, ticket, heard, reader, writer, is_ours):
        """After a Close nothing more comes but the end."""
        code = int.from_bytes(heard[:2])
        # The proxy's may have crossed ours.
        if code not in ((1000, 1012) if is_ours else (1012,)):
            self.record.violated(f"a Close with {code}: {ticket}")
        ticket.stage = f"a WebSocket after a Close with {code}"
        if not is_ours:
            self.record.figures["told to go"] += 1
            writer.write(wire.message(wire.CLOSE, heard, is_masked=True))
        async with asyncio.timeout(PATIENCE):
            rest = await reader.read()
        if rest:
            self.record.violated(f"{rest} came after the Close: {ticket}")

    # HTTP/2.

    async def streams(self, service):
        """A few requests at a time on a connection of HTTP/2."""
        while self.is_open:
            born = self.record.now()
            reader, writer = await self.connect()
            try:
                await Http2(self, service, born, reader, writer).run()
            finally:
                writer.close()
            await self.pause()


class Http2:
    """A connection of HTTP/2 by prior knowledge."""

    AT_A_TIME = 3

    def __init__(self, clients, service, born, reader, writer):
        self.clients, self.service, self.born = clients, service, born
        self.reader, self.writer = reader, writer
        self.record = clients.record
        self.waiting = {}
        self.numbers = itertools.count(1, 2)
        self.last = None
        """What GOAWAY has said: the last stream that is served."""

    async def run(self):
        self.writer.write(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0))
        self.reading = asyncio.create_task(self.read())
        asking = [asyncio.create_task(self.asks()) for _ in range(self.AT_A_TIME)]
        try:
            await asyncio.gather(*asking)
        finally:
            self.reading.cancel()
            for task in asking:
                task.cancel()
        await asyncio.gather(self.reading, return_exceptions=self.reading.cancelling() > 0)

    async def asks(self):
        """One request after the other, while new ones are taken."""
        for number in itertools.count():
            await self.clients.pause(0.01, 0.1)
            if not self.clients.is_open or self.last is not None or self.reading.done():
                return
            if not await self.ask(is_reused=number > 0):
                return

    async def ask(self, is_reused):
        name = self.clients.name()
        method, query, body = self.clients.wish(self.service)
        query, body = ("", body[:8000]) if "size" in query else (query, body[:8000])
        ticket = self.record.ticket(self.service, name, self.born, is_reused)
        stream, answer = next(self.numbers), asyncio.get_running_loop().create_future()
        self.waiting[stream] = answer
        fields = [(":method", method), (":scheme", "http"), (":authority", f"{self.service}.chaos.test")]
        block = h2.head([*fields, (":path", f"/{name}{query}")])
        ends = 0 if method == "POST" else h2.END_STREAM
        self.writer.write(h2.frame(h2.HEADERS, h2.END_HEADERS | ends, stream, block))
        if method == "POST":
            self.writer.write(h2.frame(h2.DATA, h2.END_STREAM, stream, body))
        try:
            async with asyncio.timeout(PATIENCE):
                fields, told = await answer
        except (Withdrawn, ConnectionError) as why:
            # Who writes on a connection that is gone does not hear its last words.
            self.record.broke_off(ticket, why, has_begun=False, is_withdrawn=True)
            return False
        except BROKEN as why:
            self.record.broke_off(ticket, why, has_begun=True)
            return False
        version = self.record.answered(ticket, int(fields[":status"]), fields)
        self.clients.look(ticket, query, body, fields, told)
        self.record.complete(ticket, version, 200)
        return True

    async def read(self):
        """Hands what comes to who waits for it."""
        heads, parts = h2.Heads(), {}
        try:
            async for kind, flags, stream, payload in h2.frames(self.reader):
                self.writer.write(h2.answer(kind, flags, payload))
                if kind == h2.HEADERS:
                    parts[stream] = (heads.read(payload), bytearray())
                elif kind == h2.DATA:
                    parts[stream][1].extend(payload)
                elif kind == h2.GOAWAY:
                    self.on_goaway(payload)
                elif kind == h2.RESET:
                    self.fail(stream, self.reset(payload))
                if kind in (h2.HEADERS, h2.DATA) and flags & h2.END_STREAM:
                    self.waiting.pop(stream).set_result(parts.pop(stream))
            raise EOFError("the connection has ended")
        except BROKEN as why:
            for stream in list(self.waiting):
                self.fail(stream, why)

    def on_goaway(self, payload):
        last, code = int.from_bytes(payload[:4]) & 0x7FFFFFFF, int.from_bytes(payload[4:8])
        if code:
            self.record.violated(f"GOAWAY with {code}: {payload[8:]}")
        self.last = last
        for stream in [stream for stream in self.waiting if stream > last]:
            self.fail(stream, Withdrawn("GOAWAY"))

    def reset(self, payload):
        code = int.from_bytes(payload)
        return Withdrawn("REFUSED_STREAM") if code == h2.REFUSED_STREAM else EOFError(f"reset with {code}")

    def fail(self, stream, why):
        answer = self.waiting.pop(stream, None)
        if answer and not answer.done():
            answer.set_exception(why)


class Withdrawn(Exception):
    """The proxy says that it has not taken a request up."""
