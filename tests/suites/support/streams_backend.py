"""One version that keeps its clients for long: `streams_backend.py NAME` prints its ports and serves until its input ends.

WebSockets say back what is said; event streams and gRPC streams count from 0. Whoever comes is told the name first.
"""

import asyncio
import contextlib
import json
import os
import sys

import grpc
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

METHOD = "/streams.Ticker/Count"
EVERY = 0.25
"""Seconds between two events of a stream."""


async def main(name):
    async def echo(connection):
        with contextlib.suppress(ConnectionClosed):
            await connection.send(name)
            async for message in connection:
                await connection.send(message)

    async def events(reader, writer):
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunk(f"data: {name}\n\n")
            )
            number = 0
            while True:
                # In two pieces: an end between them would tear the event.
                writer.write(chunk(f"id: {number}\ndata: "))
                await asyncio.sleep(EVERY / 2)
                writer.write(chunk(f"{number}\n\n"))
                await writer.drain()
                await asyncio.sleep(EVERY / 2)
                number += 1
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def count(request, context):
        yield name.encode()
        number = 0
        while True:
            yield str(number).encode()
            await asyncio.sleep(EVERY)
            number += 1

    class Handlers(grpc.GenericRpcHandler):
        def service(self, call):
            return grpc.unary_stream_rpc_method_handler(count) if call.method == METHOD else None

    sockets = await serve(echo, "127.0.0.1", 0, ping_interval=None, backlog=2048)
    streams = await asyncio.start_server(events, "127.0.0.1", 0, backlog=2048)
    calls = grpc.aio.server(handlers=[Handlers()])
    ports = {
        "sockets": sockets.sockets[0].getsockname()[1],
        "events": streams.sockets[0].getsockname()[1],
        "calls": calls.add_insecure_port("127.0.0.1:0"),
    }
    await calls.start()
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # With all that it serves: who is left has been seen.
    os._exit(0)


def chunk(text):
    return f"{len(text):x}\r\n{text}\r\n".encode()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
