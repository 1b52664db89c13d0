//! One request's line: what its head says is written at once, the rest when it is over.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use crate::proxy::head::{Answer, Parts};
use http::header::HOST;
use http::{HeaderValue, Method, Version};
use smallvec::SmallVec;

use super::{Journal, Options, json};
use crate::metrics::Reason;
use crate::proxy::body::Source;
use crate::proxy::clock;
use crate::proxy::connection::Client;
use crate::proxy::identity::Marks;
use crate::proxy::upstream::{Endpoint, Local};
use crate::table::{AssignedBy, Epoch, ServiceName};

/// Most bytes of a path that are written.
const MOST_PATH: usize = 8 * 1024;
/// Most bytes of a header, a host or a method that are written.
const MOST_FIELD: usize = 1024;

/// What is known of one request; written out when it is dropped. Whoever still has something to tell holds it.
#[derive(Debug)]
pub struct Record {
    journal: Rc<Journal>,
    options: Rc<Options>,
    is_sampled: bool,
    /// The line so far.
    line: RefCell<Vec<u8>>,
    is_head: bool,
    since: Instant,
    service: RefCell<Option<ServiceName>>,
    epoch: Cell<Option<Epoch>>,
    /// The version it was assigned to.
    local: RefCell<Option<Rc<Local>>>,
    assigned_by: Cell<Option<AssignedBy>>,
    /// Which version had failed it before, if another one has answered.
    shielded: RefCell<Option<Shielded>>,
    attempts: RefCell<SmallVec<[Attempt; 1]>>,
    /// Which of them counts.
    counts: Cell<usize>,
    first_byte: Cell<Option<u64>>,
    /// What went out; 499 while nothing has.
    status: Cell<u16>,
    outcome: Cell<Outcome>,
    request_bytes: Cell<u64>,
    response_bytes: Cell<u64>,
}

/// What is told of the attempt that counts.
#[derive(Debug)]
struct Attempt {
    endpoint: Rc<Endpoint>,
    /// After how many microseconds there was a connection, and whether it had been there before.
    connected: Option<(u64, bool)>,
}

/// What is told of the version that had failed it.
#[derive(Debug)]
struct Shielded {
    local: Option<Rc<Local>>,
    endpoint: Option<Rc<Endpoint>>,
    epoch: Option<Epoch>,
    /// What became of it there: as `outcome` and `status` would have told it.
    outcome: &'static str,
    status: u16,
}

/// How a request ended.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    /// A version's answer, whole.
    Whole,
    /// An answer of a route's own, or of a listener's.
    Own(&'static str),
    /// The proxy's answer, or one that broke off.
    Failed(Reason),
}

impl Record {
    /// The record of the request `head`.
    pub(super) fn of_request(
        journal: Rc<Journal>,
        options: Rc<Options>,
        client: &Client,
        head: &Parts,
        marks: Option<&Marks>,
        is_sampled: bool,
    ) -> Self {
        let who = client.arrival.peer.client_text(&head.headers);
        let mut record = Self::begun(journal, options, who.as_deref(), is_sampled);
        record.is_head = head.method == Method::HEAD;
        let mut line = record.line.take();
        write_head(&mut line, client.arrival.scheme(), head, &record.options, marks);
        record.line.replace(line);
        record
    }

    /// The record of a client whose request has no head.
    pub(super) fn of_nothing(
        journal: Rc<Journal>,
        options: Rc<Options>,
        client: &Client,
        is_sampled: bool,
    ) -> Self {
        Self::begun(journal, options, client.arrival.peer.text.as_deref(), is_sampled)
    }

    fn begun(journal: Rc<Journal>, options: Rc<Options>, client: Option<&str>, is_sampled: bool) -> Self {
        let mut line = journal.buffer();
        line.push(b'{');
        json::key(&mut line, "time");
        json::moment(&mut line, clock::micros_since_1970());
        json::key(&mut line, "client");
        json::maybe(&mut line, client.map(str::as_bytes), MOST_FIELD);
        Self {
            journal,
            options,
            is_sampled,
            line: RefCell::new(line),
            is_head: false,
            since: clock::now(),
            service: RefCell::default(),
            epoch: Cell::default(),
            local: RefCell::default(),
            assigned_by: Cell::default(),
            shielded: RefCell::default(),
            attempts: RefCell::default(),
            counts: Cell::default(),
            first_byte: Cell::default(),
            status: Cell::new(Reason::ClientGone.status()),
            outcome: Cell::new(Outcome::Failed(Reason::ClientGone)),
            request_bytes: Cell::default(),
            response_bytes: Cell::default(),
        }
    }

    /// It was refused for this reason, without a head.
    pub(super) fn refused(self, reason: Reason) {
        let mut line = self.line.take();
        for key in ["method", "scheme", "host", "path", "protocol", "request_id"] {
            json::key(&mut line, key);
            json::maybe(&mut line, None, 0);
        }
        self.line.replace(line);
        self.status.set(reason.status());
        self.ended(Some(reason));
    }

    /// It leads to this service, by the table of this epoch.
    pub fn routed(&self, service: &ServiceName, epoch: Epoch) {
        self.service.replace(Some(service.clone()));
        self.epoch.set(Some(epoch));
    }

    /// It was assigned to a version.
    pub fn assigned(&self, local: &Rc<Local>, by: AssignedBy) {
        self.local.replace(Some(Rc::clone(local)));
        self.assigned_by.set(Some(by));
    }

    /// The version it was assigned to has failed it, with this outcome and status; that of `local` answers, under this epoch.
    pub fn stands_in(&self, local: &Rc<Local>, epoch: Epoch, (outcome, status): (&'static str, u16)) {
        let attempts = self.attempts.borrow();
        let endpoint = attempts.get(self.counts.get()).map(|attempt| Rc::clone(&attempt.endpoint));
        let local = self.local.replace(Some(Rc::clone(local)));
        let epoch = self.epoch.replace(Some(epoch));
        self.shielded.replace(Some(Shielded { local, endpoint, epoch, outcome, status }));
    }

    /// It is tried with this endpoint.
    pub fn attempt(&self, endpoint: &Rc<Endpoint>) {
        let mut attempts = self.attempts.borrow_mut();
        self.counts.set(attempts.len());
        attempts.push(Attempt { endpoint: Rc::clone(endpoint), connected: None });
    }

    /// Of the endpoints that were tried, this is the one that counts.
    pub fn goes_on_with(&self, endpoint: &Rc<Endpoint>) {
        self.latest(endpoint).inspect(|latest| self.counts.set(*latest));
    }

    /// There is a connection to this endpoint, a kept one or a new one.
    pub fn connected(&self, endpoint: &Rc<Endpoint>, is_reused: bool) {
        if let Some(latest) = self.latest(endpoint) {
            self.attempts.borrow_mut()[latest].connected = Some((self.micros(), is_reused));
        }
    }

    /// The latest attempt with this endpoint: of those beside one another each has its own.
    fn latest(&self, endpoint: &Rc<Endpoint>) -> Option<usize> {
        let attempts = self.attempts.borrow();
        attempts.iter().rposition(|attempt| Rc::ptr_eq(&attempt.endpoint, endpoint))
    }

    /// The head of the version's answer is here.
    pub fn first_byte(&self) {
        self.first_byte.set(Some(self.micros()));
    }

    /// The head of an answer goes out, and with it a body that is whole already.
    pub fn answered(&self, answer: &Answer) {
        self.status.set(answer.status.as_u16());
        let is_gone = matches!(self.outcome.get(), Outcome::Failed(Reason::ClientGone));
        // Who has gone gets nothing of it.
        if let Source::Full(bytes) = &answer.source
            && !self.is_head
            && !is_gone
        {
            self.sent(bytes.len());
        }
    }

    /// The proxy answers by itself: `redirect` or `fixed`, as a route or a listener says, `held`, `drained` or `max_forwards`.
    pub fn answered_by_itself(&self, kind: &'static str) {
        self.outcome.set(Outcome::Own(kind));
    }

    /// So many bytes of the request's body have come, in all.
    pub fn received(&self, total: u64) {
        self.request_bytes.set(total);
    }

    /// So many more bytes of what goes to the endpoint were handed on.
    pub fn received_more(&self, more: usize) {
        self.request_bytes.set(self.request_bytes.get() + more as u64);
    }

    /// So many more bytes of the answer's body were handed on.
    pub fn sent(&self, more: usize) {
        self.response_bytes.set(self.response_bytes.get() + more as u64);
    }

    /// It is over: well, or for this reason.
    pub fn ended(&self, reason: Option<Reason>) {
        self.outcome.set(reason.map_or(Outcome::Whole, Outcome::Failed));
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// True for what is written whatever the sample: a failure of ours or of the version's, also one that another version has covered
    /// for, or a client that left. Not what a client alone did wrong: anybody could fill the log with it.
    fn is_error(&self) -> bool {
        let gone = Reason::ClientGone.status();
        if self.shielded.borrow().as_ref().is_some_and(|shielded| shielded.status >= gone) {
            return true;
        }
        match self.outcome.get() {
            Outcome::Failed(reason) => reason.status() >= gone,
            Outcome::Whole | Outcome::Own(_) => self.status.get() >= gone,
        }
    }

    fn write_rest(&self, line: &mut Vec<u8>) {
        let local = self.local.borrow();
        let service = self.service.borrow();
        let attempts = self.attempts.borrow();
        let counts = attempts.get(self.counts.get());
        let endpoint = counts.map(|attempt| attempt.endpoint.address.to_string());
        let (connected, is_reused) = counts.and_then(|attempt| attempt.connected).unzip();
        let reused = is_reused.map(|is_reused| if is_reused { "true" } else { "false" });
        let outcome = match self.outcome.get() {
            Outcome::Whole => "ok",
            Outcome::Own(token) => token,
            Outcome::Failed(reason) => reason.token(),
        };
        let texts = [
            ("service", service.as_ref().map(ServiceName::as_str)),
            ("version", local.as_ref().map(|local| local.upstream().version.as_str())),
            ("endpoint", endpoint.as_deref()),
            ("assigned", self.assigned_by.get().map(AssignedBy::token)),
            ("outcome", Some(outcome)),
        ];
        for (key, text) in texts {
            json::key(line, key);
            json::maybe(line, text.map(str::as_bytes), MOST_FIELD);
        }
        let numbers = [
            ("epoch", self.epoch.get().map(|epoch| epoch.0)),
            ("status", Some(u64::from(self.status.get()))),
            ("duration_us", Some(self.micros())),
            ("connect_us", connected),
            ("first_byte_us", self.first_byte.get()),
            ("request_bytes", Some(self.request_bytes.get())),
            ("response_bytes", Some(self.response_bytes.get())),
            ("attempts", Some(attempts.len() as u64)),
        ];
        for (key, value) in numbers {
            json::key(line, key);
            json::number(line, value);
        }
        json::key(line, "reused");
        line.extend_from_slice(reused.unwrap_or("null").as_bytes());
        if let Some(AssignedBy::Rule(number)) = self.assigned_by.get() {
            json::key(line, "rule");
            json::number(line, Some(u64::from(number)));
        }
        if let Some(shielded) = &*self.shielded.borrow() {
            shielded.write(line);
        }
        line.extend_from_slice(b"}\n");
    }
}

impl Shielded {
    /// `"shielded":{"version":"green","endpoint":"127.0.0.1:9101","outcome":"connect_failed","epoch":7,"status":503}`.
    fn write(&self, line: &mut Vec<u8>) {
        json::key(line, "shielded");
        line.push(b'{');
        let endpoint = self.endpoint.as_ref().map(|endpoint| endpoint.address.to_string());
        let texts = [
            ("version", self.local.as_ref().map(|local| local.upstream().version.as_str())),
            ("endpoint", endpoint.as_deref()),
            ("outcome", Some(self.outcome)),
        ];
        for (key, text) in texts {
            json::key(line, key);
            json::maybe(line, text.map(str::as_bytes), MOST_FIELD);
        }
        for (key, number) in
            [("epoch", self.epoch.map(|epoch| epoch.0)), ("status", Some(u64::from(self.status)))]
        {
            json::key(line, key);
            json::number(line, number);
        }
        line.push(b'}');
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let mut line = self.line.take();
        if self.is_sampled || (self.options.errors && self.is_error()) {
            self.write_rest(&mut line);
            self.journal.add(&self.options, line);
        } else {
            line.clear();
            self.journal.keep(line);
        }
    }
}

/// Appends what the head says.
fn write_head(line: &mut Vec<u8>, scheme: &str, head: &Parts, options: &Options, marks: Option<&Marks>) {
    let (uri, headers) = (&head.uri, &head.headers);
    let id = marks.and_then(|marks| marks.id.as_ref());
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = authority.or_else(|| headers.get(HOST).map(HeaderValue::as_bytes));
    let target = match uri.path_and_query() {
        Some(target) if options.query => target.as_str(),
        _ => uri.path(),
    };
    let texts = [
        ("method", Some(head.method.as_str().as_bytes()), MOST_FIELD),
        ("scheme", Some(scheme.as_bytes()), MOST_FIELD),
        ("host", host, MOST_FIELD),
        ("path", Some(target.as_bytes()), MOST_PATH),
        ("protocol", Some(protocol(head.version).as_bytes()), MOST_FIELD),
        ("request_id", id.map(HeaderValue::as_bytes), MOST_FIELD),
    ];
    for (key, text, most) in texts {
        json::key(line, key);
        json::maybe(line, text, most);
    }
    if options.headers.is_empty() {
        return;
    }
    json::key(line, "headers");
    line.push(b'{');
    for name in &options.headers {
        // The first of several: a line has an end.
        if let Some(value) = marks.map_or_else(|| headers.get(name), |marks| marks.field(headers, name)) {
            json::key(line, name.as_str());
            json::text(line, value.as_bytes(), MOST_FIELD);
        }
    }
    line.push(b'}');
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}
