"""The configuration: what exists at first, and what the files say later, sometimes nonsense."""

import asyncio
import os
import time

HEAD = """
[admin]
socket = "{directory}/admin.sock"
[state]
dir = "{directory}/state"
[proxy]
epoch_header = true
[shutdown]
spread = "300ms"
deadline = "10s"
[upgrade]
spread = "300ms"
deadline = "10s"
[[listeners]]
listen = "127.0.0.1:{port}"
"""
SERVICE = """
[services.{name}]
routes = [{{ host = "{name}.chaos.test" }}]
stable = "v1"
request_headers = {{ set = {{ x-epoch = "%{{epoch}}" }} }}
drain = {{ patience = "0s", spread = "{spread}ms", deadline = "20s" }}
hold = {{ requests = 10_000, timeout = "3s" }}
"""
VERSION = """
[services.{name}.versions.{version}]
endpoints = [{endpoints}]
protocol = "{protocol}"
"""
BROKEN = ('[services.team]\nstable = "v9"\n', "[services.team\n", "weights = { v1 = 99 }\n", "\0")


class Files:
    """The configuration's files. `pools`: by service and version its protocol and its endpoints' addresses."""

    def __init__(self, record, random, directory, port, pools):
        self.record, self.random, self.directory, self.pools = record, random, directory, pools
        self.whole = asyncio.Lock()
        """Held while the files are broken, and while a process is made to read them."""
        os.mkdir(f"{directory}/conf.d")
        main = HEAD.format(directory=directory, port=port)
        self.put("switchback.toml", main + "".join(self.service(name) for name in pools if name != "team"))
        self.put("conf.d/team.toml", self.service("team"))

    def service(self, name, spread=200, without=("x1",)):
        """A service in TOML, without versions that only operators bring."""
        text = SERVICE.format(name=name, spread=spread)
        for version, (protocol, addresses) in self.pools[name].items():
            if version not in without:
                endpoints = ", ".join(f'"{address}"' for address in addresses)
                text += VERSION.format(name=name, version=version, endpoints=endpoints, protocol=protocol)
        return text

    def put(self, name, text):
        with open(f"{self.directory}/{name}.new", "w") as file:
            file.write(text)
        os.rename(f"{self.directory}/{name}.new", f"{self.directory}/{name}")

    async def run(self, until):
        """The team's file changes: another spread, without a version, or nonsense for a while."""
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(0.3, 1.2))
            if self.random.random() < 0.3:
                async with self.whole:
                    self.put("conf.d/team.toml", self.random.choice(BROKEN))
                    await asyncio.sleep(self.random.uniform(0, 0.4))
                    self.put("conf.d/team.toml", self.service("team"))
            without = self.random.choice([("x1",), ("x1", "v3")])
            self.put("conf.d/team.toml", self.service("team", self.random.randrange(100, 300), without))
            self.record.figures["files"] += 1
