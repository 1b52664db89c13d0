"""WebSockets, directly and through the proxy: see `tests/suites/websocket`."""

import asyncio
import contextlib
import logging
import os
import random
import socket
import ssl
import struct
import threading

import websockets
from websockets.asyncio.client import connect
from websockets.sync.server import serve

import stand
import websocket_cases as made

logging.getLogger("websockets").addHandler(logging.NullHandler())
logging.getLogger("websockets").propagate = False

HOST = "ws.suite.test"
MOST = 32 << 20


# ---- Servers ----


def echo(connection):
    """Says back what is said; who asks for it is told how it ended."""
    for message in connection:
        connection.send(message)


def chosen(connection, offered):
    return "chat.v1" if "chat.v1" in offered else None


class Echo:
    """A proper server: says back what is said."""

    def __init__(self, **options):
        self.server = serve(
            lambda connection: [connection.send(message) for message in connection],
            "127.0.0.1", 0, max_size=MOST, ping_interval=None, close_timeout=1, select_subprotocol=chosen, **options,
        )  # fmt: skip
        self.address = "127.0.0.1:{}".format(self.server.socket.getsockname()[1])
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()


class Bare:
    """A server that accepts the handshake and leaves the rest to `talk(stream, path)`; then waits for the client's end."""

    def __init__(self, talk):
        self.talk = talk
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = "127.0.0.1:{}".format(self.listener.getsockname()[1])
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                stream, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(stream,), daemon=True).start()

    def _serve(self, stream):
        with stream, contextlib.suppress(OSError):
            stream.settimeout(stand.PATIENCE)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = read_head(stream)
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
            answer = (
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
                f"sec-websocket-accept: {websockets.utils.accept_key(key)}\r\n\r\n"
            )
            self.talk(stream, answer.encode(), int(head.split(" ")[1].removeprefix("/") or 0))
            # Ends when the client has closed, and not by a reset, which takes back what is on its way.
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(1 << 20):
                pass

    def stop(self):
        self.listener.close()


class Refused(Exception):
    """What a server closes a WebSocket for."""


def strict(stream, answer, _):
    """Says back what is said, one frame after the other, and is strict: what it answers is a matter of the bytes alone."""
    stream.sendall(answer)
    reader = stream.makefile("rb")
    try:
        for opcode, payload in messages(reader):
            stream.sendall(server_frame(opcode, payload))
            if opcode == made.CLOSE:
                return
    except Refused as refused:
        code, reason = refused.args
        stream.sendall(server_frame(made.CLOSE, struct.pack("!H", code) + reason.encode()))


def messages(reader):
    """What is to be said back to the frames of `reader` (RFC 6455 §5)."""
    begun, parts = None, []
    while frame := read_frame(reader):
        fin, opcode, payload = frame
        if opcode >= made.CLOSE:
            if not fin or len(payload) > 125:
                raise Refused(1002, "a control frame")
            yield from control(opcode, payload)
            continue
        if (opcode == 0) != (begun is not None):
            raise Refused(1002, "a continuation")
        begun = begun or opcode
        parts.append(payload)
        if fin:
            whole = b"".join(parts)
            if begun == made.TEXT:
                decoded(whole)
            yield begun, whole
            begun, parts = None, []


def read_frame(reader):
    head = reader.read(2)
    if len(head) < 2:
        return None
    if head[0] & 0x70:
        raise Refused(1002, "reserved bits")
    if head[0] & 0x0F not in (0, made.TEXT, made.BINARY, made.CLOSE, made.PING, made.PONG):
        raise Refused(1002, "an opcode")
    if not head[1] & 0x80:
        raise Refused(1002, "no mask")
    size = head[1] & 0x7F
    if size > 125:
        size = int.from_bytes(reader.read(2 if size == 126 else 8), "big")
    if size > MOST:
        raise Refused(1009, "too large")
    mask, payload = reader.read(4), reader.read(size)
    if len(payload) < size:
        return None
    # A mask undoes itself.
    return bool(head[0] & 0x80), head[0] & 0x0F, made.masked(payload, mask)


def control(opcode, payload):
    if opcode == made.PING:
        yield made.PONG, payload
    if opcode == made.CLOSE:
        if len(payload) == 1:
            raise Refused(1002, "a close of one byte")
        code = int.from_bytes(payload[:2], "big")
        if payload and not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise Refused(1002, "a close code")
        decoded(payload[2:])
        yield made.CLOSE, payload


def decoded(text):
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise Refused(1007, f"not UTF-8 at {error.start}") from error


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = stream.recv(1)
        if not byte:
            raise ConnectionError(f"the head ends: {head}")
        head += byte
    return head.decode()


# ---- Ways to a server ----


class Way:
    """How to reach a server: directly, or through a listener of the proxy.

    All clients are polled in one thread: Python's TLS connections do not bear two.
    """

    def __init__(self, name, address, host=HOST, context=None):
        self.name, self.host, self.context = name, host, context
        self.ip, port = address.rsplit(":", 1)
        self.port = int(port)

    @contextlib.asynccontextmanager
    async def raw(self, path="/"):
        """A connection after its handshake, in bytes."""
        tls = {"ssl": self.context, "server_hostname": self.host} if self.context else {}
        reader, writer = await asyncio.open_connection(self.ip, self.port, limit=1 << 20, **tls)
        try:
            asked = (
                f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
                "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            writer.write(asked.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101 "):
                raise ConnectionError(head)
            yield reader, writer
        finally:
            writer.close()

    def connect(self, path="/", **options):
        """A proper client."""
        scheme = "wss" if self.context else "ws"
        options |= {"ssl": self.context, "max_size": MOST, "ping_interval": None, "proxy": None}
        return connect(f"{scheme}://{self.host}{path}", host=self.ip, port=self.port, **options)


# ---- What a client sends ----


async def transcript(way, pieces):
    """All that the server says to these pieces, until it closes."""
    async with way.raw() as (reader, writer):
        _, said = await asyncio.gather(send(writer, pieces), reader.read())
        return said


async def send(writer, pieces):
    # A server that closes does not have to hear the rest.
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()


async def compared(cases, every, act, direct, ways):
    """`act(way, what)` of every case comes to the same on all ways."""
    few = asyncio.Semaphore(8)

    async def attempted(way, what):
        try:
            async with few, asyncio.timeout(stand.PATIENCE):
                return await act(way, what)
        except Exception as error:
            return repr(error)

    async def all_of(way):
        return await asyncio.gather(*(attempted(way, what) for _, what in every))

    expected = await all_of(direct)
    for way in ways:
        for (name, _), was, direct_was in zip(every, await all_of(way), expected):
            cases.same(f"{name}, {way.name}", was, direct_was)
    return expected


async def sent_by_clients(cases, direct, ways):
    every = list(made.cases())
    expected = await compared(cases, every, transcript, direct, ways)
    unanswered = [name for (name, _), said in zip(every, expected) if not said or isinstance(said, str)]
    cases.same("every case has an answer without the proxy", unanswered, [])


# ---- What a server sends ----


def server_frame(*arguments, **options):
    return made.frame(*arguments, mask=None, **options)


def scripts():
    """Bytes of servers that mind nothing either: (name, pieces)."""
    closing = server_frame(made.CLOSE, struct.pack("!H", 1000))
    for size in made.SIZES:
        yield f"{size} from the server", [server_frame(made.BINARY, b"x" * size), closing]
    yield "with the head", [server_frame(made.TEXT, "early") + closing]
    yield "byte by byte", [*made.chopped(server_frame(made.TEXT, "piecemeal"), 1), closing]
    yield "fragments", [server_frame(made.TEXT, "a", fin=False), server_frame(made.PING, "p"), server_frame(0, "b"), closing]
    for bits in range(1, 8):
        yield f"reserved bits {bits} from the server", [server_frame(made.TEXT, "x", rsv=bits)]
    for opcode in (3, 7, 11, 15):
        yield f"opcode {opcode} from the server", [server_frame(opcode, b"x")]
    for text in made.INVALID:
        yield f"text from the server that is not UTF-8: {text}", [server_frame(made.TEXT, bytes.fromhex(text))]
    for code in (1000, 1001, 1011, 1012, 3000, 4999, 999, 1005, 1006, 5000):
        yield f"close {code} from the server", [server_frame(made.CLOSE, struct.pack("!H", code) + b"why")]
    yield "a masked frame", [made.frame(made.TEXT, "masked")]
    yield "a frame that is cut off", [server_frame(made.BINARY, b"half", length=100)]
    yield "nothing, then the end", [b""]
    yield "a message, then the end without a close", [server_frame(made.TEXT, "last words")]


def scripted(every):
    """A server's part: the path is the number of its script; what comes first goes out with the head."""

    def talk(stream, answer, number):
        _, pieces = every[number]
        stream.sendall(answer + pieces[0])
        for piece in pieces[1:]:
            stream.sendall(piece)

    return talk


async def heard(way, number):
    """All bytes of a script, to a client that says a lot meanwhile."""
    async with way.raw(f"/{number}") as (reader, writer):
        message = made.frame(made.BINARY, bytes(100_000))
        _, said = await asyncio.gather(send(writer, [message] * 20), reader.read())
        return said


async def sent_by_servers(cases, direct, ways, every):
    numbered = [(name, number) for number, (name, _) in enumerate(every)]
    expected = await compared(cases, numbered, heard, direct, ways)
    cases.same("all bytes arrive without the proxy", expected, [b"".join(pieces) for _, pieces in every])


# ---- Proper clients ----


async def conversations(cases, ways):
    """What must hold everywhere, directly too."""
    for way in ways:
        for talk in (compressed, uncompressed, subprotocols, large, both_ways_at_once, pings_by_client, many, many_in_turn):
            name = f"{talk.__name__.replace('_', ' ')}, {way.name}"
            with cases.case(name):
                async with asyncio.timeout(stand.PATIENCE):
                    await talk(lambda what, seen, expected: cases.same(f"{name}: {what}", seen, expected), way)


async def compressed(same, way):
    async with way.connect() as client:
        same("permessage-deflate is agreed on", [each.name for each in client.protocol.extensions], ["permessage-deflate"])
        for message in ("a" * 100_000, os.urandom(70_000), "", b"", "ä" * 3000):
            await client.send(message)
            same("a message comes back", await client.recv(), message)
        await client.send(["frag", "men", "ts"])
        same("and so do fragments", await client.recv(), "fragments")


async def uncompressed(same, way):
    async with way.connect(compression=None) as client:
        same("nothing is agreed on", list(client.protocol.extensions), [])
        await client.send("plain")
        same("a message comes back", await client.recv(), "plain")
        await client.close(4321, "enough ☺")
        same("a close is answered in kind", (client.close_code, client.close_reason), (4321, "enough ☺"))


async def subprotocols(same, way):
    async with way.connect(subprotocols=["chat.v2", "chat.v1"]) as client:
        same("a subprotocol is agreed on", client.subprotocol, "chat.v1")


async def large(same, way):
    async with way.connect(compression=None) as client:
        message = random.Random(7).randbytes(16 << 20)
        await client.send(message)
        same("16 MiB come back", await client.recv() == message, True)


async def both_ways_at_once(same, way):
    count, message = 2000, os.urandom(3000)

    async def say(client):
        for _ in range(count):
            await client.send(message)

    async def hear(client):
        return [await client.recv() == message for _ in range(count)]

    async with way.connect(compression=None) as client:
        _, back = await asyncio.gather(say(client), hear(client))
        same("all messages come back", back, [True] * count)


async def pings_by_client(same, way):
    async with way.connect() as client:
        pongs = [await client.ping(bytes([number])) for number in range(20)]
        await asyncio.gather(*pongs)
        same("every ping is answered", len(pongs), 20)


async def many(same, way):
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(way.connect()) for _ in range(60)]
        for number, client in enumerate(clients):
            await client.send(str(number))
        back = [await client.recv() for client in clients]
        same("60 clients at once are not mixed up", back, [str(number) for number in range(60)])


async def many_in_turn(same, way):
    few = asyncio.Semaphore(16)

    async def once(number):
        async with few, way.connect() as client:
            await client.send(str(number))
            return await client.recv()

    back = await asyncio.gather(*(once(number) for number in range(300)))
    same("300 clients in turn are served", back, [str(number) for number in range(300)])


async def half_open(cases, ways):
    """A client that closes its sending side still gets what it has asked for."""
    for way in ways:
        async with way.raw() as (reader, writer):
            await send(writer, [made.frame(made.TEXT, "last words"), made.frame(made.PING)])
            writer.write_eof()
            expected = server_frame(made.TEXT, "last words") + server_frame(made.PONG)
            cases.same(f"the last words of a half-open client are answered, {way.name}", await reader.read(), expected)


async def survives_a_flip(cases, proxy, ways):
    async with contextlib.AsyncExitStack() as stack:
        before = [(way, await stack.enter_async_context(way.connect())) for way in ways]
        proxy.flip("ws", "green")
        for way, client in before:
            await client.send("still here")
            cases.same(f"an open WebSocket lives on, {way.name}", await client.recv(), "still here")
            cases.same(f"on its version, {way.name}", client.response.headers["x-version"], "blue")
        for way in ways:
            async with way.connect() as client:
                cases.same(f"a new one goes to the new version, {way.name}", client.response.headers["x-version"], "green")
        drain = proxy.call("GET", "/v1/services/ws/versions/blue/drain")["remaining"]
        cases.same("they are what blue waits for", [(of["kind"], of["count"]) for of in drain], [("websocket", len(ways))])
    stand.wait_until("blue is empty", lambda: proxy.call("GET", "/v1/services/ws/versions/blue/drain")["drained"])


def over_http2(directory, inner):
    """Services whose endpoint is the other proxy, in clear text and over TLS; the host that it is asked for is its own."""
    text = ""
    for name, host in (("ws", HOST), ("strict", "strict.suite.test")):
        for protocol, endpoint in (("h2c", inner.clear), ("h2", inner.secure)):
            text += (
                f'[services.{name}-{protocol}]\nroutes = [{{ host = "{name}-{protocol}.suite.test", rewrite_host = "{host}" }}]\n'
                f'[services.{name}-{protocol}.versions.only]\nendpoints = ["{endpoint}"]\nprotocol = "{protocol}"\n'
            )
            if protocol == "h2":
                text += f'tls = {{ ca = "{directory}/ca.pem", server_name = "ws.suite.test" }}\n'
    return text


def suite(cases, directory):
    context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
    named = lambda version: lambda connection, request, response: response.headers.__setitem__("x-version", version)
    blue, green = (Echo(process_response=named(version)) for version in ("blue", "green"))
    every = list(scripts())
    servers = {"strict": Bare(strict), "scripted": Bare(scripted(every))}
    services = (
        f'[services.ws]\nroutes = [{{ host = "{HOST}" }}]\nstable = "blue"\n'
        f'[services.ws.versions.blue]\nendpoints = ["{blue.address}"]\n[services.ws.versions.green]\nendpoints = ["{green.address}"]\n'
    ) + "".join(
        f'[services.{name}]\nroutes = [{{ host = "{name}.suite.test" }}]\n'
        f'[services.{name}.versions.only]\nendpoints = ["{server.address}"]\n'
        for name, server in servers.items()
    )
    inner_directory = f"{directory}/inner"
    os.mkdir(inner_directory)
    for name in ("ca.pem", "server.pem", "server.key"):
        os.link(f"{directory}/{name}", f"{inner_directory}/{name}")
    try:
        with contextlib.ExitStack() as stack:
            # Takes WebSockets over HTTP/2 (RFC 8441), and passes them on to the same servers.
            inner = stack.enter_context(stand.proxy(cases, inner_directory, services))
            proxy = stack.enter_context(stand.proxy(cases, directory, services + over_http2(directory, inner)))

            def through(host):
                return [Way("ws", proxy.clear, host), Way("wss", proxy.secure, host, context)]

            async def everything():
                to_strict = [Way("direct", servers["strict"].address), *through("strict.suite.test")]
                await sent_by_clients(cases, to_strict[0], to_strict[1:] + through("strict-h2c.suite.test"))
                await half_open(cases, to_strict[:2])
                to_scripted = Way("direct", servers["scripted"].address)
                await sent_by_servers(cases, to_scripted, through("scripted.suite.test"), every)
                over_h2 = through("ws-h2c.suite.test") + through("ws-h2.suite.test")
                await conversations(cases, [Way("direct", blue.address), *through(HOST), *over_h2])
                await survives_a_flip(cases, proxy, through(HOST))

            asyncio.run(everything())
    finally:
        for server in (blue, green, *servers.values()):
            server.stop()


if __name__ == "__main__":
    stand.run(suite)
