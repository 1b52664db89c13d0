//! switchback: a layer-7 reverse proxy made for the moment when traffic moves from one version of a service to another.
//!
//! It stands in front of the services as their load balancer, and the deployment controller works it like a switch.
//! This page tells how it is built; the modules below stand in the order a newcomer should read them.
//!
//! # Two questions, kept apart
//!
//! *Where* does a request go? [`table`]: routes, services, versions, splits, as one immutable value with a number, its
//! epoch. *When* does that change? [`release`]: one function, [`release::step`], from a state and an event to the next
//! state and what has to be done about it. Both are pure: no clock, no randomness, no I/O, no atomics; time and coins come
//! in as arguments. All of the deployment logic can be read, tested and replayed there. So can the statistics that tell
//! whether a candidate is worse than what it replaces: [`release::verdict`], from counts alone.
//!
//! # One request
//!
//! [`proxy`] is the data plane: one thread a core, each with its own runtime, accept sockets, upstream connections and
//! counters. A connection that comes goes to the worker with clearly [less to do](proxy::posts), if there is one, and stays
//! there. A connection to a listener with [TLS](proxy::tls) does its handshake in its own task, bounded in time and
//! number. [`proxy::serve`] is a request from top to bottom: its [connection](proxy::connection) has taken its head off
//! the wire with our own [codec](proxy::http1), which refuses what can be read in two ways (HTTP/2 is h2's), and
//! its [fields](proxy::fields) stay the lines that came, for most only pass; the [gate](proxy::gate) takes out what its client may not say, and
//! makes it unambiguous or refuses it; the newest [snapshot](proxy::live) says which service it is for, and whether that is [held](proxy::hold); the first [rule](table::targeting) that fits says which version, else the release that a trusted hop has [pinned](table::pin), else [whose](proxy::sticky) it is where [users stay](table::sticky), else its coin; the [permit](proxy::permit) counts it in
//! there, unless a newer epoch was published in between, and then it chooses again; the version's pool says to [which
//! endpoint](proxy::upstream::balance) it goes; an [exchange](proxy::forward) carries head and body both ways as streams,
//! polled in place, or a [tunnel](proxy::tunnel) after a change of protocol; large bodies of a known length stay in the
//! kernel, in [pipes](proxy::pipe), unless TLS or HTTP/2 needs their bytes; where one fails before its answer, and the
//! request may run twice or was not sent, another endpoint of the version is tried while the
//! [budget](proxy::upstream::budget) lasts; where all have failed and the service is shielded, the request is admitted once more, to stable, and what it had met stays the first version's; the permit ends with the last byte and records the outcome. What routes and versions change about requests and answers,
//! and the line in the access log, go along in its [story](proxy::story), which is empty for most. On this path nothing
//! is written that another worker writes, no lock is taken, no task is spawned. What is shared by its nature is the exception, and
//! only those pay who need it: a connection that is opened is counted among the [descriptors](proxy::descriptors) of all, a
//! service that the operator limits shares its [count](proxy::quota) and a version with a circuit its [room](proxy::upstream::room),
//! who waits stands in the [line](proxy::hold::Line) of a service that is held, and failures are told to the [judges](proxy::ledger) at once.
//!
//! # One flip
//!
//! `switchback flip shop --to green` → [`cli`] → admin socket, or TCP → [`admin`] → the one task of [`control`], which owns the
//! state. It steps; refused events change nothing. Then, always in this order: **persist** (the [`store`] syncs the
//! change to disk, or nothing has happened), **publish** (every worker takes the new snapshot with its next request),
//! **close** (the version that was left begins to drain), **report** (answer, event, metric). Why the acknowledgement
//! can be believed: a request counts itself in and *then* looks at the published epoch; control publishes the epoch and
//! *then* reads the counts ([`proxy::admission`], model-checked with loom in `tests/loom_admission.rs`).
//!
//! Whoever works the switch from another machine comes over TCP, and says with each request who it is: by a token, or by the certificate of its
//! connection ([`admin::access`]). What a call needs stands with its route, and is compared with the [scopes](release::scope) of
//! the caller before its handler runs; what turns out only when a change is decided (whose services an undo would touch) control looks at itself.
//!
//! # Leaving a version
//!
//! Control [lists](proxy::upstream::leaving) which versions are being left, and since when; the list is a state that every
//! worker follows, so that a version that comes back is simply not on it any more. A worker's usher tells what lasts there
//! to go, one after the other, evenly over the time that the service gives. Nothing is ended from there: an exchange ends
//! itself, between two [events or messages](proxy::farewell), a tunnel between two [frames](proxy::websocket).
//!
//! # Who is well
//!
//! A task beside control [looks](control::health) at the endpoints of every version that is checked, over connections of its own, and
//! writes what it finds to their [vitals](proxy::upstream::Vitals), which the workers read when they choose. What follows the table
//! follows it before it is published: an endpoint that comes gets nothing before it was found well. The other way round, a
//! worker that sees an endpoint [fail](proxy::upstream::suspicion) again and again tells control, which leaves it alone for a time;
//! a good answer writes nothing. Orders carry what is known, so that the [gate](release::gate) is a part of the step.
//!
//! # Who is worse
//!
//! A flip or new weights of a service that is supervised begin a [trial](release::trial): one version is compared with the one
//! before. The lanes of such a service have a [ledger](proxy::ledger), in which each worker counts, on a page of its own, what became
//! of a request's first attempt, by the weights that its coin was thrown under (what is in flight is model-checked with loom
//! in `tests/loom_flight.rs`). Where users stay with a version the coin is a user's: what he meets counts once in a while, and of few users
//! nothing follows. A task beside control, the [supervisor](control::supervisor),
//! takes what came, every ten milliseconds, and the pure [verdict](release::verdict) makes evidence of it. What it wants are ordinary
//! changes: lean back, come back, revert, each refused when the trial that it is about is over, and given again while the store
//! refuses it.
//!
//! # Targeting rules
//!
//! [Rules](table::targeting) are a part of the [split](table::Split), as weights are: so whoever remembers a split, goes back to one or leans away from one
//! has them with it, and a version is live when the split [leads](table::Split::leads_to) there, by weight or by a rule. What is about all of a service's
//! requests is a split without rules. Who is targeted throws no coin, and is not compared.
//!
//! # A release over several services
//!
//! Which version a request was assigned to may be [told](table::pin) to the services behind, by a member of `baggage`. At the door it is taken from whom the listener
//! trusts, and taken out of what all others send, before anybody else looks. It is a pin of labels, and where one leads is read in the table
//! that the request is admitted under: only to a version that its split leads to, and to none that is [avoided](table::Avoided). So nothing has to be
//! remembered of pins, and whatever is about a version is about those who are pinned to it.
//!
//! # A ramp
//!
//! A [ramp](release::ramp) is a part of what is remembered of a service: to whom, by which steps, which of them is reached, and what it takes
//! back as one. Each step is an ordinary change of weights, gated as any, and tried as any; [`control`] takes it when the one before has had
//! its time, by a clock that nobody sets, as whoever began the ramp. What is in its way is told, and it is tried again; a step names the one that
//! it goes on from, so that none is taken twice. Whoever else moves the traffic ends the ramp, and how is remembered: who waits for its
//! end, in this process or the next, reads that there.
//!
//! # A retirement
//!
//! A [retirement](release::retire) leaves the weights as they are for users who are [known](table::sticky), and closes one version to
//! who is new: his id is [drawn](proxy::sticky) until it is one that belongs elsewhere, by the same weights. So nobody is moved, and
//! nothing has to be remembered of anybody. The version has weight until [`control`], which looks whether anybody comes, or how late it is, gives what it has to the
//! others; only then can it drain.
//!
//! # A hold, and an exclusive flip
//!
//! A [held](table::hold) service's requests wait at a [gate](proxy::hold), bounded in number, size and time: one for each who holds
//! it, an operator or an exclusive step, and none ends another's. They stand in one line, in which
//! they go on when it opens, as the service's limits let them, and nobody overtakes them. That it is held stands in the
//! published table, with an epoch of its own, so the fence says from when on nothing passes. `flip --exclusive`
//! ([`control`]) is two changes: a hold of its own; then, when nothing is left on the other versions and the gate is sealed, flip and
//! release as one. The gate is in memory, and open is open for good: a hold ends by a bound or its time also when its end
//! cannot be published, and then everybody goes on where they were. Requests in flight are counted by class (what may
//! change something, what lasts), so that a flip waits for those alone that it is about, and reads pay nothing for it.
//!
//! # One process after the other
//!
//! `switchback upgrade` → [`admin`] → `cli::serve`, which starts the new program with every listening socket (by the protocol
//! of socket activation, [`proxy::inherited`]) and a line to talk on. When that one is prepared, control closes the
//! [store] and lends it (changes wait); the new process opens it, has table and epoch from there, is told what is not in there
//! (who gets no requests, [how much is left](control::Term) of what is over by time), accepts on
//! the same sockets, and says so; only then the old one stops accepting, without touching what the kernel has queued. A
//! process that fails gives the store back by ending. The old process may begin requests of connections that it has for some
//! seconds more, by its table; so the new one acknowledges no change before the old one says that it begins none any
//! more, and nobody takes over while requests stand in a line. From then on what is left there only becomes less, goes by the new one's
//! pools, and counts as [elders'](control::elders) in every drain, until that process has ended. Should the new one die before, the old one begins nothing more, and a lock in the state directory, which it took
//! before it lent the store, tells whoever is started next that it is there, and when it begins nothing more.
//!
//! # A mirror
//!
//! [Copies](proxy::mirror) of a service's requests go to one version as long as that has no traffic. A copy is no request: once the head of the user's answer is there it goes, in a task of its own and over a
//! connection of its own, and nobody waits for it. It is admitted by the same protocol, to a class of its own, so that the fence and `drained` hold for it, and counts in nothing else. Where it may come stands in the published table
//! ([`table::Service::mirroring`]); once its version has had traffic the mirror is [over](release::Deployment::mirror_over), which is remembered.
//!
//! # What always holds
//!
//! - An acknowledged change is on disk, and no request is admitted under an older epoch afterwards, on any worker.
//! - Every request is admitted under exactly one epoch and counts on exactly one version until its last byte; the shield admits one that its
//!   version has failed once more, by the same protocol.
//! - `drained` is said only when nothing is in flight on a version and nothing can arrive. Counts say *whether*; what is
//!   left, since when and with which endpoint is a worker's own knowledge ([`proxy::upstream::flights`]), and told when the
//!   workers are [asked](proxy::upstream::roll). It is about a version; what is stopped is a process behind an address, so
//!   who else [uses](control::Handle::uses) that is told beside it.
//! - The file says what exists, the store says where the traffic goes; a bad file, call or store leaves both as they were.
//! - In an exclusive flip two versions never serve at the same time, and nobody is refused because of a hold.
//! - Everything that waits or piles up has a bound with a name.
//!
//! # Who may know whom
//!
//! `release, metrics → table` · `proxy → table, metrics` · `store → table, release` · `config → table, release, metrics'
//! reasons` · `control → table, release, store, metrics`, and of the proxy what it publishes and judges · `admin → control`, and
//! what it has in hand · `webhooks → admin's wire types, control's notices, config's word for one, the proxy's way to a host` · `cli → admin's wire types,
//! config, table`; `cli::serve`, which starts the process, its metrics and the demo wire all.
//! `tests/tidy.rs` has the list to the last room, and enforces it.

// In reading order, a blank line between them so that it stays.

pub mod table;

pub mod release;

pub mod proxy;

pub mod control;

pub mod store;

pub mod admin;

pub mod webhooks;

pub mod metrics;

pub mod config;

pub mod cli;
