"""What the suites stand on: the real proxy in a process of its own, certificates, and cases that are counted.

Everything is on free ports of the loopback, in a directory of its own, and gone when the suite ends.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

PATIENCE = 30
"""How long anything may take before it is a failure, in seconds: a guard, never a pause."""

CLEAR, SECURE = "127.0.0.1:0", "127.0.0.2:0"


def wait_until(what, is_so):
    """Waits for what nobody tells; the first true answer of `is_so`."""
    until = time.monotonic() + PATIENCE
    while not (answer := is_so()):
        if time.monotonic() > until:
            raise TimeoutError(f"it never came to this: {what}")
        time.sleep(0.005)
    return answer


class Admin(http.client.HTTPConnection):
    """A call to the admin socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Proxy:
    """switchback with one listener in clear text and one with TLS; `services` is TOML."""

    def __init__(self, directory, services):
        self.directory = directory
        self.log = open(f"{directory}/log", "w+")
        certificates(directory)
        with open(f"{directory}/switchback.toml", "w") as config:
            config.write(
                f'[admin]\nsocket = "{directory}/admin.sock"\n[state]\ndir = "{directory}/state"\n'
                f'[[listeners]]\nlisten = "{CLEAR}"\n[[listeners]]\nlisten = "{SECURE}"\n'
                f'tls = {{ certificates = [{{ cert = "{directory}/server.pem", key = "{directory}/server.key" }}] }}\n'
                + services
            )
        command = [os.environ["SWITCHBACK"], "run", "--workers", "2", "--config", f"{directory}/switchback.toml"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        bound = wait_until("the proxy is ready", self._bound)
        self.clear, self.secure = bound[CLEAR], bound[SECURE]

    def _bound(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the proxy did not start:\n{self.text()}")
        try:
            listeners = self.call("GET", "/v1/status")["listeners"]
        except OSError:
            return None
        return {listener["listen"]: listener["bound"] for listener in listeners}

    def call(self, method, path, body=None):
        """A call to the admin socket; its JSON."""
        return json.loads(self._call(method, path, body))

    def _call(self, method, path, body=None):
        admin = Admin(f"{self.directory}/admin.sock")
        admin.request(method, path, json.dumps(body) if body is not None else None, {"content-type": "application/json"})
        answer = admin.getresponse()
        text = answer.read().decode()
        admin.close()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text}")
        return text

    def flip(self, service, to):
        return self.call("POST", f"/v1/services/{service}/flip", {"to": to})

    def metric(self, name, **labels):
        """The sum of all samples of `name` with these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = self._call("GET", "/metrics").splitlines()
        lines = [line for line in lines if re.match(rf"{name}[{{ ]", line) and all(label in line for label in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def text(self):
        """What it has logged."""
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def stop(self):
        """Ends it as an operator does; says what should not have been."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(PATIENCE + 15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "killed: it did not end by itself"
        text = self.text()
        self.log.close()
        loud = [line for line in text.splitlines() if "panicked" in line or re.search(r"\bERROR\b", line)]
        return ([f"it ended with {status}"] if status != 0 else []) + loud


def certificates(directory):
    """An authority, and a certificate of it for every name that the suites use: ca.pem, server.pem, server.key."""
    if os.path.exists(f"{directory}/server.pem"):
        return
    names = "DNS:localhost,DNS:*.suite.test,IP:127.0.0.1,IP:127.0.0.2"
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    for arguments in (
        [*new, "-x509", "-days", "2", "-subj", "/CN=suites", "-keyout", "ca.key", "-out", "ca.pem"],
        [*new, "-subj", "/CN=server", "-addext", f"subjectAltName={names}", "-keyout", "server.key", "-out", "server.csr"],
        ["x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
         "-copy_extensions", "copy", "-out", "server.pem"],
    ):  # fmt: skip
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


class Cases:
    """Counts what holds and what does not."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, name, holds, why=""):
        """One fact."""
        if holds:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {name}: {why}", flush=True)

    def same(self, name, seen, expected):
        """What was seen is what was expected."""
        self.check(name, seen == expected, f"{shown(seen)}, not {shown(expected)}")

    @contextlib.contextmanager
    def case(self, name):
        """Whatever is raised inside is this case's failure."""
        try:
            yield
        except Exception:
            self.check(name, False, traceback.format_exc())

    def close(self):
        """The closing line; ends the suite."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.stdout.flush()
        sys.exit(1 if self.failed else 0)


def shown(value, most=600):
    text = repr(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def run(suite, services=None):
    """Runs `suite(cases, directory)` in a directory that is gone afterwards."""
    cases = Cases()
    with tempfile.TemporaryDirectory(prefix="switchback-suite-") as directory:
        certificates(directory)
        with cases.case("the suite goes through"):
            suite(cases, directory)
    cases.close()


@contextlib.contextmanager
def proxy(cases, directory, services):
    """A proxy that must end cleanly."""
    running = Proxy(directory, services)
    try:
        yield running
    finally:
        cases.same("the proxy ends by itself, and nothing went wrong in it", running.stop(), [])
