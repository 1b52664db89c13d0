"""A gRPC server of the interoperability tests' kind, by generic handlers: needs no generated code.

A message is a line of JSON and then bytes. Alone it is a version: `grpc_backend.py NAME DIRECTORY` prints its ports.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "grpc.testing.TestService"
LARGE = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]


def message(payload=0, /, **fields):
    """A message with a payload of so many bytes."""
    return json.dumps(fields).encode() + b"\n" + bytes(payload)


def parsed(data):
    """A message's fields and the size of its payload."""
    head, _, payload = data.partition(b"\n")
    return (json.loads(head) if head else {}), len(payload)


class Backend:
    """The server, in clear text and over TLS."""

    def __init__(self, name, directory):
        self.name = name
        self.begun, self.cancelled = threading.Semaphore(0), threading.Semaphore(0)
        self.server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[Handlers(self)], options=LARGE)
        with open(f"{directory}/server.key", "rb") as key, open(f"{directory}/server.pem", "rb") as pem:
            secure = grpc.ssl_server_credentials([(key.read(), pem.read())])
        self.clear = self.server.add_insecure_port("127.0.0.1:0")
        self.secure = self.server.add_secure_port("127.0.0.1:0", secure)
        self.server.start()

    def stop(self):
        self.server.stop(0.2).wait()


class Handlers(grpc.GenericRpcHandler):
    def __init__(self, backend):
        self.backend = backend

    def service(self, call):
        path = call.method.removeprefix(f"/{SERVICE}/")
        makes = {
            "EmptyCall": (grpc.unary_unary_rpc_method_handler, self.unary),
            "UnaryCall": (grpc.unary_unary_rpc_method_handler, self.unary),
            "StreamingInputCall": (grpc.stream_unary_rpc_method_handler, self.streaming_input),
            "StreamingOutputCall": (grpc.unary_stream_rpc_method_handler, self.streaming_output),
            "FullDuplexCall": (grpc.stream_stream_rpc_method_handler, self.full_duplex),
        }
        make, handler = makes.get(path, (None, None))
        return make(self.watched(handler)) if make else None

    def watched(self, handler):
        """Metadata is echoed; that a call was cancelled is told."""

        def watched(request, context):
            context.add_callback(lambda: context.code() is None and self.backend.cancelled.release())
            metadata = dict(context.invocation_metadata())
            initial = [("x-version", self.backend.name)]
            if "x-grpc-test-echo-initial" in metadata:
                initial.append(("x-grpc-test-echo-initial", metadata["x-grpc-test-echo-initial"]))
            if "x-compress" in metadata:
                context.set_compression(grpc.Compression.Gzip)
            context.send_initial_metadata(initial)
            if "x-grpc-test-echo-trailing-bin" in metadata:
                echoed = metadata["x-grpc-test-echo-trailing-bin"]
                context.set_trailing_metadata([("x-grpc-test-echo-trailing-bin", echoed)])
            return handler(request, context, metadata)

        return watched

    def unary(self, request, context, metadata):
        fields, size = parsed(request)
        obey(fields, context)
        if "echo_metadata" in fields:
            ours = {name: str(value) for name, value in metadata.items() if name.startswith("x-user")}
            return message(metadata=ours)
        return message(fields.get("size", 0), seen=size, deadline=deadline(context, metadata))

    def streaming_input(self, requests, context, metadata):
        sizes = []
        for request in requests:
            self.backend.begun.release()
            sizes.append(parsed(request)[1])
        return message(sum=sum(sizes), count=len(sizes))

    def streaming_output(self, request, context, metadata):
        fields, _ = parsed(request)
        for size in fields["sizes"]:
            yield message(size)
        obey(fields, context)

    def full_duplex(self, requests, context, metadata):
        for request in requests:
            fields, seen = parsed(request)
            obey(fields, context)
            for size in fields.get("sizes", []):
                yield message(size, seen=seen, version=self.backend.name)


def deadline(context, metadata):
    """True when the client's deadline has come along."""
    remaining = context.time_remaining()
    return remaining is not None and remaining < 1_000_000


def obey(fields, context):
    """Sleeps or fails when the message asks for it."""
    until = time.monotonic() + fields.get("sleep", 0)
    while time.monotonic() < until and context.is_active():
        time.sleep(0.01)
    if "code" in fields:
        code = next(code for code in grpc.StatusCode if code.value[0] == fields["code"])
        context.abort(code, fields.get("message", ""))


if __name__ == "__main__":
    backend = Backend(sys.argv[1], sys.argv[2])
    print(backend.clear, backend.secure, flush=True)
    sys.stdin.read()
