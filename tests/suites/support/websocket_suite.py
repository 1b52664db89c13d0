"""WebSockets, directly and through the proxy: see `tests/suites/websocket`."""

import concurrent.futures
import logging
import os
import random
import socket
import ssl
import struct
import threading

import websockets
from websockets.sync.client import connect
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
    """A server in a thread of its own."""

    def __init__(self, **options):
        self.server = serve(echo, "127.0.0.1", 0, max_size=MOST, ping_interval=None, close_timeout=1, **options)
        self.address = "127.0.0.1:{}".format(self.server.socket.getsockname()[1])
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def stop(self):
        self.server.shutdown()
        self.thread.join()


class Scripted:
    """A server that accepts the handshake and then sends the bytes that the path names, whatever they are."""

    def __init__(self, scripts):
        self.scripts = scripts
        self.listener = socket.create_server(("127.0.0.1", 0))
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
        with stream:
            head = read_head(stream)
            key = next(line.split(": ")[1] for line in head.split("\r\n") if line.lower().startswith("sec-websocket-key"))
            accept = websockets.utils.accept_key(key)
            answer = f"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {accept}\r\n\r\n"
            script = self.scripts[int(head.split(" ")[1].removeprefix("/"))]
            stream.sendall(answer.encode() + script[0])
            for piece in script[1:]:
                stream.sendall(piece)
            stream.settimeout(stand.PATIENCE)
            # Ends when the client has closed, and not by a reset.
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(65_536):
                pass

    def stop(self):
        self.listener.close()


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
    """How to reach a server: directly, or through a listener of the proxy."""

    def __init__(self, name, address, host=HOST, context=None):
        self.name, self.address, self.host, self.context = name, address, host, context

    def raw(self, path="/", extra=""):
        """A connection after its handshake, in bytes."""
        host, port = self.address.rsplit(":", 1)
        stream = socket.create_connection((host, int(port)), timeout=stand.PATIENCE)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.context:
            stream = self.context.wrap_socket(stream, server_hostname=self.host)
        asked = (
            f"GET {path} HTTP/1.1\r\nhost: {self.host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            f"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
        )
        stream.sendall(asked.encode())
        head = read_head(stream)
        if not head.startswith("HTTP/1.1 101 "):
            raise ConnectionError(head)
        return stream

    def connect(self, path="/", **options):
        host, port = self.address.rsplit(":", 1)
        plain = socket.create_connection((host, int(port)), timeout=stand.PATIENCE)
        scheme = "wss" if self.context else "ws"
        options.setdefault("ping_interval", None)
        return connect(f"{scheme}://{self.host}{path}", sock=plain, ssl=self.context, max_size=MOST, proxy=None, **options)


# ---- What a client sends ----


def transcript(way, pieces):
    """All that the server says to these pieces, until it closes."""
    with way.raw() as stream:
        sender = threading.Thread(target=send, args=(stream, pieces), daemon=True)
        sender.start()
        said = bytearray()
        try:
            while data := stream.recv(65_536):
                said += data
            end = "closed"
        except TimeoutError:
            end = "open"
        except OSError:
            # It closed while more was coming: what the system makes of it is a matter of luck.
            end = "closed"
        sender.join(stand.PATIENCE)
    return bytes(said), end


def send(stream, pieces):
    try:
        for piece in pieces:
            stream.sendall(piece)
    except OSError:
        pass


def sent_by_clients(cases, direct, ways):
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        every = list(made.cases())
        expected = list(threads.map(lambda case: transcript(direct, case[1]), every))
        for (name, _), (said, end) in zip(every, expected):
            cases.check(f"{name}, direct", said and end == "closed", (said[:100], end))
        for way in ways:
            seen = threads.map(lambda case: attempted(transcript, way, case[1]), every)
            for (name, _), was, direct_was in zip(every, seen, expected):
                cases.same(f"{name}, {way.name}", was, direct_was)


def attempted(act, *arguments):
    try:
        return act(*arguments)
    except Exception as error:
        return repr(error)


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
        yield f"reserved bits {bits}", [server_frame(made.TEXT, "x", rsv=bits)]
    for opcode in (3, 7, 11, 15):
        yield f"opcode {opcode}", [server_frame(opcode, b"x")]
    for text in made.INVALID[:12]:
        yield f"text that is not UTF-8: {text}", [server_frame(made.TEXT, bytes.fromhex(text))]
    for code in (1000, 1001, 1011, 1012, 3000, 4999, 999, 1005, 1006, 5000):
        yield f"close {code}", [server_frame(made.CLOSE, struct.pack("!H", code) + b"why")]
    yield "a masked frame", [made.frame(made.TEXT, "masked")]
    yield "a frame that is cut off", [server_frame(made.BINARY, b"half", length=100)]
    yield "nothing, then the end", [b""]
    yield "a message, then the end without a close", [server_frame(made.TEXT, "last words")]


def heard(way, number):
    """What a proper client makes of a script: its messages and how they ended."""
    with way.connect(f"/{number}", compression=None) as client:
        messages = []
        try:
            while True:
                messages.append(client.recv(timeout=stand.PATIENCE))
        except websockets.ConnectionClosed as closed:
            ends = [(end.code, end.reason) if end else None for end in (closed.rcvd, closed.sent)]
            return messages, ends


def sent_by_servers(cases, direct, ways, names):
    with concurrent.futures.ThreadPoolExecutor(6) as threads:
        numbers = range(len(names))
        expected = list(threads.map(lambda number: heard(direct, number), numbers))
        for way in ways:
            seen = threads.map(lambda number: attempted(heard, way, number), numbers)
            for name, was, direct_was in zip(names, seen, expected):
                cases.same(f"{name}, {way.name}", was, direct_was)


# ---- Proper clients ----


def conversations(cases, ways):
    """What must hold everywhere, directly too."""
    for way in ways:
        for talk in (compressed, uncompressed, subprotocols, large, both_ways_at_once, half_open, pings_by_client, many):
            name = f"{talk.__name__.replace('_', ' ')}, {way.name}"
            with cases.case(name):
                talk(lambda what, seen, expected: cases.same(f"{name}: {what}", seen, expected), way)


def compressed(same, way):
    with way.connect() as client:
        same("permessage-deflate is agreed on", [each.name for each in client.protocol.extensions], ["permessage-deflate"])
        for message in ("a" * 100_000, os.urandom(70_000), "", b"", "ä" * 3000):
            client.send(message)
            same("a message comes back", client.recv(timeout=stand.PATIENCE), message)
        client.send(["frag", "men", "ts"])
        same("and so do fragments", client.recv(timeout=stand.PATIENCE), "fragments")


def uncompressed(same, way):
    with way.connect(compression=None) as client:
        same("nothing is agreed on", list(client.protocol.extensions), [])
        client.send("plain")
        same("a message comes back", client.recv(timeout=stand.PATIENCE), "plain")
        client.close(4321, "enough ☺")
        same("a close is answered in kind", (client.close_code, client.close_reason), (4321, "enough ☺"))


def subprotocols(same, way):
    with way.connect(subprotocols=["chat.v2", "chat.v1"]) as client:
        same("a subprotocol is agreed on", client.subprotocol, "chat.v1")


def large(same, way):
    with way.connect(compression=None) as client:
        message = random.Random(7).randbytes(16 << 20)
        client.send(message)
        same("16 MiB come back", client.recv(timeout=stand.PATIENCE) == message, True)


def both_ways_at_once(same, way):
    with way.connect(compression=None) as client:
        count, message = 2000, os.urandom(3000)
        sender = threading.Thread(target=lambda: [client.send(message) for _ in range(count)], daemon=True)
        sender.start()
        back = sum(client.recv(timeout=stand.PATIENCE) == message for _ in range(count))
        sender.join()
        same("all messages come back", back, count)


def half_open(same, way):
    """The server still has to hear and to answer what was said before the client closed its sending side."""
    if way.context:
        return
    with way.raw() as stream:
        stream.sendall(made.frame(made.TEXT, "last words") + made.close())
        stream.shutdown(socket.SHUT_WR)
        said = b""
        while data := stream.recv(65_536):
            said += data
    same("the last words are answered", said, server_frame(made.TEXT, "last words") + server_frame(made.CLOSE, struct.pack("!H", 1000)))


def pings_by_client(same, way):
    with way.connect() as client:
        waiting = [client.ping(bytes([number])) for number in range(20)]
        same("every ping is answered", [pong.wait(stand.PATIENCE) for pong in waiting], [True] * 20)


def many(same, way):
    clients = [way.connect() for _ in range(60)]
    for number, client in enumerate(clients):
        client.send(str(number))
    back = [client.recv(timeout=stand.PATIENCE) for client in clients]
    same("60 clients at once are not mixed up", back, [str(number) for number in range(60)])
    for client in clients:
        client.close()


def survives_a_flip(cases, proxy, ways):
    with cases.case("WebSockets survive a flip"):
        before = [(way, way.connect()) for way in ways]
        proxy.flip("ws", "green")
        for way, client in before:
            client.send("still here")
            cases.same(f"an open WebSocket lives on, {way.name}", client.recv(timeout=stand.PATIENCE), "still here")
            cases.same(f"on its version, {way.name}", client.response.headers["x-version"], "blue")
        for way in ways:
            with way.connect() as client:
                cases.same(f"a new one goes to the new version, {way.name}", client.response.headers["x-version"], "green")
        drain = proxy.call("GET", "/v1/services/ws/versions/blue/drain")["remaining"]
        cases.same("they are what blue waits for", [(of["kind"], of["count"]) for of in drain], [("websocket", len(ways))])
        for _, client in before:
            client.close()
        stand.wait_until("blue is empty", lambda: proxy.call("GET", "/v1/services/ws/versions/blue/drain")["drained"])


def suite(cases, directory):
    context = ssl.create_default_context(cafile=f"{directory}/ca.pem")
    named = lambda version: lambda connection, request, response: response.headers.__setitem__("x-version", version)
    blue, green = (
        Echo(select_subprotocol=chosen, process_response=named(version)) for version in ("blue", "green")
    )
    every = list(scripts())
    scripted = Scripted([pieces for _, pieces in every])
    services = (
        f'[services.ws]\nroutes = [{{ host = "{HOST}" }}]\nstable = "blue"\n'
        f'[services.ws.versions.blue]\nendpoints = ["{blue.address}"]\n[services.ws.versions.green]\nendpoints = ["{green.address}"]\n'
        f'[services.scripted]\nroutes = [{{ host = "scripted.suite.test" }}]\n'
        f'[services.scripted.versions.only]\nendpoints = ["{scripted.address}"]\n'
    )
    try:
        with stand.proxy(cases, directory, services) as proxy:
            through = lambda host: [Way("ws", proxy.clear, host), Way("wss", proxy.secure, host, context)]
            direct = Way("direct", blue.address)
            sent_by_clients(cases, direct, through(HOST))
            names = [name for name, _ in every]
            sent_by_servers(cases, Way("direct", scripted.address), through("scripted.suite.test"), names)
            conversations(cases, [direct, *through(HOST)])
            survives_a_flip(cases, proxy, through(HOST))
    finally:
        for server in (blue, green, scripted):
            server.stop()


if __name__ == "__main__":
    stand.run(suite)
