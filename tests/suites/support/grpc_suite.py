"""gRPC's interoperability cases, directly and through the proxy: see `tests/suites/grpc`."""

import json
import os
import queue
import subprocess
import sys
from concurrent import futures

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
import grpc

import stand
from grpc_backend import LARGE, SERVICE, Backend, message, parsed

SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


class Client:
    """A channel, and what its calls came to, in a form that can be compared."""

    def __init__(self, directory, address, host, is_secure, extra=()):
        options = [("grpc.default_authority", host), ("grpc.use_local_subchannel_pool", 1), *LARGE, *extra]
        if is_secure:
            with open(f"{directory}/ca.pem", "rb") as authority:
                secure = grpc.ssl_channel_credentials(authority.read())
            self.channel = grpc.secure_channel(address, secure, [("grpc.ssl_target_name_override", host), *options])
        else:
            self.channel = grpc.insecure_channel(address, options)

    def unary(self, method, request, service=SERVICE, **options):
        call = self.channel.unary_unary(f"/{service}/{method}")
        return outcome(lambda: unary_outcome(call.with_call(request, timeout=options.pop("timeout", stand.PATIENCE), **options)))

    def input(self, requests, **options):
        call = self.channel.stream_unary(f"/{SERVICE}/StreamingInputCall")
        return outcome(lambda: unary_outcome(call.with_call(iter(requests), timeout=stand.PATIENCE, **options)))

    def output(self, request, **options):
        call = self.channel.unary_stream(f"/{SERVICE}/StreamingOutputCall")
        return outcome(lambda: stream_outcome(call(request, timeout=stand.PATIENCE, **options)))

    def duplex(self, timeout=stand.PATIENCE, **options):
        return Duplex(self.channel, timeout, options)

    def close(self):
        self.channel.close()


class Duplex:
    """A bidirectional stream of which both ends can be held in the hand."""

    def __init__(self, channel, timeout, options):
        self.requests = queue.SimpleQueue()
        self.call = channel.stream_stream(f"/{SERVICE}/FullDuplexCall")(
            iter(self.requests.get, None), timeout=timeout, **options
        )

    def send(self, payload=0, /, **fields):
        self.requests.put(message(payload, **fields))

    def next(self):
        return parsed(next(self.call))

    def end(self):
        self.requests.put(None)

    def rest(self):
        return outcome(lambda: stream_outcome(self.call))


def unary_outcome(answer):
    response, call = answer
    return ("OK", parsed(response), metadata(call))


def stream_outcome(call):
    messages = []
    try:
        messages.extend(parsed(response) for response in call)
    except grpc.RpcError as error:
        return (error.code().name, error.details(), messages, metadata(error))
    return ("OK", messages, metadata(call))


def outcome(act):
    try:
        return act()
    except grpc.RpcError as error:
        return (error.code().name, error.details(), metadata(error))


def metadata(call):
    """All of it but what HTTP says of the answer, which gRPC's own servers leave out."""
    initial, trailing = call.initial_metadata() or (), call.trailing_metadata() or ()
    https = ("date", "content-length")
    return [[(key, value) for key, value in fields if key not in https] for fields in (initial, trailing)]


# ---- The cases: each says what it has seen. What a case expects of itself is asserted. ----


def empty_unary(client, backend):
    seen = client.unary("EmptyCall", b"")
    assert seen[0] == "OK", seen
    return seen


def large_unary(client, backend):
    seen = client.unary("UnaryCall", message(271_828, size=314_159))
    assert seen[0] == "OK" and seen[1][0]["seen"] == 271_828 and seen[1][1] == 314_159, seen
    return seen


def huge_unary(client, backend):
    seen = client.unary("UnaryCall", message(12 << 20, size=16 << 20))
    assert seen[0] == "OK" and seen[1][1] == 16 << 20, seen
    return seen


def client_streaming(client, backend):
    seen = client.input([message(size) for size in (27_182, 8, 1828, 45_904)])
    assert seen[1][0] == {"sum": 74_922, "count": 4}, seen
    return seen


def server_streaming(client, backend):
    seen = client.output(message(sizes=[31_415, 9, 2653, 58_979]))
    assert [size for _, size in seen[1]] == [31_415, 9, 2653, 58_979], seen
    return seen


def server_streaming_that_fails(client, backend):
    seen = client.output(message(sizes=[1, 2], code=10, message="half way"))
    assert seen[:2] == ("ABORTED", "half way") and len(seen[2]) == 2, seen
    return seen


def ping_pong(client, backend):
    stream, seen = client.duplex(), []
    for request, response in ((27_182, 31_415), (8, 9), (1828, 2653), (45_904, 58_979)):
        stream.send(request, sizes=[response])
        seen.append(stream.next())
        assert (seen[-1][0]["seen"], seen[-1][1]) == (request, response), seen
    stream.end()
    return seen, stream.rest()


def empty_stream(client, backend):
    stream = client.duplex()
    stream.end()
    seen = stream.rest()
    assert seen[:2] == ("OK", []), seen
    return seen


def half_closed_stream(client, backend):
    stream = client.duplex()
    for _ in range(3):
        stream.send(sizes=[10, 20, 30])
    stream.end()
    seen = stream.rest()
    assert [size for _, size in seen[1]] == [10, 20, 30] * 3, seen
    return seen


def cancel_after_begin(client, backend):
    requests = queue.SimpleQueue()
    method = client.channel.stream_unary(f"/{SERVICE}/StreamingInputCall")
    call = method.future(iter(requests.get, None))
    requests.put(message())
    assert backend.begun.acquire(timeout=stand.PATIENCE)
    call.cancel()
    requests.put(None)
    assert call.cancelled() and call.code() is grpc.StatusCode.CANCELLED
    return call.code().name, backend.cancelled.acquire(timeout=stand.PATIENCE)


def cancel_after_first_response(client, backend):
    stream = client.duplex()
    stream.send(27_182, sizes=[31_415])
    first = stream.next()
    stream.call.cancel()
    stream.end()
    seen = stream.rest()
    assert seen[0] == "CANCELLED", seen
    return first, seen[0], backend.cancelled.acquire(timeout=stand.PATIENCE)


def timeout_on_sleeping_server(client, backend):
    stream = client.duplex(timeout=0.5)
    stream.send(27_182, sleep=stand.PATIENCE)
    seen = stream.rest()
    stream.end()
    assert seen[0] == "DEADLINE_EXCEEDED", seen
    return seen[0], backend.cancelled.acquire(timeout=stand.PATIENCE)


def deadline_of_a_unary_call(client, backend):
    seen = client.unary("UnaryCall", message(sleep=stand.PATIENCE), timeout=0.5)
    assert seen[0] == "DEADLINE_EXCEEDED", seen
    return seen[0], backend.cancelled.acquire(timeout=stand.PATIENCE)


def deadline_is_told(client, backend):
    seen = client.unary("UnaryCall", message(), timeout=17)
    assert seen[1][0]["deadline"], seen
    return seen


CUSTOM = [
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    ("x-grpc-test-echo-trailing-bin", b"\x0a\x0b\x0a\x0b\x0a\x0b"),
]


def custom_metadata(client, backend):
    seen = client.unary("UnaryCall", message(271_828, size=314_159), metadata=CUSTOM)
    assert CUSTOM[0] in seen[2][0] and CUSTOM[1] in seen[2][1], seen
    stream = client.duplex(metadata=CUSTOM)
    stream.send(271_828, sizes=[314_159])
    stream.end()
    streamed = stream.rest()
    assert CUSTOM[0] in streamed[2][0] and CUSTOM[1] in streamed[2][1], streamed
    return seen, streamed


def all_bytes_in_metadata(client, backend):
    fields = [("x-user-bin", bytes(range(256))), ("x-user-a", "a, b"), ("x-user-b", "!~"), ("x-user-empty", "")]
    return client.unary("UnaryCall", message(echo_metadata=True), metadata=fields)


def status_code_and_message(client, backend):
    unary = client.unary("UnaryCall", message(code=2, message="test status message"))
    assert unary[:2] == ("UNKNOWN", "test status message"), unary
    stream = client.duplex()
    stream.send(code=2, message="test status message")
    stream.end()
    streamed = stream.rest()
    assert streamed[:2] == ("UNKNOWN", "test status message"), streamed
    return unary, streamed


def special_status_message(client, backend):
    seen = client.unary("UnaryCall", message(code=2, message=SPECIAL))
    assert seen[:2] == ("UNKNOWN", SPECIAL), seen
    return seen


def every_status_code(client, backend):
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    seen = [client.unary("UnaryCall", message(code=code.value[0], message=code.value[1])) for code in codes]
    assert [code for code, *_ in seen] == [code.name for code in codes], seen
    return seen


def unimplemented_method(client, backend):
    seen = client.unary("UnimplementedCall", b"")
    assert seen[0] == "UNIMPLEMENTED", seen
    return seen


def unimplemented_service(client, backend):
    seen = client.unary("UnimplementedCall", b"", service="grpc.testing.UnimplementedService")
    assert seen[0] == "UNIMPLEMENTED", seen
    return seen


def client_compressed(client, backend):
    gzip = grpc.Compression.Gzip
    unary = client.unary("UnaryCall", message(271_828, size=314_159), compression=gzip)
    streamed = client.input([message(27_182), message(45_904)], compression=gzip)
    assert unary[1][0]["seen"] == 271_828 and streamed[1][0]["sum"] == 73_086, (unary, streamed)
    return unary, streamed


def server_compressed(client, backend):
    fields = [("x-compress", "gzip")]
    unary = client.unary("UnaryCall", message(size=314_159), metadata=fields)
    streamed = client.output(message(sizes=[31_415, 92_653]), metadata=fields)
    assert unary[1][1] == 314_159 and [size for _, size in streamed[1]] == [31_415, 92_653], (unary, streamed)
    return unary, streamed


def too_large_a_response(client, backend):
    seen = client.unary("UnaryCall", message(size=65 << 20))
    assert seen[0] == "RESOURCE_EXHAUSTED", seen
    return seen


def many_at_once(client, backend):
    with futures.ThreadPoolExecutor(24) as threads:
        calls = [threads.submit(large_unary, client, backend) for _ in range(100)]
        return [call.result() for call in calls]


def one_after_another(client, backend):
    return [client.unary("EmptyCall", b"") for _ in range(200)]


def many_streams_at_once(client, backend):
    streams = [client.duplex() for _ in range(20)]
    for turn in range(10):
        for stream in streams:
            stream.send(1000 + turn, sizes=[3000 + turn])
        for stream in streams:
            assert stream.next()[1] == 3000 + turn
    for stream in streams:
        stream.end()
    return [stream.rest() for stream in streams]


CASES = [
    empty_unary, large_unary, huge_unary, client_streaming, server_streaming, server_streaming_that_fails, ping_pong,
    empty_stream, half_closed_stream, cancel_after_begin, cancel_after_first_response, timeout_on_sleeping_server,
    deadline_of_a_unary_call, deadline_is_told, custom_metadata, all_bytes_in_metadata, status_code_and_message,
    special_status_message, every_status_code, unimplemented_method, unimplemented_service, client_compressed,
    server_compressed, too_large_a_response, many_at_once, one_after_another, many_streams_at_once,
]  # fmt: skip


def observe(case, client, backend):
    for told in (backend.begun, backend.cancelled):
        while told.acquire(blocking=False):
            pass
    return case(client, backend)


def compared(cases, directory, proxy, backend):
    """Every case, from both kinds of client to both kinds of endpoint."""
    paths = {
        f"{'TLS' if is_secure else 'h2c'} to {host}": (proxy.secure if is_secure else proxy.clear, f"{host}.suite.test", is_secure)
        for is_secure in (False, True)
        for host in ("h2c", "h2")
    }
    direct = Client(directory, f"127.0.0.1:{backend.clear}", "direct.suite.test", False)
    clients = {path: Client(directory, *of) for path, of in paths.items()}
    for case in CASES:
        expected = None
        with cases.case(f"{case.__name__}, direct"):
            expected = observe(case, direct, backend)
        for path, client in clients.items():
            with cases.case(f"{case.__name__}, {path}"):
                cases.same(f"{case.__name__}, {path}", observe(case, client, backend), expected)
    for client in (direct, *clients.values()):
        client.close()


def compressed_stays_compressed(cases, directory, proxy):
    """What a client or a server has compressed passes as it is."""

    def calls():
        with open(f"{directory}/access.log") as log:
            whole = [line for line in log if line.endswith("\n")]
            return [call for call in map(json.loads, whole) if call["host"] == "packed.h2c.suite.test"]

    client = Client(directory, proxy.clear, "packed.h2c.suite.test", False)
    client_compressed(client, None)
    server_compressed(client, None)
    stand.wait_until("four calls are in the log", lambda: len(calls()) == 4)
    unary, streamed, unary_back, streamed_back = calls()
    sizes = [call["request_bytes"] for call in (unary, streamed)] + [call["response_bytes"] for call in (unary_back, streamed_back)]
    cases.check("compressed messages pass as they are", max(sizes) < 8_000, sizes)
    client.close()


# ---- Switches ----


def backend_process(name, directory):
    program = __file__.replace("grpc_suite", "grpc_backend")
    process = subprocess.Popen(
        [sys.executable, program, name, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    return process, *process.stdout.readline().split()


def a_stream_survives_a_flip(cases, client, proxy):
    stream = client.duplex()
    stream.send(sizes=[1])
    cases.same("a stream begins on blue", stream.next()[0]["version"], "blue")
    proxy.flip("flipped", "green")
    versions = {dict(client.unary("EmptyCall", b"")[2][0])["x-version"] for _ in range(20)}
    cases.same("new calls of the same connection go to green", versions, {"green"})
    stream.send(sizes=[2, 3])
    cases.same("the stream is still blue's", [stream.next()[0]["version"] for _ in range(2)], ["blue"] * 2)
    drain = proxy.call("GET", "/v1/services/flipped/versions/blue/drain")
    cases.same("and is what blue waits for", [(of["kind"], of["count"]) for of in drain["remaining"]], [("grpc", 1)])
    stream.end()
    cases.same("until it ends", stream.rest()[:2], ("OK", []))
    stand.wait_until("blue is empty", lambda: proxy.call("GET", "/v1/services/flipped/versions/blue/drain")["drained"])


def statuses_are_counted_by_version(cases, client, proxy):
    def count(version, status):
        return proxy.metric("switchback_upstream_grpc_status_total", service="flipped", version=version, grpc_status=status)

    before = count("green", 0), count("green", 10), count("blue", 10)
    client.unary("EmptyCall", b"")
    client.unary("UnaryCall", message(code=10, message="no"))
    client.output(message(sizes=[1], code=10, message="no"))
    after = count("green", 0), count("green", 10), count("blue", 10)
    told = [now - then for now, then in zip(after, before)]
    cases.same("statuses are counted, and for the version that gave them", told, [1, 2, 0])


def a_killed_backend_is_unavailable(cases, client, process):
    stream = client.duplex()
    stream.send(sizes=[1])
    stream.next()
    process.kill()
    process.wait()
    cases.same("a stream whose backend is killed is unavailable", stream.rest()[0], "UNAVAILABLE")
    stream.end()
    seen = [client.unary("EmptyCall", b"")[0] for _ in range(5)]
    cases.same("and so are calls after it", seen, ["UNAVAILABLE"] * 5)


def switches(cases, directory, proxy, processes):
    for is_secure, name in ((False, "h2c"), (True, "TLS")):
        with cases.case(f"switches over {name}"):
            address = proxy.secure if is_secure else proxy.clear
            client = Client(directory, address, "flipped.suite.test", is_secure)
            proxy.flip("flipped", "blue")
            a_stream_survives_a_flip(cases, client, proxy)
            statuses_are_counted_by_version(cases, client, proxy)
            client.close()
    for is_secure, (name, process) in zip((False, True), processes.items()):
        with cases.case(f"a killed backend, {name}"):
            proxy.flip("flipped", name)
            client = Client(directory, proxy.secure if is_secure else proxy.clear, "flipped.suite.test", is_secure)
            a_killed_backend_is_unavailable(cases, client, process)
            client.close()


def services(directory, backend, blue, green):
    tls = f'ca = "{directory}/ca.pem"\nserver_name = "backend.suite.test"\n'
    return (
        f'[access_log]\ntarget = "file"\npath = "{directory}/access.log"\n'
        + "".join(
            f'[services.{host}]\nroutes = [{{ host = "{host}.suite.test" }}, {{ host = "packed.{host}.suite.test" }}]\n'
            f'[services.{host}.versions.only]\nendpoints = ["127.0.0.1:{port}"]\nprotocol = "{host}"\n'
            for host, port in (("h2c", backend.clear), ("h2", backend.secure))
        )
        + f"[services.h2.versions.only.tls]\n{tls}"
        + '[services.flipped]\nroutes = [{ host = "flipped.suite.test", path = "/" }]\nstable = "blue"\n'
        + f'[services.flipped.versions.blue]\nendpoints = ["127.0.0.1:{blue}"]\nprotocol = "h2c"\n'
        + f'[services.flipped.versions.green]\nendpoints = ["127.0.0.1:{green}"]\nprotocol = "h2"\n'
        + f"[services.flipped.versions.green.tls]\n{tls}"
    )


def suite(cases, directory):
    blue, green = backend_process("blue", directory), backend_process("green", directory)
    backend = Backend("only", directory)
    try:
        with stand.proxy(cases, directory, services(directory, backend, blue[1], green[2])) as proxy:
            compared(cases, directory, proxy, backend)
            compressed_stays_compressed(cases, directory, proxy)
            switches(cases, directory, proxy, {"blue": blue[0], "green": green[0]})
    finally:
        backend.stop()
        for process, *_ in (blue, green):
            process.kill()
            process.wait()


if __name__ == "__main__":
    stand.run(suite)
