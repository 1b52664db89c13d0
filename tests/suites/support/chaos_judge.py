"""What is judged when all is over: the proxy's own history against what everybody has seen."""

import collections
import math
import re
import time


class Judge:
    """Reads the whole history once."""

    def __init__(self, record, changes):
        self.record, self.changes = record, changes
        self.by_epoch = {change["epoch"]: change for change in changes}
        self.standing = collections.defaultdict(list)
        for change in changes:
            for service, was in change["services"].items():
                self.standing[service].append((change["epoch"], was))

    def judge(self):
        self.epochs()
        self.orders()
        self.news()
        self.splits()
        self.withdrawn()
        self.exclusive()

    def violated(self, what):
        self.record.violated(what)

    def epochs(self):
        """Each number once, none left out."""
        numbers = [change["epoch"] for change in self.changes]
        if numbers != list(range(1, len(numbers) + 1)):
            self.violated(f"epochs are not one after the other: {numbers}")
        if self.record.acknowledged > len(numbers):
            self.violated(f"epoch {self.record.acknowledged} was acknowledged, the history ends at {len(numbers)}")

    def orders(self):
        """Each order is there as it was acknowledged, or not at all."""
        entries = collections.defaultdict(list)
        for change in self.changes:
            step = re.fullmatch(r"rollout, .* \((op\d+)\)", change["reason"])
            entries[step[1] if step else change["reason"]].append(change)
        for order in self.record.orders:
            there = entries.pop(order.reason, [])
            if order.exclusive:
                there = [change for change in there if change["kind"] != "hold"]
            self.order(order, there)
        for reason, strange in entries.items():
            by_itself = all(change["actor"]["kind"] in ("file", "supervisor") for change in strange)
            if not by_itself:
                self.violated(f"nobody asked for this: {reason!r} {strange}")

    def order(self, order, there):
        wanted = {"made": (1,), "none": (0,), "unknown": (0, 1), "many": range(100)}[order.fate]
        if len(there) not in wanted:
            self.violated(f"{order} is {len(there)} times in the history: {there}")
        if order.fate == "many" or not there:
            return
        (change,) = there
        if order.fate == "made" and change["epoch"] != order.epoch:
            self.violated(f"{order} is in the history as {change}")
        for service, weights in order.weights.items():
            # One of which nothing changed is told too, and is in no entry.
            was = self.weights(service, change["epoch"])
            if was != weights:
                self.violated(f"{order} is in the history as {change}, {service} as {was}")
        for service, version in order.targets.items():
            if self.weights(service, change["epoch"]) != {version: 10_000}:
                self.violated(f"{order} is there in part: {change}, {self.weights(service, change['epoch'])}")

    def weights(self, service, epoch):
        """The split of a service at an epoch."""
        newest = {}
        for at, was in self.standing[service]:
            if at > epoch:
                break
            newest = was
        return newest["weights"] if newest else {}

    def news(self):
        """Every change was told once and in order to everybody who listened."""
        last = {}
        for session, change in self.record.told:
            epoch = change["epoch"]
            before = last.get(session)
            if before is not None and epoch != before + 1:
                self.violated(f"after change {before} a listener was told {epoch}")
            if change != self.by_epoch.get(epoch):
                self.violated(f"told was {change}, in the history is {self.by_epoch.get(epoch)}")
            last[session] = epoch

    def splits(self):
        """Nobody was served by a version without weight, and the shares are the weights."""
        canaries = collections.defaultdict(collections.Counter)
        for (service, version, epoch), count in self.record.served.items():
            if epoch not in self.by_epoch:
                self.violated(f"{count} requests were admitted under epoch {epoch}, which the history does not have")
            weights = self.weights(service, epoch)
            if not weights.get(version):
                self.violated(f"{count} requests of {service} went to {version} at {epoch}: {weights}")
            canaries[service, tuple(sorted(weights.items()))][version] += count
        for (service, weights), got in canaries.items():
            self.shares(service, dict(weights), got)

    def shares(self, service, weights, got):
        total = sum(got.values())
        for version, weight in weights.items():
            share = weight / 10_000
            deviation = math.sqrt(total * share * (1 - share))
            if abs(got[version] - total * share) > 6 * deviation + 6:
                self.violated(f"{service} at {weights} was served as {dict(got)}")

    def withdrawn(self):
        """What a client may ask again was taken up by nobody, and what writes came once at most."""
        came = self.record.came
        for name, why in self.record.withdrawn.items():
            if came[name]:
                self.violated(f"{name} was served, but its client was told otherwise: {why}")
        for name in self.record.writes:
            if came[name] > 1:
                self.violated(f"{name} changes something and came {came[name]} times")

    def exclusive(self):
        """In an exclusive flip two versions never serve at the same time."""
        for order in self.record.orders:
            if order.exclusive and order.fate == "made":
                service, version, scope = order.exclusive
                holds = [c["epoch"] for c in self.changes if (c["reason"], c["kind"]) == (order.reason, "hold")]
                if holds:
                    self.apart(order, service, version, scope, holds[-1])
                    self.record.figures["exclusive"] += 1

    def apart(self, order, service, version, scope, held):
        waits = lambda work: not work.lasting and (work.writes or scope == "all")
        all_work = [work for work in self.record.work[service] if waits(work)]
        for work in all_work:
            if held <= work.epoch < order.epoch:
                self.violated(f"{work} was let through the hold {held} of {order}")
        old = [work for work in all_work if work.epoch < held and work.version != version]
        new = [work.began for work in all_work if work.epoch >= order.epoch and work.version == version]
        last = max(old, key=lambda work: work.ended or time.monotonic(), default=None)
        if last and new and (last.ended or time.monotonic()) > min(new):
            self.violated(f"{last} ended after the first of {order} began at {min(new)}")

    def counts(self, metrics, life):
        """The proxy counts what its clients count; nothing is in flight."""
        mine = collections.Counter()
        for (at, service, version, code), count in self.record.counted.items():
            if at == life:
                mine[service, version, code] += count
        for name in ("switchback_client_requests_total", "switchback_upstream_requests_total"):
            told = collections.Counter()
            for labels, value in metrics[name]:
                key = labels["service"], labels["version"], labels["code"]
                if value and key[0]:
                    told[key] += int(value)
            if told != mine:
                differ = {key: (told[key], mine[key]) for key in told | mine if told[key] != mine[key]}
                self.violated(f"{name}, and what clients have counted: {differ}")
        flying = [(labels, value) for labels, value in metrics["switchback_in_flight"] if value]
        if flying:
            self.violated(f"in flight when all is over: {flying}")
