"""A browser through the proxy: see `tests/suites/browser`."""

import base64
import hashlib
import http.server
import json
import logging
import subprocess
import tempfile
import threading
import time

from websockets.sync.server import serve

import stand

logging.getLogger("websockets").addHandler(logging.NullHandler())
logging.getLogger("websockets").propagate = False

OLD = "127.0.0.3:0"
"""The listener that knows HTTP/1.1 only."""

HOSTS = {"h2": "web.suite.test", "http/1.1": "old.suite.test"}

# What the page does; `talk` and its like throw what goes wrong. Its last word is a report.
PAGE = """<!doctype html><meta charset=utf-8><title>page</title><script type=module>
const told = async (what, body) => (await fetch('/' + what, {method: 'POST', body})).text();
const pause = ms => new Promise(done => setTimeout(done, ms));

// One request after the other, in both directions, until nobody wants more.
const fetched = {versions: [], failed: [], count: 0};
let isOver = false;
const fetching = (async () => {
  const body = 'x'.repeat(100000);
  while (!isOver) {
    try {
      const answer = await fetch('/echo', {method: 'POST', body});
      if (await answer.text() !== body) throw new Error('another body');
      const version = answer.headers.get('x-version');
      if (fetched.versions.at(-1) !== version) fetched.versions.push(version);
      fetched.count += 1;
    } catch (error) { fetched.failed.push(String(error)); }
  }
})();

// Ends now and then, and goes on where it was.
const heard = {numbers: [], versions: [], opened: 0};
const events = new EventSource('/events');
events.onopen = () => heard.opened += 1;
events.onmessage = event => {
  const {number, version} = JSON.parse(event.data);
  heard.numbers.push(number);
  if (heard.versions.at(-1) !== version) heard.versions.push(version);
};
const until = async (what, is) => {
  for (let turn = 0; !is(); turn += 1) {
    if (turn > 1500) throw new Error('it never came to this: ' + what);
    await pause(10);
  }
};

const socket = async () => {
  const socket = new WebSocket('wss://' + location.host + '/ws/', ['v1']);
  const waiting = [], came = [];
  socket.onmessage = ({data}) => waiting.length ? waiting.shift().done(data) : came.push(data);
  const closed = new Promise(done => socket.onclose = ({code, wasClean}) => {
    waiting.forEach(({fail}) => fail(new Error('closed with ' + code)));
    done([code, wasClean]);
  });
  const next = () => came.length ? came.shift() : new Promise((done, fail) => waiting.push({done, fail}));
  const version = await next();
  return {
    version,
    say: async text => { socket.send(text); return await next() === text; },
    close: () => { socket.close(1000, 'enough'); return closed; },
  };
};

const report = {};
try {
  const first = await socket();
  report.first = first.version;
  report.before = await first.say('before');
  await until('events come', () => heard.numbers.length > 3);
  await until('requests are answered', () => fetched.count > 3);
  report.protocol = performance.getEntriesByName(location.origin + '/echo').at(-1).nextHopProtocol;
  // Answered once the flip is done.
  await told('ready', '');
  report.after = await first.say('after') && await first.say('y'.repeat(1000000));
  const second = await socket();
  report.second = second.version;
  report.said = await second.say('hello');
  const [opened, count] = [heard.opened, fetched.count];
  await until('events go on with the other version', () => heard.versions.length > 1);
  await until('requests go on', () => fetched.count > count + 3);
  report.closed = [await first.close(), await second.close()];
} catch (error) { report.error = String(error); }
isOver = true;
await fetching;
events.close();
await told('report', JSON.stringify({...report, fetched, heard}));
</script>"""


class Stage:
    """What the page and the suite tell each other, over whichever version."""

    def __init__(self):
        self.is_ready, self.is_flipped, self.is_over = (threading.Event() for _ in range(3))
        self.report = None


class Origin(http.server.BaseHTTPRequestHandler):
    """Serves the page and what it asks for."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, data, kind="text/plain"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("x-version", self.server.version)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        if self.path == "/page":
            return self.answer(PAGE.encode(), "text/html; charset=utf-8")
        if self.path != "/events":
            return self.answer(b"")
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("cache-control", "no-store")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        first = int(self.headers.get("last-event-id", 0)) + 1
        for number in range(first, first + 10):
            event = json.dumps({"number": number, "version": self.server.version})
            self.chunk(f"retry: 20\nid: {number}\ndata: {event}\n\n".encode())
            time.sleep(0.02)
        self.chunk(b"")

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        stage = self.server.stage
        if self.path == "/echo":
            return self.answer(body)
        if self.path == "/ready":
            stage.is_ready.set()
            stage.is_flipped.wait(stand.PATIENCE)
        if self.path == "/report":
            stage.report = json.loads(body)
        self.answer(b"ok")
        if self.path == "/report":
            stage.is_over.set()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, version):
        super().__init__(("127.0.0.1", 0), Origin)
        self.version, self.stage = version, None
        self.address = "127.0.0.1:{}".format(self.server_address[1])
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_):
        """A client that leaves is no error."""


class Sockets:
    """Tells each client its version, and says back what is said."""

    def __init__(self, version):
        def talk(connection):
            connection.send(version)
            for message in connection:
                connection.send(message)

        self.server = serve(talk, "127.0.0.1", 0, max_size=8 << 20, ping_interval=None, subprotocols=["v1"])
        self.address = "127.0.0.1:{}".format(self.server.socket.getsockname()[1])
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def fingerprint(directory):
    """What the browser is told to trust: the hash of the certificate's public key."""
    key = subprocess.run(["openssl", "x509", "-in", f"{directory}/server.pem", "-pubkey", "-noout"], check=True, capture_output=True).stdout
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=key, check=True, capture_output=True).stdout
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def browse(directory, host, address, stage):
    """The page in a browser of its own until it has reported; True when it has."""
    with tempfile.TemporaryDirectory(prefix="switchback-browser-", ignore_cleanup_errors=True) as profile:
        command = [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
            f"--user-data-dir={profile}", f"--ignore-certificate-errors-spki-list={fingerprint(directory)}",
            f"--host-resolver-rules=MAP {host} {address}", f"https://{host}/page",
        ]  # fmt: skip
        with open(f"{directory}/browser.log", "a") as log:
            browser = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            return stage.is_over.wait(3 * stand.PATIENCE)
        finally:
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()


def visit(cases, directory, proxy, servers, protocol, before, after):
    """One browser, during whose visit all of it goes from one version to the other."""
    stage = Stage()
    for server in servers:
        server.stage = stage
    host = HOSTS[protocol]

    def flip():
        if stage.is_ready.wait(2 * stand.PATIENCE):
            for service in ("web", "ws"):
                proxy.flip(service, after)
            stage.is_flipped.set()

    flipping = threading.Thread(target=flip, daemon=True)
    flipping.start()
    address = proxy.secure if protocol == "h2" else proxy.old
    is_over = browse(directory, host, address, stage)
    cases.check(f"the page reports, {protocol}", is_over, open(f"{directory}/browser.log").read()[-2000:])
    flipping.join(1)
    if is_over:
        judge(lambda what, seen, expected: cases.same(f"{what}, {protocol}", seen, expected), stage.report, protocol, before, after)


def judge(same, report, protocol, before, after):
    fetched, heard = report["fetched"], report["heard"]
    same("nothing is thrown", report.get("error"), None)
    same("the protocol that is spoken", report.get("protocol"), protocol)
    same("no request fails", fetched["failed"], [])
    same("requests go to one version and then to the other", fetched["versions"], [before, after])
    same("no event is lost or comes twice", heard["numbers"], list(range(1, len(heard["numbers"]) + 1)))
    same("a stream of events that ends goes on with the other version", heard["versions"], [before, after])
    same("it has reconnected", heard["opened"] > 1, True)
    same("a WebSocket stays with its version", (report.get("first"), report.get("before"), report.get("after")), (before, True, True))
    same("a new one goes to the other version", (report.get("second"), report.get("said")), (after, True))
    same("both close cleanly", report.get("closed"), [[1000, True], [1000, True]])


def sockets_asked(log):
    """How WebSockets were asked for, as the access log has it."""
    lines = [json.loads(line) for line in open(log)]
    return [(line["method"], line["protocol"]) for line in lines if line["path"] == "/ws/"]


def suite(cases, directory):
    web = {version: Server(version) for version in ("blue", "green")}
    sockets = {version: Sockets(version) for version in web}
    routes = lambda path: ", ".join(f'{{ host = "{host}", path = "{path}" }}' for host in HOSTS.values())
    services = (
        f'[[listeners]]\nlisten = "{OLD}"\ntls = {{ alpn = ["http/1.1"], certificates = [{{ cert = "server.pem", key = "server.key" }}] }}\n'
        f'[access_log]\ntarget = "file"\npath = "{directory}/access.log"\n'
        f'[services.web]\nroutes = [{routes("/")}]\nstable = "blue"\n[services.ws]\nroutes = [{routes("/ws/")}]\nstable = "blue"\n'
    )
    for service, origins in (("web", web), ("ws", sockets)):
        for version, origin in origins.items():
            services += f'[services.{service}.versions.{version}]\nendpoints = ["{origin.address}"]\n'
    with stand.proxy(cases, directory, services) as proxy:
        listeners = proxy.call("GET", "/v1/status")["listeners"]
        proxy.old = next(listener["bound"] for listener in listeners if listener["listen"] == OLD)
        visit(cases, directory, proxy, web.values(), "h2", "blue", "green")
        visit(cases, directory, proxy, web.values(), "http/1.1", "green", "blue")
    asked = sockets_asked(f"{directory}/access.log")
    cases.same("WebSockets over HTTP/2, and over HTTP/1.1", asked, [("CONNECT", "HTTP/2")] * 2 + [("GET", "HTTP/1.1")] * 2)


if __name__ == "__main__":
    stand.run(suite)
