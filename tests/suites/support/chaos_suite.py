"""The switch under chaos: see `tests/suites/chaos`."""

import asyncio
import logging
import os
import random
import re
import shutil
import sys
import tempfile
import time

import chaos_wire as wire
from chaos_clients import Clients
from chaos_files import Files
from chaos_judge import Judge
from chaos_operators import Operators
from chaos_origins import Origin
from chaos_process import Gremlin, Proxy
from chaos_record import Record, Violation

logging.getLogger("asyncio").setLevel(logging.CRITICAL)

SECONDS = float(os.environ.get("SECONDS_EACH", "12"))
SEED = int(os.environ.get("SEED", "1"))
WORKERS = int(os.environ.get("WORKERS", "2"))
PROGRAM = os.environ["SWITCHBACK"]
OPERATORS = 3
CALM = 0.25
"""The part of the time at the end in which nothing befalls the processes, so that the last one knows all counts."""
LEAST_CALM = 1.5
"""How long that is at least, in seconds, once it has started."""

SERVICES = {
    "shop": {"v1": "http1", "v2": "http1", "v3": "http1", "x1": "http1"},
    "cart": {"v1": "http1", "v2": "unix", "x1": "http1"},
    "api": {"v1": "http1", "v2": "h2c"},
    "team": {"v1": "http1", "v2": "http1", "v3": "http1"},
    "live": {"v1": "http1", "v2": "http1"},
}
"""Services with their versions and what these speak; `x1` is in no file."""


class World:
    """Everything that runs."""

    def __init__(self, directory):
        self.directory = directory
        self.record = Record()
        self.random = random.Random(SEED)

    def chance(self):
        """Chance for one of those who act: what others do does not change it."""
        return random.Random(self.random.getrandbits(64))

    async def build(self):
        self.proxy = Proxy(self.record, self.directory, PROGRAM, WORKERS)
        self.pools, self.spares, self.origins = {}, {}, []
        for service, versions in SERVICES.items():
            self.pools[service] = {}
            for version, kind in versions.items():
                await self.endpoints(service, version, kind)
        self.files = Files(self.record, self.chance(), self.directory, self.proxy.port, self.pools)
        self.operators = Operators(self.record, self.chance(), self.proxy.admin, self.pools, self.spares)
        self.clients = Clients(self.record, self.chance(), self.proxy.port)
        self.gremlin = Gremlin(self.record, self.chance(), self.proxy, self.files)

    async def endpoints(self, service, version, kind):
        """Two endpoints of a version and one to spare."""
        protocol, directory = ("http1", self.directory) if kind == "unix" else (kind, None)
        made = [Origin(self.record, service, version, number, protocol, directory) for number in range(3)]
        addresses = [(await origin.start()).address for origin in made]
        self.origins += made
        self.pools[service][version] = (protocol, addresses[:2])
        self.spares[service, version] = addresses[2]

    async def run(self):
        """Chaos, a calmer end, and the judgement."""
        self.proxy.start()
        await self.proxy.ready()
        now = time.monotonic()
        end, calm = now + SECONDS, now + SECONDS * (1 - CALM)
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(self.operators.listen()) for _ in range(2)]
            over = asyncio.Event()
            clients = group.create_task(self.clients_until(over))
            acts = [group.create_task(self.operators.run(end - 1)) for _ in range(OPERATORS)]
            acts.append(group.create_task(self.files.run(end - 1)))
            await self.gremlin.run(calm)
            async with self.files.whole:
                await self.gremlin.restart()
            await asyncio.sleep(max(LEAST_CALM, end - time.monotonic()))
            over.set()
            await asyncio.gather(clients, *acts)
            await self.judge()
            for task in listening:
                task.cancel()
        await self.proxy.stop()
        if complaints := self.proxy.complaints():
            self.record.violated("it has complained:\n" + "\n".join(complaints[:20]))

    async def clients_until(self, over):
        self.clients.start({service: service == "live" for service in SERVICES})
        waiting = asyncio.create_task(over.wait())
        try:
            # One that ends before its time has failed.
            await asyncio.wait([waiting, *self.clients.tasks], return_when=asyncio.FIRST_COMPLETED)
            await self.clients.stop()
        finally:
            for task in [waiting, *self.clients.tasks]:
                task.cancel()

    async def judge(self):
        record = self.record
        await asyncio.sleep(0.3)
        Judge(record, await self.history()).judge()
        if record.life not in record.mixed:
            Judge(record, []).counts(await self.metrics(), record.life)
            record.figures["counted"] = sum(n for (life, *_), n in record.counted.items() if life == record.life)

    async def history(self):
        """All changes, the oldest first."""
        changes, target = [], "/v1/changes?limit=1000"
        while target:
            page = (await wire.call(self.proxy.admin, "GET", target)).json()
            changes += page["changes"]
            before = page.get("next_before")
            target = before and f"/v1/changes?limit=1000&before={before}"
        return changes[::-1]

    async def metrics(self):
        """Samples by name."""
        text = (await wire.call(self.proxy.admin, "GET", "/metrics")).body.decode()
        found = {}
        for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
            found.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
        return found


def reason(error):
    """The violation that is inside of a group of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def main():
    with tempfile.TemporaryDirectory(prefix="switchback-chaos-") as directory:
        world = World(directory)
        begun = time.monotonic()

        async def live():
            await world.build()
            try:
                await world.run()
            finally:
                world.proxy.close()

        failed = None
        try:
            asyncio.run(live())
        except BaseException as error:
            failed = reason(error)
            if not isinstance(failed, Violation):
                raise
        figures = ", ".join(f"{name} {count}" for name, count in sorted(world.record.figures.items()))
        print(f"seed {SEED}, workers {WORKERS}, {time.monotonic() - begun:.1f} s: epochs {world.record.acknowledged}, {figures}")
        if failed:
            print("what happened last:", *world.record.lately, sep="\n  ")
            print(f"VIOLATED after {time.monotonic() - world.record.begun:.4f} s, seed {SEED}: {failed}")
            if keep := os.environ.get("KEEP"):
                shutil.move(directory, keep)
                os.mkdir(directory)
            sys.exit(1)


if __name__ == "__main__":
    main()
