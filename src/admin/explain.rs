//! `POST /v1/explain`: which version would get a request, and why, from the live table.

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::Uri;
use http::header::HOST;

use super::api::{Chance, Decided, Explain, Explained, Problem, Reason, Route, Sticky};
use super::call::Call;
use super::caller::out_of_scope;
use super::openapi::ReadResponses;
use super::read::Nothing;
use super::status::{TakenOut, Underscores};
use crate::table::sticky::cookie;
use crate::table::targeting::Aim;
use crate::table::{
    AssignedBy, BasisPoints, OwnAnswer, RouteKey, Service, Shown, StickyBy, StickyKey, Table,
};

/// Where a request would go, and why.
#[utoipa::path(post, path = "/v1/explain", tag = "services", request_body = Explain,
    responses((status = 200, body = Explained, description = "where such a request goes, and why"), ReadResponses))]
pub(super) async fn explain(call: Call) -> Result<Response, Box<Problem>> {
    call.query::<Nothing>()?;
    let asked: Explain = call.json()?;
    let request = Request::read(asked, &call.app.status.taken_out())?;
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
    fn read(asked: Explain, rules: &TakenOut) -> Result<Self, Box<Problem>> {
        let bad = |field: &'static str, detail: String| Problem::new(400, "bad_value", detail).at(field);
        let uri: Uri = asked.uri.parse().map_err(|why| bad("uri", format!("`uri` is no URI: {why}")))?;
        if uri.path().is_empty() || !uri.path().starts_with('/') {
            return Err(bad("uri", "`uri` is http://host/path, or /path".to_owned()));
        }
        if let Some(method) = &asked.method {
            let read = http::Method::from_bytes(method.as_bytes());
            read.map_err(|_| bad("method", "`method` is no HTTP method".to_owned()))?;
        }
        let client = asked.client.map(|client| {
            let read = client.parse::<IpAddr>().map(|address| address.to_canonical());
            read.map_err(|_| bad("client", "`client` is an IP address".to_owned()))
        });
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
        let headers: Vec<_> = lines.collect();
        let header = headers.iter().find(|(name, _)| name == "host").map(|(_, value)| value.as_str());
        let authority =
            uri.authority().map_or_else(|| header.unwrap_or_default(), |authority| authority.as_str());
        let (host, path) = (without_port(authority).to_owned(), uri.path().to_owned());
        let query = uri.query().unwrap_or_default().to_owned();
        let taken_out = taken_out.into_keys().collect();
        Ok(Self { host, path, query, headers, taken_out, client: client.transpose()? })
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
        taken_out: request.taken_out.clone(),
        sticky: None,
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
    let (reason, version) = match aim {
        Some(aim) => (Reason::Rule, Some(service.versions[aim.version].name.to_string())),
        None => decided(service, request),
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
    Explained { reason, version, chances, rule, by_client, sticky: Sticky::of(service), ..found }
}

/// The rule that this is by.
fn rule(service: &Service, aim: Aim) -> Option<Decided> {
    let rule = service.aims.as_ref()?.rule(aim.rule)?;
    Some(Decided { number: aim.rule, text: rule.to_string() })
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
