"""Many long streams through flips: see `tests/suites/streams`."""

import asyncio
import collections
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import stand
from streams_backend import METHOD

logging.getLogger("websockets").addHandler(logging.NullHandler())
logging.getLogger("websockets").propagate = False

FLIPS = int(os.environ.get("FLIPS", "10"))
SPREAD = 20
"""Seconds over which the streams of a version that is left are told to go."""
LATE = 3
"""How many seconds of them a loaded machine may keep clients waiting."""
SOCKETS, EVENTS, CALLS = 1000, 200, 200
SHARED = 50
"""How many gRPC streams share a connection."""


class Backend:
    """A version in a process of its own."""

    def __init__(self, name):
        program = os.path.join(os.path.dirname(__file__), "streams_backend.py")
        command = [sys.executable, program, name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ports = json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.stdin.close()
        self.process.wait(stand.PATIENCE)


def services(blue, green):
    drain = f'drain = {{ patience = "0s", spread = "{SPREAD}s", deadline = "{2 * SPREAD}s" }}'
    named = (("sockets", "http1"), ("events", "http1"), ("calls", "h2c"), ("other", "http1"))
    for name, protocol in named:
        port = "events" if name == "other" else name
        yield f'[services.{name}]\nstable = "blue"\nroutes = [{{ host = "{name}.suite.test" }}]\n{drain}\n'
        for version, backend in (("blue", blue), ("green", green)):
            endpoint = f"127.0.0.1:{backend.ports[port]}"
            yield f'[services.{name}.versions.{version}]\nendpoints = ["{endpoint}"]\nprotocol = "{protocol}"\n'


class Crowd:
    """What the clients have seen: who serves them, how they were ended and when, and what should not have been."""

    def __init__(self):
        self.at = collections.Counter()
        self.ends = collections.defaultdict(list)
        self.wrong = []
        self.messages = 0
        self.is_over = False

    def arrived(self, kind, name):
        self.at[kind, name] += 1

    def ended(self, kind, name, how):
        if not self.is_over:
            self.at[kind, name] -= 1
            self.ends[kind].append((time.monotonic(), how))

    def counted(self, kind, seen, expected):
        self.messages += 1
        if seen != expected:
            self.wrong.append(f"{kind}: {seen!r} came, not {expected!r}")


async def talk(crowd, port):
    """A WebSocket that is opened again whenever it ends, by the library itself."""
    async for socket in connect("ws://sockets.suite.test/", host="127.0.0.1", port=port, ping_interval=None, proxy=None):
        name, ticking = None, None
        try:
            name = await socket.recv()
            crowd.arrived("websocket", name)
            ticking = asyncio.create_task(tick(socket, name))
            number = 0
            async for message in socket:
                crowd.counted("websocket", message, f"{name} {number}")
                number += 1
            crowd.ended("websocket", name, socket.close_code)
        except ConnectionClosed as closed:
            crowd.ended("websocket", name, closed.rcvd and closed.rcvd.code)
        finally:
            if ticking:
                ticking.cancel()


async def tick(socket, name):
    """One message a second."""
    number = 0
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.send(f"{name} {number}")
            number += 1
            await asyncio.sleep(1)


async def subscribe(crowd, port):
    """An event stream that is asked for again whenever it ends."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        name, how = None, "clean"
        try:
            writer.write(b"GET / HTTP/1.1\r\nhost: events.suite.test\r\naccept: text/event-stream\r\n\r\n")
            await reader.readuntil(b"\r\n\r\n")
            text, number = "", 0
            while size := int(await reader.readuntil(b"\r\n"), 16):
                text += (await reader.readexactly(size + 2))[:-2].decode()
                *whole, text = text.split("\n\n")
                for event in whole:
                    if name is None:
                        name = event.removeprefix("data: ")
                        crowd.arrived("sse", name)
                    else:
                        crowd.counted("sse", event, f"id: {number}\ndata: {number}")
                        number += 1
            if text:
                how = f"torn: {text!r}"
        except (ConnectionError, ValueError, asyncio.IncompleteReadError) as error:
            how = repr(error)
        finally:
            writer.close()
        crowd.ended("sse", name, how)


async def count(crowd, channel):
    """A gRPC stream that is called again whenever it ends."""
    while True:
        name = None
        try:
            number = 0
            async for message in channel.unary_stream(METHOD)(b""):
                if name is None:
                    name = message.decode()
                    crowd.arrived("grpc", name)
                else:
                    crowd.counted("grpc", message.decode(), str(number))
                    number += 1
            how = "OK"
        except grpc.aio.AioRpcError as error:
            how = error.code().name
        crowd.ended("grpc", name, how)


WANTED = {"websocket": SOCKETS, "sse": EVENTS, "grpc": CALLS}
WAYS = {"websocket": 1012, "sse": "clean", "grpc": "UNAVAILABLE"}


async def until(what, is_so, patience=stand.PATIENCE):
    """As `stand.wait_until`, while the clients go on."""
    end = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"it never came to this: {what}")
        await asyncio.sleep(0.01)


async def through(cases, proxy):
    port = int(proxy.clear.rsplit(":", 1)[1])
    options = [("grpc.default_authority", "calls.suite.test"), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(CALLS // SHARED)]
    crowd, clients = Crowd(), []

    async def come(some):
        """Not all at once: a listener has room for so many."""
        for client in some:
            clients.append(asyncio.create_task(client))
            await asyncio.sleep(0.001)

    await come(talk(crowd, port) for _ in range(SOCKETS))
    await come(subscribe(crowd, port) for _ in range(EVENTS))
    await come(count(crowd, channels[number % len(channels)]) for number in range(CALLS))
    try:
        await until("all are there", lambda: all(crowd.at[kind, "blue"] == most for kind, most in WANTED.items()))
        await unmoved(cases, proxy, crowd)
        await told(cases, proxy, crowd)
    finally:
        crowd.is_over = True
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        for channel in channels:
            await channel.close()


async def unmoved(cases, proxy, crowd):
    """Another service is flipped once a second."""
    before = crowd.messages
    for number in range(FLIPS):
        pause = asyncio.create_task(asyncio.sleep(1))
        await asyncio.to_thread(proxy.flip, "other", ("green", "blue")[number % 2])
        await pause
    cases.same(f"{FLIPS} flips of another service: none ended", dict(crowd.ends), {})
    cases.same("no message was lost, none came twice, none in another order", crowd.wrong[:5], [])
    # Each client hears at least one message in two seconds.
    least = sum(WANTED.values()) * FLIPS // 2
    cases.check("they have talked meanwhile", crowd.messages - before >= least, crowd.messages - before)
    for name, kind in (("sockets", "websocket"), ("events", "sse"), ("calls", "grpc")):
        drain = await asyncio.to_thread(proxy.call, "GET", f"/v1/services/{name}/versions/blue/drain")
        left = {entry["kind"]: entry["count"] for entry in drain["remaining"]}
        cases.same(f"{name}: the drain answer counts them", left, {kind: WANTED[kind]})


async def told(cases, proxy, crowd):
    """Their own services are flipped,."""
    await asyncio.to_thread(flip_all, proxy)
    begin = time.monotonic()
    is_done = lambda: all(crowd.at[kind, "green"] == most for kind, most in WANTED.items())
    await until("all are with green", is_done, 3 * SPREAD)
    for name in ("sockets", "events", "calls"):
        await until(
            f"{name}/blue is drained",
            lambda: proxy.call("GET", f"/v1/services/{name}/versions/blue/drain")["drained"],
        )
    for kind, most in WANTED.items():
        ends = crowd.ends[kind]
        cases.same(f"{kind}: how they ended", collections.Counter(how for _, how in ends), {WAYS[kind]: most})
        seconds = collections.Counter(int(at - begin) for at, _ in ends)
        even = most / SPREAD
        # Clients that the machine keeps waiting count ends seconds after; none counts one before.
        counts = [seconds[second] for second in range(SPREAD)]
        uneven = [count for count in counts if abs(count - even) > 0.2 * even]
        cases.check(f"{kind}: closings a second", len(uneven) <= SPREAD // 3, f"{counts}, not {even:g} each")
        sums = [sum(counts[: second + 1]) - even * (second + 1) for second in range(SPREAD)]
        in_time = all(-LATE * even <= ahead <= even for ahead in sums)
        cases.check(f"{kind}: never a second early, nor {LATE} late", in_time, counts)
        late = [f"{at - begin:.2f}" for at, _ in ends if at - begin > SPREAD + LATE]
        cases.same(f"{kind}: none after the spread", late, [])
    cases.same("no message was torn", crowd.wrong[:5], [])


def flip_all(proxy):
    for name in ("sockets", "events", "calls"):
        proxy.flip(name, "green")


def suite(cases, directory):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.ExitStack() as stack:
        blue, green = Backend("blue"), Backend("green")
        stack.callback(blue.stop)
        stack.callback(green.stop)
        proxy = stack.enter_context(stand.proxy(cases, directory, "".join(services(blue, green))))
        asyncio.run(through(cases, proxy))


if __name__ == "__main__":
    stand.run(suite)
