"""Operators that know nothing of each other, and who listens to what happens."""

import asyncio
import itertools
import json
import time
import urllib.parse

import chaos_wire as wire

BROKEN = (OSError, EOFError)
ANSWERED = {"released", "returned", "timed_out", "unfenced", "reverted", "superseded"}
"""Problems of changes that are made."""


class Operators:
    """Several of them at a time."""

    def __init__(self, record, random, admin, pools, spares):
        self.record, self.random, self.admin = record, random, admin
        self.pools, self.spares = pools, spares
        self.keys = itertools.count()
        self.sessions = itertools.count()

    def acts(self):
        """What operators do, and how often."""
        return [
            (8, self.flip), (5, self.exclusive), (3, self.revert), (6, self.weights), (2, self.undo), (3, self.hold),
            (3, self.version), (4, self.endpoint), (3, self.batch), (3, self.stale), (2, self.rollout),
            (1, self.nonsense), (6, self.drained),
        ]  # fmt: skip

    async def run(self, until):
        """One act after the other."""
        weights, acts = zip(*self.acts(), strict=True)
        while time.monotonic() < until:
            await asyncio.sleep(self.random.uniform(0.0, 0.12))
            (act,) = self.random.choices(acts, weights)
            await act(self.random.choice(list(self.pools)))

    # Calls.

    async def call(self, order, method, target, body=None, fields=(), **query):
        """Asks for a change; when nobody answers, or just so, once more with the same key."""
        random = self.random
        if random.random() < 0.12:
            query["dry_run"] = "true"
        target = f"/v1/{target}?" + urllib.parse.urlencode({"reason": order.reason, **query})
        keyed = random.random() < 0.5
        if keyed:
            fields = [*fields, ("idempotency-key", f"key{next(self.keys)}")]
        answer = await self.once(order, method, target, body, fields)
        if keyed and (answer is None or random.random() < 0.4):
            await self.again(order, answer, method, target, body, fields)
        return answer

    async def once(self, order, method, target, body, fields):
        """One call; `None` when it was not answered, as a process was killed or has ended meanwhile."""
        before = self.record.now()
        self.record.figures["calls"] += 1
        try:
            answer = await wire.call(self.admin, method, target, body, fields)
        except TimeoutError as why:
            return self.record.violated(f"{method} {target} {body}: {why!r}")
        except BROKEN as why:
            if self.record.was_killed(before) or self.record.was_closing(before):
                return None
            return self.record.violated(f"{method} {target} {body} broke off: {why!r}")
        self.judge(order, answer, f"{method} {target} {body}")
        return answer

    async def again(self, order, first, method, target, body, fields):
        """The same call with the same key: the same answer, or the first one that comes; another call: none."""
        if order.fate == "none":
            # What was refused is no answer that is kept.
            order.fate = "unknown"
        for _ in range(100):
            answer = await self.once(order, method, target, body, fields)
            if answer is not None and answer.status != 503:
                break
            await asyncio.sleep(0.05)
        if first is None or answer is None or first.status != 200 or first.json()["dry_run"]:
            return
        replayed = answer.fields.get("idempotent-replayed") == "true"
        if answer.status == 200 and not (replayed and self.is_same(target, first.json(), answer.json())):
            self.record.violated(f"{target} {fields}: {first.body} and then {answer.body}")
        if answer.status not in (200, 503):
            self.record.violated(f"{target} {fields}: {first.body} and then {answer.status} {answer.body}")
        self.record.figures["replays"] += 1
        other = await self.once(self.record.order("another call with a key"), method, target + "&x", {"to": "v1"}, fields)
        if other and other.status not in (400, 422, 503):
            self.record.violated(f"a key was taken twice: {target} {other.status} {other.body}")

    def is_same(self, target, first, second):
        """True for the same answer; one that has waited tells how everything stands after that."""
        told = ["epoch", "changed", "dry_run", "notes"] if "wait=" in target else list(first | second)
        return all(first.get(member) == second.get(member) for member in told)

    def judge(self, order, answer, asked):
        """What an answer says of its order."""
        record, body = self.record, answer.json()
        record.figures[f"status {answer.status}"] += 1
        change = body if answer.status == 200 else body.get("change")
        if answer.status == 200 and body["dry_run"]:
            change = None
        if answer.status == 504 and body["type"].endswith("unfenced"):
            return
        if answer.status >= 500 and answer.status not in (503, 504):
            record.violated(f"{asked}: {answer.status} {answer.body}")
        if change and change["changed"]:
            if order.fate == "none":
                record.violated(f"{order} was refused before: {asked} {body}")
            record.made(order, change)
            self.settled(order, change)
        elif order.fate == "unknown":
            order.fate = "none"

    def settled(self, order, change):
        """`wait=drained`: nothing is left on those without weight."""
        if change["state"] != "drained":
            return
        for service, standing in change["services"].items():
            order.weights.pop(service, None)
            for version in self.pools[service]:
                if version not in standing["weights"] and version not in standing["leaving"]:
                    self.record.said_safe((service, version), standing["epoch"], f"the answer to {order.reason}")

    async def read(self, target):
        """What the API tells; `None` when it does not."""
        try:
            answer = await wire.call(self.admin, "GET", target)
        except BROKEN:
            return None
        return answer.json() | {"etag": answer.fields.get("etag")} if answer.status == 200 else None

    # Acts.

    def any_version(self, service):
        return self.random.choice(list(self.pools[service]))

    def wait(self):
        return {"wait": "drained", "timeout": "2s"} if self.random.random() < 0.3 else {}

    async def flip(self, service):
        version = self.any_version(service)
        order = self.record.order(f"flip {service} {version}", targets={service: version})
        await self.call(order, "POST", f"services/{service}/flip", {"to": version}, **self.wait())

    async def exclusive(self, service):
        version, scope = self.any_version(service), self.random.choice(["all", "all", "writes"])
        what = f"flip {service} {version} exclusive {scope}"
        order = self.record.order(what, targets={service: version}, exclusive=(service, version, scope))
        body = {"to": version, "exclusive": True if scope == "all" else scope}
        body["streams"] = self.random.choice(["refuse", "close", "close"])
        body["hold_timeout"] = self.random.choice(["50ms", "2s", "2s"])
        await self.call(order, "POST", f"services/{service}/flip", body)

    async def revert(self, service):
        await self.call(self.record.order(f"revert {service}"), "POST", f"services/{service}/revert")

    async def weights(self, service):
        some = self.random.sample(list(self.pools[service]), 2)
        part = self.random.choice([1, 500, 2500, 5000])
        order = self.record.order(f"weights {service} {some} {part}")
        await self.call(order, "PUT", f"services/{service}/weights", {some[0]: part, some[1]: 10_000 - part}, **self.wait())

    async def undo(self, _):
        to = self.random.randrange(1, self.record.acknowledged + 2)
        await self.call(self.record.order(f"undo {to}"), "POST", "undo", {"to_epoch": to})

    async def hold(self, service):
        scope = self.random.choice(["all", "writes"])
        order = self.record.order(f"hold {service} {scope}")
        body = {"scope": scope, "timeout": self.random.choice(["100ms", "1s"])}
        await self.call(order, "POST", f"services/{service}/hold", body)
        await asyncio.sleep(self.random.uniform(0, 0.3))
        await self.call(self.record.order(f"release {service}"), "POST", f"services/{service}/release")

    async def version(self, service):
        """The version that is in no file comes or goes."""
        if "x1" not in self.pools[service]:
            return
        protocol, addresses = self.pools[service]["x1"]
        target = f"services/{service}/versions/x1"
        if self.random.random() < 0.6:
            body = {"endpoints": addresses, "protocol": protocol}
            await self.call(self.record.order(f"versions add {service}/x1"), "PUT", target, body)
        else:
            await self.call(self.record.order(f"versions rm {service}/x1"), "DELETE", target)

    async def endpoint(self, service):
        """An endpoint is drained, goes, or comes."""
        version = self.any_version(service)
        address = self.random.choice([*self.pools[service][version][1], self.spares[service, version]])
        target = f"services/{service}/versions/{version}/endpoints/{urllib.parse.quote(address, safe='')}"
        how = self.random.choice(["drain", "PUT", "PUT", "DELETE"])
        order = self.record.order(f"endpoint {how} {service}/{version} {address}")
        if how == "drain":
            await self.call(order, "POST", f"{target}/drain", **self.wait())
        else:
            await self.call(order, how, target)
        told = await self.read(f"/v1/{target}/drain")
        if told and told["drained"]:
            self.record.said_safe(address, int(told["etag"].strip('"')), "the endpoint's drain")

    async def batch(self, _):
        """Several services as one change."""
        services = self.random.sample(list(self.pools), 2)
        targets = {service: self.any_version(service) for service in services}
        order = self.record.order(f"batch {targets}", targets=targets)
        edits = [{"service": service, "flip": {"to": version}} for service, version in targets.items()]
        await self.call(order, "POST", "changes", {"changes": edits})

    async def stale(self, service):
        """On the understanding of an epoch, that is right or long past."""
        present = await self.read(f"/v1/services/{service}")
        if not present:
            return
        version, is_old = self.any_version(service), self.random.random() < 0.6
        epoch = present["epoch"] - 1 if is_old else present["epoch"]
        order = self.record.order(f"flip {service} {version} at {epoch}", targets={service: version})
        body, fields = {"to": version}, [("if-match", f'"{epoch}"')]
        answer = await self.call(order, "POST", f"services/{service}/flip", body, fields)
        if answer and is_old and answer.status not in (412, 404, 503):
            self.record.violated(f"{order} was not refused: {answer.status} {answer.body}")
        if answer and answer.status == 412 and answer.json()["present"]["epoch"] == epoch:
            self.record.violated(f"{order} was refused without need: {answer.body}")

    async def rollout(self, service):
        """One endpoint of a version gives way to another."""
        present = await self.read(f"/v1/services/{service}")
        versions = {version["name"]: version for version in present["versions"]} if present else {}
        name = self.any_version(service)
        if name not in versions:
            return
        there = [endpoint["address"] for endpoint in versions[name]["endpoints"]]
        comes = [address for address in [*self.pools[service][name][1], self.spares[service, name]] if address not in there]
        if not comes or not there:
            return
        order = self.record.order(f"rollout {service}/{name}")
        order.fate = "many"
        body = {"from": name, "replace": [{"out": there[0], "into": comes[0]}], "reason": order.reason}
        body |= {"surge": self.random.random() < 0.5, "drain_timeout": "2s", "ready_timeout": "2s"}
        target = f"/v1/services/{service}/rollout"
        try:
            answer = await wire.call(self.admin, "POST", target, body)
            self.record.figures[f"status {answer.status}"] += 1
            await asyncio.sleep(self.random.uniform(0, 0.5))
            if self.random.random() < 0.3:
                await wire.call(self.admin, "DELETE", target)
        except BROKEN:
            pass

    async def nonsense(self, service):
        """What cannot be done changes nothing."""
        order = self.record.order("nonsense")
        method, target, body = self.random.choice([
            ("POST", f"services/{service}/flip", {"to": "nobody"}),
            ("PUT", f"services/{service}/weights", {"v1": 5000, "v2": 4999}),
            ("PUT", f"services/{service}/weights", {"v1": 10_001}),
            ("DELETE", f"services/{service}/versions/@stable", None),
            ("POST", "services/nobody/flip", {"to": "v1"}),
            ("POST", "undo", {"to_epoch": 10**9}),
            ("POST", "changes", {"changes": [
                {"service": service, "flip": {"to": "v1"}}, {"service": service, "weights": {"v2": 9999}}]}),
        ])  # fmt: skip
        answer = await self.call(order, method, target, body)
        if answer and answer.status < 400:
            self.record.violated(f"{method} {target} {body}: {answer.status} {answer.body}")

    async def drained(self, service):
        """What may be stopped?"""
        version = self.any_version(service)
        told = await self.read(f"/v1/services/{service}/versions/{version}/drain")
        if told and told["drained"]:
            self.record.said_safe((service, version), int(told["etag"].strip('"')), "the drain")

    # Listening.

    async def listen(self):
        """Writes down what is told, again and again from anew."""
        while True:
            session = next(self.sessions)
            try:
                await self.follow(session)
            except BROKEN:
                pass
            await asyncio.sleep(0.005)

    async def follow(self, session):
        newest = None
        async for event in wire.events(self.admin):
            kind = event["type"]
            if kind == "hello":
                newest = event["epoch"]
            elif kind == "changed":
                epoch = event["change"]["epoch"]
                if epoch > newest + 1:
                    self.record.violated(f"a listener heard {newest}, and then {epoch}")
                newest = max(newest, epoch)
                self.record.told.append((session, event["change"]))
            elif kind == "drained":
                self.record.said_safe((event["service"], event["version"]), newest, "an event")
            elif kind == "rollout" and (event.get("now") or {}).get("state") == "safe":
                self.record.said_safe(event["now"]["out"], newest, "a rollout")
            elif kind == "lagged":
                self.record.violated(f"a listener that keeps up was told: {json.dumps(event)}")
            self.record.figures[f"event {kind}"] += 1
