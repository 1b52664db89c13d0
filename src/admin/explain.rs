//! `POST /v1/explain`: which version would get a request, and why, from the live table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::HOST;
use http::{Method, Uri};

use super::api::{
    Chance, Copied, Decided, Explain, Explained, Fate, NotCopied, Pinned, Problem, Reason, Route, Sticky,
};
use super::call::Call;
use super::caller::out_of_scope;
use super::openapi::ReadResponses;
use super::read::Nothing;
use super::status::{Status, Underscores};
use crate::table::mirror::MARK;
use crate::table::pin::{self, FIELD, Pinnable, Sorted};
use crate::table::sticky::cookie;
use crate::table::targeting::Aim;
use crate::table::upgrades::offered;
use crate::table::{
    AssignedBy, BasisPoints, OwnAnswer, Pin, RouteKey, Service, Shown, StickyBy, StickyKey, Table,
};

/// Where a request would go, and why.
#[utoipa::path(post, path = "/v1/explain", tag = "services", request_body = Explain,
    responses((status = 200, body = Explained, description = "where such a request goes, and why"), ReadResponses))]
pub(super) async fn explain(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let asked: Explain = call.json()?;
    let request = Request::read(asked, &call.app.status)?;
    let explained = explained(&call.app.control.state().table, &request);
    match &explained.service {
        Some(service) if !call.caller.scopes().read(service) => {
            // Which one it is is not told.
            let needed = ["read".to_owned()];
            Err(out_of_scope("it goes to a service that may not be looked at", &needed))
        }
        Some(_) | None => Ok(Json(explained).into_response()),
    }
}

/// A request as the router sees it.
struct Request {
    host: String,
    path: String,
    query: String,
    /// Names in lower case; one a line.
    headers: Vec<(String, String)>,
    /// The names of those that the proxy takes out before it looks.
    taken_out: Vec<String>,
    client: Option<IpAddr>,
    method: Method,
    /// What its `baggage` pins, whoever says so.
    pin: Option<Pin>,
    /// True when that is taken: the client is somebody whom a listener trusts.
    is_believed: bool,
}

impl RouteKey for Request {
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
    fn path(&self) -> &str {
        &self.path
    }
    fn has_header(&self, name: &str, value: &str) -> bool {
        self.headers.iter().any(|(other, found)| other == name && found == value)
    }
}

impl Shown for Request {
    fn header(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let fields = self.headers.iter().filter(move |(other, _)| other == name);
        fields.map(|(_, value)| value.trim_ascii().as_bytes())
    }
    fn query(&self) -> &[u8] {
        self.query.as_bytes()
    }
    fn client(&self) -> Option<IpAddr> {
        self.client
    }
    fn host(&self) -> &[u8] {
        self.host.as_bytes()
    }
}

impl Request {
    fn read(asked: Explain, status: &Status) -> Result<Self, Box<Problem>> {
        let bad = |field: &'static str, detail: String| Problem::new(400, "bad_value", detail).at(field);
        let uri: Uri = asked.uri.parse().map_err(|why| bad("uri", format!("`uri` is no URI: {why}")))?;
        if uri.path().is_empty() || !uri.path().starts_with('/') {
            return Err(bad("uri", "`uri` is http://host/path, or /path".to_owned()));
        }
        let method = Method::from_bytes(asked.method.as_deref().unwrap_or("GET").as_bytes());
        let method = method.map_err(|_| bad("method", "`method` is no HTTP method".to_owned()))?;
        let client = asked.client.map(|client| {
            let read = client.parse::<IpAddr>().map(|address| address.to_canonical());
            read.map_err(|_| bad("client", "`client` is an IP address".to_owned()))
        });
        let client = client.transpose()?;
        let rules = status.taken_out();
        let is_odd = |name: &str| name.contains('_');
        let is_subject = |name: &str| {
            let name = name.replace('_', "-");
            rules.subjects.iter().any(|subject| name.eq_ignore_ascii_case(subject.as_str()))
        };
        let reads =
            |name: &str| !is_subject(name) && (!is_odd(name) || rules.underscores != Underscores::Drop);
        let odd = asked.headers.keys().find(|name| is_odd(name));
        if let Some(name) = odd.filter(|_| rules.underscores == Underscores::Reject) {
            let detail = "the answer is 400: `underscores_in_headers` is \"reject\"".to_owned();
            return Err(Problem::new(400, "bad_value", detail).at(format!("headers.{name}")));
        }
        let (headers, taken_out): (BTreeMap<_, _>, BTreeMap<_, _>) =
            asked.headers.into_iter().partition(|(name, _)| reads(name));
        let lines = headers.into_iter().flat_map(|(name, lines)| {
            let name = name.to_ascii_lowercase();
            Vec::from(lines).into_iter().map(move |line| (name.clone(), line))
        });
        let mut headers: Vec<_> = lines.collect();
        let is_believed = client.is_some_and(|client| status.trusts(client));
        let pin = take_pin(&mut headers, is_believed);
        let header = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        let authority =
            uri.authority().map_or_else(|| header.unwrap_or_default(), |authority| authority.as_str());
        let (host, path) = (without_port(authority).to_owned(), uri.path().to_owned());
        let query = uri.query().unwrap_or_default().to_owned();
        let taken_out = taken_out.into_keys().collect();
        Ok(Self { host, path, query, headers, taken_out, client, pin, is_believed, method })
    }

    /// True when its method is one of a request that may run twice.
    fn may_repeat(&self) -> bool {
        // A WebSocket over HTTP/2 is shielded as the GET is that it would be over HTTP/1.1.
        self.method.is_idempotent() || self.method == Method::CONNECT
    }

    /// Whether such requests are copied, if the service has a mirror.
    fn copied(&self, service: &Service) -> Option<Copied> {
        let rules = service.mirror.as_ref()?;
        let has = |name: &str| self.header(name).next().is_some();
        let is_grpc = self.header("content-type").any(|content| {
            let name = &b"application/grpc"[..];
            content.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name))
        });
        // What of an `Upgrade` is not passed on is no change of protocol.
        let mut offered = self.header("upgrade").flat_map(|line| line.split(|byte| *byte == b','));
        let is_websocket = offered.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"websocket"));
        let unless = if service.mirror().is_none() {
            Some(NotCopied::Over)
        } else if service.mirroring().is_none() {
            Some(NotCopied::Held)
        } else if self.method == Method::CONNECT || is_websocket || !self.upgrades(service).is_empty() {
            Some(NotCopied::Upgrade)
        } else if !rules.methods.contains(&self.method) {
            Some(NotCopied::Method)
        } else if is_grpc {
            Some(NotCopied::Grpc)
        } else if has("expect") {
            Some(NotCopied::Expect)
        } else {
            // Of a stranger it is taken out.
            let may_say_so = self.is_believed || self.client.is_none();
            (may_say_so && has(MARK)).then_some(NotCopied::Marked)
        };
        let share = if unless.is_some() { 0 } else { rules.share.points() };
        Some(Copied { to: rules.to.to_string(), share, unless })
    }

    /// What of its `Upgrade` is passed on, over HTTP/1.1, where a version of the service takes any.
    fn upgrades(&self, service: &Service) -> Vec<String> {
        let is_there = |name: &[u8]| name.eq_ignore_ascii_case(b"upgrade");
        let connection = self.header("connection");
        let mut options = connection.flat_map(|line| line.split(|byte| *byte == b','));
        if !options.any(|option| is_there(option.trim_ascii()))
            || service.versions.iter().all(|version| service.upgrades(version).is_none())
        {
            return Vec::new();
        }
        let offered = offered(&service.upgrades, self.header("upgrade"));
        offered.into_iter().map(ToString::to_string).collect()
    }

    /// What its user is known by, where users of the service stay with a version.
    fn key(&self, service: &Service) -> Option<StickyKey> {
        let sticky = service.sticky.as_ref()?;
        match &sticky.rules.by {
            StickyBy::Cookie { name, .. } => sticky.key(cookie(self.header("cookie"), name)?),
            StickyBy::Header(name) if HOST == **name => sticky.key_of_host(self.host.as_bytes()),
            StickyBy::Header(name) => sticky.key(self.header(name).next()?),
            StickyBy::Client => self.client.map(|client| sticky.key_of_client(client)),
        }
    }
}

/// What is pinned in these fields, of which as much is left as the proxy lets pass.
fn take_pin(headers: &mut Vec<(String, String)>, is_believed: bool) -> Option<Pin> {
    let lines: Vec<_> =
        headers.iter().filter(|(name, _)| name == FIELD).map(|(_, line)| line.clone()).collect();
    let lines = || lines.iter().map(|line| line.trim_ascii().as_bytes());
    if !lines().any(pin::is_in) {
        return None;
    }
    let Sorted { lines: left, .. } = pin::sort(lines(), is_believed);
    if let Some(left) = left {
        headers.retain(|(name, _)| name != FIELD);
        let text = |line: Vec<u8>| (FIELD.to_owned(), String::from_utf8_lossy(&line).into_owned());
        headers.extend(left.into_iter().map(text));
    }
    pin::sort(lines(), true).pin
}

/// `shop.example.com:80` and `[::1]:80` without the port.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    }
}

fn explained(table: &Table, request: &Request) -> Explained {
    let nowhere = Explained {
        epoch: table.epoch().0,
        service: None,
        route: None,
        reason: Reason::NoRoute,
        version: None,
        chances: Vec::new(),
        rule: None,
        by_client: Vec::new(),
        pinned: None,
        taken_out: request.taken_out.clone(),
        sticky: None,
        shielded_by: None,
        upgrades: Vec::new(),
        copied: None,
    };
    let Some(routed) = table.route(request) else { return nowhere };
    let service = &table.services()[routed.service];
    let route: Route = (&service.routes[routed.route]).into();
    let found = Explained { service: Some(service.name.to_string()), route: Some(route), ..nowhere };
    if let Some(reason) = own_answer(service, routed.route) {
        return Explained { reason, ..found };
    }
    let mut chances: Vec<_> =
        service.split.shares().map(|(version, weight)| chance(version.as_str(), weight)).collect();
    let aims = service.aims.as_deref();
    let aim = aims.and_then(|aims| aims.aim(request));
    let by_client = aims.into_iter().flat_map(|aims| aims.by_client(request));
    let by_client = by_client.filter_map(|aim| rule(service, aim)).collect();
    let pinned = request.pin.as_ref().map(|pin| pinned(service, pin, request.is_believed, aim));
    let followed = pinned.as_ref().filter(|pinned| pinned.fate == Fate::Followed);
    let (reason, version) = match (aim, followed.and_then(|pinned| pinned.version.clone())) {
        (Some(aim), _) => (Reason::Rule, Some(service.versions[aim.version].name.to_string())),
        (None, Some(version)) if !has_all(service, &version) => (Reason::Pinned, Some(version)),
        (None, _) => decided(service, request),
    };
    if let Some(version) = &version {
        chances.retain(|chance| chance.version == *version);
        if chances.is_empty() {
            chances.push(chance(version, BasisPoints::NONE));
        }
        chances.iter_mut().for_each(|chance| chance.probability = 1.0);
    } else if reason == Reason::Minted
        && let Some(closed) = service.sticky.as_ref().and_then(|sticky| sticky.closed())
    {
        // Nobody new comes there: the others share it.
        chances.retain(|chance| chance.version != service.versions[closed].name.as_str());
        let all: f64 = chances.iter().map(|chance| chance.probability).sum();
        chances.iter_mut().for_each(|chance| chance.probability /= all);
    }
    let rule = aim.and_then(|aim| rule(service, aim));
    let others = || chances.iter().filter(|chance| chance.version != service.stable.as_str());
    let upgrades = request.upgrades(service);
    let is_shielded = service.shield.is_some() && service.split.leads_to(&service.stable);
    let is_shielded = is_shielded && request.may_repeat() && upgrades.is_empty();
    let shielded_by = (is_shielded && others().next().is_some()).then(|| service.stable.to_string());
    Explained {
        reason,
        version,
        rule,
        by_client,
        pinned,
        sticky: Sticky::of(service),
        shielded_by,
        upgrades,
        copied: request.copied(service),
        chances,
        ..found
    }
}

/// The rule that this is by.
fn rule(service: &Service, aim: Aim) -> Option<Decided> {
    let rule = service.aims.as_ref()?.rule(aim.rule)?;
    Some(Decided { number: aim.rule, text: rule.to_string() })
}

/// What becomes of a pin, before which a rule may decide.
fn pinned(service: &Service, pin: &Pin, is_believed: bool, aim: Option<Aim>) -> Pinned {
    let found = service.pinned(pin);
    let fate = match found.map(|(_, pinnable)| pinnable) {
        _ if !is_believed => Fate::Untrusted,
        None => Fate::NoVersion,
        Some(_) if aim.is_some() => Fate::Rule,
        Some(Pinnable::Yes) => Fate::Followed,
        Some(Pinnable::Idle) => Fate::Idle,
        Some(Pinnable::Suspected) => Fate::Suspected,
        Some(Pinnable::Retiring) => Fate::Retiring,
    };
    let version = found.map(|(index, _)| service.versions[index].name.to_string());
    Pinned { release: pin.to_string(), version, fate }
}

/// True of the only version that has weight.
fn has_all(service: &Service, version: &str) -> bool {
    service.assigned_by() == AssignedBy::Single && service.split.heaviest().as_str() == version
}

/// What decides on the version of the request, and which it is if that is known.
fn decided(service: &Service, request: &Request) -> (Reason, Option<String>) {
    if service.assigned_by() == AssignedBy::Single {
        return (Reason::Single, Some(service.split.heaviest().to_string()));
    }
    let Some(sticky) = &service.sticky else { return (Reason::Coin, None) };
    match request.key(service).and_then(|key| sticky.assign(key)) {
        Some(index) => (Reason::Sticky, Some(service.versions[index].name.to_string())),
        None if sticky.rules.by.mints() => (Reason::Minted, None),
        None => (Reason::Coin, None),
    }
}

/// What the route answers by itself, if it does.
fn own_answer(service: &Service, route: usize) -> Option<Reason> {
    Some(match service.rules.as_ref()?.route(route)?.answer.as_ref()? {
        OwnAnswer::Redirect { .. } => Reason::Redirect,
        OwnAnswer::Fixed { .. } => Reason::Fixed,
    })
}

fn chance(version: &str, weight: BasisPoints) -> Chance {
    let probability = f64::from(weight.points()) / f64::from(BasisPoints::ALL.points());
    Chance { version: version.to_owned(), weight: weight.points(), probability }
}
