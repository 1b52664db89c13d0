"""curl through the proxy, in every protocol on both sides: see `tests/suites/curl`."""

import gzip
import hashlib
import http.server
import json
import os
import random
import re
import subprocess
import threading
from concurrent import futures

import stand

FILE = random.Random(3).randbytes(256 << 10)
TEXT = b"the same line over and over\n" * 4000
BIG = random.Random(4).randbytes(3 << 20)


IS_OLD = int(re.search(r"curl (\d+)", subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout)[1]) < 8


# ---- The origin ----


class Origin(http.server.BaseHTTPRequestHandler):
    """Says what it was sent, and answers in every way that HTTP/1.1 has."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *_):
        pass

    def respond(self):
        path = self.path.split("?")[0].strip("/")
        getattr(self, f"on_{path}", self.on_echo)()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = respond

    def handle_expect_100(self):
        # Whether it may come is said where it is read.
        return True

    def body(self):
        """The request's body, in whatever framing."""
        if self.headers.get("expect"):
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return data

    def answer(self, status, data=None, **fields):
        self.send_response(status)
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        if data is not None:
            self.send_header("content-length", str(len(data)))
        self.end_headers()
        if data and self.command != "HEAD":
            self.wfile.write(data)

    def on_echo(self):
        body = self.body()
        about = {
            "method": self.command, "path": self.path, "length": len(body), "hash": hashlib.sha256(body).hexdigest(),
            "type": self.headers.get("content-type"), "cookie": self.headers.get("cookie"),
            "mine": self.headers.get_all("x-mine"),
        }  # fmt: skip
        self.answer(200, json.dumps(about).encode(), content_type="application/json")

    def on_file(self):
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("range", ""))
        fields = {"etag": '"v1"', "accept_ranges": "bytes", "content_type": "application/octet-stream"}
        if self.headers.get("if-none-match") == '"v1"':
            return self.answer(304, etag='"v1"')
        if not asked:
            return self.answer(200, FILE, **fields)
        first, last = asked.groups()
        begin = int(first) if first else len(FILE) - int(last)
        end = min(int(last) if first and last else len(FILE) - 1, len(FILE) - 1)
        if begin >= len(FILE):
            return self.answer(416, b"", content_range=f"bytes */{len(FILE)}")
        self.answer(206, FILE[begin : end + 1], content_range=f"bytes {begin}-{end}/{len(FILE)}", **fields)

    def on_gzip(self):
        if "gzip" in self.headers.get("accept-encoding", ""):
            return self.answer(200, gzip.compress(TEXT, mtime=0), content_encoding="gzip", vary="accept-encoding")
        self.answer(200, TEXT, vary="accept-encoding")

    def on_chunked(self, trailer=None):
        self.answer(200, transfer_encoding="chunked", content_type="text/plain")
        if self.command == "HEAD":
            return
        for at in range(0, len(TEXT), 5000):
            part = TEXT[at : at + 5000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
        self.wfile.write(b"0\r\n" + (trailer or b"") + b"\r\n")

    def on_trailers(self):
        self.on_chunked(b"x-sum: 42\r\n")

    def on_until_close(self):
        self.answer(200, content_type="text/plain", connection="close")
        self.wfile.write(TEXT)
        self.close_connection = True

    def on_hints(self):
        self.send_response_only(103)
        self.send_header("link", "</style.css>; rel=preload")
        self.end_headers()
        self.wfile.flush()
        self.answer(200, b"hinted")

    def on_refuses(self):
        self.answer(413, b"too much", connection="close")
        self.close_connection = True

    def on_nothing(self):
        self.body()
        self.answer(204)

    def on_redirect(self):
        self.answer(302, b"", location="/file")

    def on_cookies(self):
        self.send_response(200)
        for cookie in ("a=1; Path=/", "b=2; HttpOnly"):
            self.send_header("set-cookie", cookie)
        self.send_header("content-length", "0")
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True

    def handle_error(self, *_):
        """A client that leaves is no error."""


# ---- What is asked ----

CASES = {
    "GET": ["/file"],
    "HEAD": ["-I", "/file"],
    "HEAD of chunks": ["-I", "/chunked"],
    "a range": ["-r", "100-199", "/file"],
    "a range at the end": ["-r", "-50", "/file"],
    "a range that is not there": ["-r", "99999999-", "/file"],
    "a download that goes on": ["-C", "200000", "/file"],
    "not modified": ["-H", 'If-None-Match: "v1"', "/file"],
    "POST of a form": ["-d", "a=b", "--data-urlencode", "c=d e&", "/echo?x=1&y=%20"],
    "POST of nothing": ["-X", "POST", "/echo"],
    "POST of nothing that says so": ["-d", "", "/echo"],
    "POST of 3 MiB": ["--data-binary", "@BIG", "/echo"],
    "POST of parts": ["-F", "file=@BIG", "-F", "name=value", "/nothing"],
    "POST that expects": ["-H", "Expect: 100-continue", "-d", "small", "/echo"],
    "POST that expects, of 3 MiB": ["-H", "Expect: 100-continue", "--data-binary", "@BIG", "/echo"],
    "POST that does not expect": ["-H", "Expect:", "--data-binary", "@BIG", "/echo"],
    "POST that is refused": ["-H", "Expect: 100-continue", "--data-binary", "@BIG", "/refuses"],
    "PUT": ["-X", "PUT", "-d", "put", "/echo"],
    "PATCH": ["-X", "PATCH", "-d", "patch", "/echo"],
    "DELETE": ["-X", "DELETE", "/echo"],
    "OPTIONS": ["-X", "OPTIONS", "/echo"],
    "an upload": ["-T", "BIG", "/echo"],
    "an upload of unknown length": ["-T", "-", "/echo"],
    "an upload of nothing": ["-T", "EMPTY", "/echo"],
    "compressed": ["--compressed", "/gzip"],
    "compressed, as it is": ["-H", "accept-encoding: gzip", "/gzip"],
    "not compressed": ["/gzip"],
    "chunks": ["/chunked"],
    "a body until the connection closes": ["/until_close"],
    "trailers": ["-H", "TE: trailers", "/trailers"],
    "an early hint": ["/hints"],
    "no content": ["/nothing"],
    "a redirect": ["-L", "/redirect"],
    "cookies": ["-b", "a=1; b=2", "-b", "c=3", "/echo"],
    "set-cookie twice": ["/cookies"],
    "a field twice": ["-H", "x-mine: one", "-H", "x-mine: two", "/echo"],
    "a long field": ["-H", f"x-mine: {'x' * 8000}", "/echo"],
    "several at once": ["-Z", "--no-progress-meter", "-w", "%{http_code} %{size_download}\n", *(["-o", "NULL", "/file"] * 8)],
    "several, one after the other": ["/file", "/chunked", "/gzip", "/file"],
}  # fmt: skip

# What is compared of the heads; trailers and interim answers are among them.
TOLD = (
    "content-type content-range content-encoding etag vary accept-ranges location set-cookie x-sum link content-length"
).split()


class Caller:
    """curl in one of its protocols, to one of the services."""

    def __init__(self, directory, name, options, scheme, address, host):
        self.directory, self.name, self.options = directory, name, options
        self.base = f"{scheme}://{host}"
        self.address = address

    def can(self, case):
        of_1_1 = ("an upload of unknown length", "trailers", "an early hint", "POST that expects", "POST that is refused")
        if "--http1.0" in self.options:
            # It knows no chunks, no trailers and no interim answers.
            return not case.startswith(of_1_1)
        if IS_OLD and "--http2-prior-knowledge" in self.options and case in ("a redirect", "several, one after the other", "several at once"):
            # curl 7 fails at the second request of such a connection, to nginx too.
            return False
        return True

    def is_http2(self):
        return "--http2-prior-knowledge" in self.options or "--http2" in self.options and self.base.startswith("https")

    def ask(self, arguments):
        """What curl gets: its exit code, and what of heads and bodies is compared."""
        named = {"@BIG": f"@{self.directory}/big", "file=@BIG": f"file=@{self.directory}/big", "BIG": f"{self.directory}/big",
                 "EMPTY": f"{self.directory}/empty", "NULL": os.devnull}  # fmt: skip
        arguments = [self.base + argument if argument.startswith("/") else named.get(argument, argument) for argument in arguments]
        if "TE: trailers" in arguments and not self.is_http2():
            arguments += ["-H", "Connection: TE"]
        with open(f"{self.directory}/big", "rb") as stdin:
            done = self.run(["-i", *arguments], stdin)
        return done.returncode, *seen(done.stdout, "-I" in arguments), done.stderr.decode()

    def run(self, arguments, stdin=subprocess.DEVNULL):
        command = [
            "curl", "-q", "-sS", "--noproxy", "*", "--max-time", str(stand.PATIENCE), "--cacert", f"{self.directory}/ca.pem",
            "--connect-to", f"::{self.address}", *self.options, *arguments,
        ]  # fmt: skip
        return subprocess.run(command, stdin=stdin, capture_output=True)

    def version(self):
        """The protocol that it has come to speak."""
        return self.run(["-o", os.devnull, "-w", "%{http_version}", f"{self.base}/file"]).stdout.decode()


def seen(output, is_head):
    """Statuses, told fields and the bodies' hash of what curl has printed: heads and bodies in turn."""
    statuses, fields = [], []
    pattern = re.compile(rb"HTTP/[\d.]+ (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
    body = output
    while found := pattern.search(body):
        statuses.append(found[1].decode())
        fields += heads(found[2])
        body = body[: found.start()] + body[found.end() :]
    if is_head:
        return sorted(statuses), fields, b""
    trailer = re.search(rb"x-sum: 42\r\n", body)
    if trailer:
        fields += heads(trailer[0])
        body = body[: trailer.start()] + body[trailer.end() :].removeprefix(b"\r\n")
    return sorted(statuses), fields, hashlib.sha256(body).hexdigest() if len(body) > 2000 else body


def heads(lines):
    parted = (line.split(b": ", 1) for line in lines.split(b"\r\n") if b": " in line)
    return sorted((name.decode().lower(), value.decode()) for name, value in parted if name.decode().lower() in TOLD)


def comparable(seen):
    """Without what is the protocol's own: `100 Continue`, and the length of nothing."""
    code, statuses, fields, body, errors = seen
    statuses = [status for status in statuses if status != "100"]
    return code, statuses, [field for field in fields if field != ("content-length", "0")], body, errors


# ---- Who asks whom ----

SERVICES = {"http1": "http1", "h2c": "h2c", "h2": "h2", "https": "https"}


def services(directory, origin, inner):
    """One service for every protocol towards endpoints; what is not HTTP/1.1 in clear text is spoken by another proxy."""
    text = ""
    for protocol in SERVICES:
        endpoint = {"http1": origin, "h2c": inner.clear}.get(protocol, inner.secure)
        text += (
            f'[services.{protocol}]\nroutes = [{{ host = "{protocol}.suite.test" }}]\n'
            f'[services.{protocol}.versions.only]\nendpoints = ["{endpoint}"]\nprotocol = "{protocol}"\n'
        )
        if endpoint == inner.secure:
            text += f'[services.{protocol}.versions.only.tls]\nca = "{directory}/ca.pem"\nserver_name = "inner.suite.test"\n'
    return text


def callers(directory, proxy):
    clients = {
        "HTTP/1.0": (["--http1.0"], "http", proxy.clear),
        "HTTP/1.1": (["--http1.1"], "http", proxy.clear),
        "HTTP/1.1 that offers h2c": (["--http2"], "http", proxy.clear),
        "h2c": (["--http2-prior-knowledge"], "http", proxy.clear),
        "HTTP/1.1 over TLS": (["--http1.1"], "https", proxy.secure),
        "h2 over TLS": (["--http2"], "https", proxy.secure),
    }
    for name, (options, scheme, address) in clients.items():
        for protocol in SERVICES:
            yield Caller(directory, f"{name} to {protocol}", options, scheme, address, f"{protocol}.suite.test")


def everything(cases, directory, origin, proxy):
    direct = Caller(directory, "direct", ["--http1.1"], "http", origin, "origin.suite.test")
    every = list(callers(directory, proxy))
    with futures.ThreadPoolExecutor(4) as threads:
        expected = dict(zip(CASES, threads.map(direct.ask, CASES.values())))
        for name, (code, statuses, _, body, _) in expected.items():
            cases.check(f"{name}, direct", code == 0 and (statuses or body), expected[name])
        asked = [(name, caller) for caller in every for name in CASES if caller.can(name)]
        for (name, caller), was in zip(asked, threads.map(lambda pair: pair[1].ask(CASES[pair[0]]), asked)):
            cases.same(f"{name}, {caller.name}", comparable(was), comparable(expected[name]))
    for caller in every:
        wanted = {"HTTP/1.0": "1", "HTTP/1.1": "1.1"}.get(caller.name[:8], "2")
        cases.same(f"the protocol that is spoken, {caller.name}", caller.version(), wanted)


def suite(cases, directory):
    for name, data in (("big", BIG), ("empty", b"")):
        with open(f"{directory}/{name}", "wb") as file:
            file.write(data)
    server = Server(("127.0.0.1", 0), Origin)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    origin = "127.0.0.1:{}".format(server.server_address[1])
    inner_directory = f"{directory}/inner"
    os.mkdir(inner_directory)
    for name in ("ca.pem", "server.pem", "server.key"):
        os.link(f"{directory}/{name}", f"{inner_directory}/{name}")
    to_origin = f'[services.all]\nroutes = [{{ path = "/" }}]\n[services.all.versions.only]\nendpoints = ["{origin}"]\n'
    try:
        with stand.proxy(cases, inner_directory, to_origin) as inner:
            with stand.proxy(cases, directory, services(directory, origin, inner)) as proxy:
                everything(cases, directory, origin, proxy)
    finally:
        server.shutdown()


if __name__ == "__main__":
    stand.run(suite)
