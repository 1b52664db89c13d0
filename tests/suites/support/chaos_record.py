"""The history that the chaos suite writes: what clients, origins, operators and listeners have seen, and what is ruled out.

All of it happens in one thread, so that there is one order. What can be judged at once is; the rest is in `chaos_judge`.
"""

import collections
import dataclasses
import time


class Violation(Exception):
    """Something that must never be."""


@dataclasses.dataclass
class Ticket:
    """A request that begins: what was true then."""

    service: str
    name: str
    floor: int
    """The newest epoch that was acknowledged before."""
    born: "Moment"
    """When its connection began."""
    is_reused: bool
    began: float
    stage: str = "asked"
    """How far it has come."""


@dataclasses.dataclass
class Moment:
    """How often the proxy was killed, and told to end, before."""

    kills: int
    closings: int
    """Odd while it is told to."""


@dataclasses.dataclass(eq=False)
class Work:
    """A request at an origin."""

    service: str
    version: str
    epoch: int
    writes: bool
    lasting: bool
    address: str
    under_way: set
    """All such requests."""
    began: float = dataclasses.field(default_factory=time.monotonic)
    ended: float | None = None

    def __post_init__(self):
        self.under_way.add(self)

    def __str__(self):
        kind = "stream" if self.lasting else "request"
        return f"a {kind} of {self.service}/{self.version} at {self.address} under epoch {self.epoch}"

    def end(self):
        if self.ended is None:
            self.ended = time.monotonic()
            self.under_way.discard(self)


@dataclasses.dataclass
class Order:
    """A change that an operator asks for, under a reason that nobody else gives."""

    reason: str
    what: str
    targets: dict[str, str] = dataclasses.field(default_factory=dict)
    """Services that are to go to a version wholly."""
    exclusive: tuple[str, str, str] | None = None
    """Service, version and scope."""
    fate: str = "unknown"
    """made, none, unknown, or many: a rollout."""
    epoch: int = 0
    weights: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)


class Record:
    """Everything that happened."""

    def __init__(self):
        self.acknowledged = 0
        self.moment = Moment(0, 0)
        self.life = 0
        """Which process answers: one more with each that does not know the counts of the one before."""
        self.mixed = set()
        """The lives in which one process took the place of another: nobody has all of their counts."""
        self.served = collections.Counter()
        """(service, version, epoch) as clients have seen it."""
        self.counted = collections.Counter()
        """(life, service, version, code)."""
        self.work = collections.defaultdict(list)
        self.under_way = set()
        self.came = collections.Counter()
        """How often a name has come to origins."""
        self.writes = set()
        self.withdrawn = {}
        """Names that their clients were told were not served, and how."""
        self.safe = {}
        """The epoch at which a version or an endpoint was said to be empty."""
        self.orders = []
        self.told = []
        """Changes in the order in which they were told, as (session, change)."""
        self.figures = collections.Counter()
        self.lately = collections.deque(maxlen=30)
        """What happened last, in words."""
        self.begun = time.monotonic()

    def happened(self, what):
        self.lately.append(f"{time.monotonic() - self.begun:9.4f} {what}")

    def violated(self, what):
        raise Violation(what)

    # Clients.

    def ticket(self, service, name, born, is_reused):
        return Ticket(service, name, self.acknowledged, born, is_reused, time.monotonic())

    def now(self):
        return dataclasses.replace(self.moment)

    def was_killed(self, since):
        return self.moment.kills > since.kills

    def was_closing(self, since):
        return self.moment.closings > since.closings or self.is_closing()

    def is_closing(self):
        return self.moment.closings % 2 == 1

    def answered(self, ticket, status, fields):
        """A whole head has come for `ticket`."""
        about = f"{ticket.service} {ticket.name}: {status} {fields}"
        if status not in (200, 101):
            self.violated(f"a request failed after {time.monotonic() - ticket.began:.3f} s: {about}")
        epoch, seen = int(fields["switchback-epoch"]), int(fields["x-seen"])
        service, version, _ = fields["x-origin"].split("/", 2)
        if epoch < ticket.floor:
            self.violated(f"admitted under epoch {epoch} after {ticket.floor} was acknowledged: {about}")
        if epoch != seen:
            self.violated(f"the client is told epoch {epoch}, the origin {seen}: {about}")
        if service != ticket.service or fields["x-id"] != ticket.name:
            self.violated(f"somebody else's answer: {about}")
        self.served[service, version, epoch] += 1
        return version

    def complete(self, ticket, version, status):
        """All of its body has come, and was right."""
        self.counted[self.life, ticket.service, version, str(status)] += 1
        self.figures["requests"] += 1

    def broke_off(self, ticket, why, has_begun, is_withdrawn=False):
        """No whole answer; true when that may be.

        A kill may break off what was on its connections. Who ends in order may close a connection on which a request is on
        its way, but then it has not taken it up.
        """
        if self.was_killed(ticket.born) and not isinstance(why, TimeoutError):
            self.figures["lost"] += 1
            return
        if not has_begun and (is_withdrawn or ticket.is_reused) and self.was_closing(ticket.born):
            self.withdrawn[ticket.name] = repr(why)
            self.figures["asked again"] += 1
            return
        after = time.monotonic() - ticket.began
        self.violated(f"a request broke off after {after:.3f} s, and nothing was killed: {ticket} {why!r}")

    # Origins.

    def arrived(self, origin, name, epoch, writes, lasting=False):
        """A request has come to an origin."""
        self.came[name] += 1
        if writes:
            self.writes.add(name)
        for what in ((origin.service, origin.version), origin.address):
            if epoch <= self.safe.get(what, (0, ""))[0]:
                self.violated(f"{origin} got {name} under epoch {epoch}: {self.safe[what]} had said that nothing comes")
        work = Work(origin.service, origin.version, epoch, writes, lasting, origin.address, self.under_way)
        self.work[origin.service].append(work)
        return work

    def said_safe(self, what, epoch, who):
        """It was said of a version or an endpoint that nothing is left on it, at `epoch`, and nothing will come."""
        self.figures["drains"] += 1
        # Of a stream the origin may hear last that it is over.
        for work in (work for work in self.under_way if not work.lasting):
            if what in ((work.service, work.version), work.address) and work.epoch <= epoch:
                self.violated(f"{who} says at epoch {epoch} that nothing is left on {what}: {work}")
        if epoch > self.safe.get(what, (0, ""))[0]:
            self.safe[what] = (epoch, f"{who} at {epoch}")

    # Operators.

    def order(self, what, **more):
        order = Order(f"op{len(self.orders)}", what, **more)
        self.orders.append(order)
        return order

    def made(self, order, answer):
        """A change was acknowledged."""
        if order.fate == "made" and order.epoch != answer["epoch"]:
            self.violated(f"{order} was made twice: {answer}")
        order.fate, order.epoch = "made", answer["epoch"]
        order.weights = {name: standing["weights"] for name, standing in answer["services"].items()}
        self.acknowledged = max(self.acknowledged, order.epoch)
        self.happened(f"{order.reason} {order.what}: epoch {order.epoch}")

    def killed(self):
        self.moment.kills += 1
        self.life += 1

    def closing(self):
        self.moment.closings += 1
