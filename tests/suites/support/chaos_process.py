"""The proxy as a service manager runs it: its sockets are bound here and outlive it, and its processes are ended together."""

import asyncio
import ctypes
import itertools
import os
import re
import signal
import socket
import subprocess
import time

import chaos_wire as wire

SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: who takes a process's place is ours when that has ended."""
WINDING_DOWN = 20
"""How long a process may take to end, in seconds."""
SETTLING = 0.03
"""After a kill: what was on its way is read before anybody starts anew."""


class Proxy:
    """Its sockets, its files, its processes."""

    def __init__(self, record, directory, program, workers):
        self.record, self.directory, self.program, self.workers = record, directory, program, workers
        self.admin = f"{directory}/admin.sock"
        self.clients = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.clients.getsockname()[1]
        self.calls = socket.socket(socket.AF_UNIX)
        self.calls.bind(self.admin)
        # As a unit with SocketMode=0600 has it.
        os.chmod(self.admin, 0o600)
        self.calls.listen(1024)
        self.pids = []
        self.told = set()
        self.starts = itertools.count()
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)

    def start(self):
        """A new process, of which nobody knows yet whether it is ready."""
        command = [self.program, "run", "--workers", str(self.workers), "--config", f"{self.directory}/switchback.toml"]
        places = [(self.clients.fileno(), 3), (self.calls.fileno(), 4)]
        script = 'exec 3<&%d 4<&%d; LISTEN_PID=$$ exec "$@"' % tuple(fd for fd, _ in places)
        with open(f"{self.directory}/log.{next(self.starts)}", "w") as log:
            process = subprocess.Popen(
                ["bash", "-c", script, "bash", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[fd for fd, _ in places],
                env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "clients:admin", "RUST_LOG": "warn"},
            )
        # It is waited for by its id, as those are that take its place.
        process.returncode = 0
        self.pids.append(process.pid)
        self.record.happened(f"{process.pid} is started")

    async def ready(self):
        """Waits until the newest process answers."""
        until = time.monotonic() + WINDING_DOWN
        while time.monotonic() < until:
            try:
                status = (await wire.call(self.admin, "GET", "/v1/status")).json()
                if status["ready"] and status["pid"] == self.pids[-1]:
                    return
            except (OSError, EOFError):
                pass
            self.reap()
            if not self.pids:
                break
            await asyncio.sleep(0.01)
        self.record.violated(f"it did not start:\n{self.text()[-3000:]}")

    def reap(self):
        """Forgets the processes that have ended."""
        self.pids = [pid for pid in self.pids if not has_ended(pid)]

    async def kill(self):
        """All of its processes, at once, as a service manager does when the main one has died."""
        self.record.killed()
        self.record.happened(f"killed: {descendants()}")
        while there := descendants():
            for pid in there:
                os.kill(pid, signal.SIGKILL)
                has_ended(pid)
            await asyncio.sleep(0.001)
        self.pids = []
        self.told.clear()
        self.record.killed()
        await asyncio.sleep(SETTLING)

    def tell_to_end(self, pids):
        """Tells these processes to end, each once: a second signal would cut what they have."""
        for pid in set(pids) - self.told:
            os.kill(pid, signal.SIGTERM)
        self.told.update(pids)

    async def stop(self):
        """Tells all of its processes to end, and waits for that."""
        self.record.closing()
        self.record.happened(f"told to end: {self.pids}")
        self.tell_to_end(self.pids)
        until = time.monotonic() + WINDING_DOWN
        while self.pids:
            if time.monotonic() > until:
                self.record.violated(f"{self.pids} did not end:\n{self.text()[-3000:]}")
            await asyncio.sleep(0.005)
            self.reap()
        self.record.closing()
        self.record.life += 1
        self.record.happened("all have ended")

    async def upgrade(self):
        """Another process takes its place; true when it did."""
        self.record.closing()
        self.record.mixed.add(self.record.life)
        try:
            answer = await wire.call(self.admin, "POST", "/v1/upgrade")
        finally:
            self.record.closing()
        self.record.happened(f"upgrade: {answer.status} {answer.body}")
        if answer.status == 200:
            self.pids.append(answer.json()["pid"])
        elif answer.status not in (409, 422, 503):
            self.record.violated(f"an upgrade: {answer.status} {answer.body}")
        return answer.status == 200

    def text(self):
        """What all of its processes have logged."""
        text = ""
        for number in range(64 * 1024):
            if not os.path.exists(f"{self.directory}/log.{number}"):
                break
            with open(f"{self.directory}/log.{number}", errors="replace") as log:
                text += log.read()
        return text

    def complaints(self):
        """What it should not have had to say."""
        lines = self.text().splitlines()
        return [line for line in lines if "panicked" in line or re.search(r"\bERROR\b(?!.*configuration)", line)]

    def close(self):
        for pid in descendants():
            os.kill(pid, signal.SIGKILL)
        self.clients.close()
        self.calls.close()


class Gremlin:
    """What befalls the processes."""

    def __init__(self, record, random, proxy, files):
        self.record, self.random, self.proxy, self.files = record, random, proxy, files

    async def run(self, until):
        """One mishap after the other."""
        mishaps = [self.crash, self.crash, self.crash_loop, self.restart, self.upgrade, self.upgrade]
        mishaps += [self.hurry, self.upgrade_and_crash]
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(0.4, 2.0))
            mishap = self.random.choice(mishaps)
            async with self.files.whole:
                await mishap()
            self.record.figures[mishap.__name__] += 1

    async def crash(self):
        await self.proxy.kill()
        self.proxy.start()
        await self.proxy.ready()

    async def crash_loop(self):
        """Killed again and again while it starts."""
        for _ in range(self.random.randrange(2, 6)):
            await self.proxy.kill()
            self.proxy.start()
            await asyncio.sleep(self.random.uniform(0, 0.25))
        await self.proxy.ready()

    async def restart(self):
        await self.proxy.ready()
        await self.proxy.stop()
        self.proxy.start()
        await self.proxy.ready()

    async def upgrade(self):
        await self.proxy.ready()
        try:
            await self.proxy.upgrade()
        except (OSError, EOFError) as why:
            self.record.violated(f"an upgrade was not answered: {why!r}")

    async def hurry(self):
        """After an upgrade the older processes are told to end."""
        await self.upgrade()
        self.proxy.reap()
        self.record.closing()
        self.record.happened(f"told to hurry: {self.proxy.pids[:-1]}")
        self.proxy.tell_to_end(self.proxy.pids[:-1])
        await asyncio.sleep(self.random.uniform(0, 0.3))
        self.record.closing()

    async def upgrade_and_crash(self):
        """Killed at any instant of an upgrade."""
        await self.proxy.ready()
        upgrade = asyncio.create_task(self.proxy.upgrade())
        await asyncio.sleep(self.random.uniform(0, 0.6))
        await self.proxy.kill()
        await asyncio.gather(upgrade, return_exceptions=True)
        self.proxy.pids = []
        self.proxy.start()
        await self.proxy.ready()


def has_ended(pid):
    """True for a process that is no more; one of ours is laid to rest."""
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return not os.path.exists(f"/proc/{pid}")


def descendants():
    """All processes that come from this one: nothing but the proxy's."""
    found, looked = [os.getpid()], 0
    while looked < len(found):
        found += children(found[looked])
        looked += 1
    return found[1:]


def children(parent):
    found = []
    try:
        for thread in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{thread}/children") as listed:
                found += [int(child) for child in listed.read().split()]
    except OSError:
        pass
    return found
