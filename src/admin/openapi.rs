//! The OpenAPI 3.1 document, made from the handlers and the wire types themselves.

use std::collections::BTreeMap;

use http::Method;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, Ref, RefOr, Response, ResponseBuilder, Schema};
use utoipa::{IntoParams, IntoResponses, OpenApi, ToSchema};

use super::api::{ChangeAnswer, Problem, Rollout, Upgraded};
use super::router::{self, Route};
use super::{
    change, drain, events, explain, health, precondition, ramp, read, retire, rollout, rules, upgrade,
    verdict,
};

/// The document of `GET /v1/openapi.json`.
#[must_use]
pub fn document() -> utoipa::openapi::OpenApi {
    let mut document = Document::openapi();
    for path in document.paths.paths.values_mut() {
        let operations = [&mut path.get, &mut path.put, &mut path.post, &mut path.delete];
        let parameters =
            operations.into_iter().flatten().flat_map(|operation| operation.parameters.iter_mut());
        parameters.flatten().for_each(say_what_a_name_is);
    }
    say_who_may(&mut document);
    document
}

/// How callers over TCP say who they are.
const SCHEMES: [&str; 2] = ["bearer", "certificate"];

fn say_who_may(document: &mut utoipa::openapi::OpenApi) {
    let mut components = document.components.take().unwrap_or_default();
    let bearer =
        HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("a token of [admin] tokens"));
    let certificate = "a client's certificate, by a name of [admin] certificates";
    components.add_security_scheme(SCHEMES[0], SecurityScheme::Http(bearer.build()));
    let description = Some(certificate.to_owned());
    let certificate = SecurityScheme::MutualTls { description, deprecated: None, extensions: None };
    components.add_security_scheme(SCHEMES[1], certificate);
    document.components = Some(components);
    for Route { path, method, need, .. } in router::routes() {
        let Some(item) = document.paths.paths.get_mut(path) else { continue };
        let operation = match method {
            Method::GET => &mut item.get,
            Method::PUT => &mut item.put,
            Method::DELETE => &mut item.delete,
            _ => &mut item.post,
        };
        if let Some(operation) = operation {
            let either = SCHEMES.map(|scheme| SecurityRequirement::new(scheme, need.told().iter().copied()));
            // On the socket nothing is asked for.
            let socket = SecurityRequirement::default();
            operation.security = Some(either.into_iter().chain([socket]).collect());
        }
    }
}

/// What `table::name` takes, as a pattern.
const SERVICE: &str = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$";
const VERSION: &str = "^([A-Za-z0-9][A-Za-z0-9._-]{0,62}|@stable|@candidate)$";

fn say_what_a_name_is(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let pattern = match parameter.name.as_str() {
        "service" => SERVICE,
        "version" => VERSION,
        _ => return,
    };
    if let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema {
        schema.pattern = Some(pattern.to_owned());
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "switchback admin API", license(name = "Apache-2.0 OR MIT"),
        description = "Served on the admin socket, where nobody has to say who he is, and on `[admin] listen`, to those who show a token or a certificate that is known; the scopes that a call takes, any one of them, stand in its `security`, and `admin` is enough for all. Who may look at some services alone is told of those. Errors are problem details (RFC 9457); `type` is stable."),
    paths(
        read::services, read::service, verdict::verdict, drain::version, drain::endpoint, drain::proxy, health::version, read::changes, read::status, read::openapi, read::metrics,
        read::healthz, read::readyz, change::flip, change::revert, change::hold, change::release, change::put_weights, rules::put_rules, change::put_version,
        change::remove_version, change::put_endpoint, change::remove_endpoint, change::drain_endpoint, change::batch,
        change::undo, ramp::ramp, ramp::promote, ramp::abort, retire::retire, ramp::freeze, ramp::resume,
        explain::explain, events::events, upgrade::upgrade,
        rollout::show, rollout::start, rollout::end, rollout::proceed, rollout::ready
    ),
    components(schemas(ChangeAnswer, Problem, Rollout, Upgraded)),
    tags(
        (name = "services", description = "where traffic goes"),
        (name = "changes", description = "what moves it; each is atomic and has an epoch"),
        (name = "rollouts", description = "rolling upgrades: one endpoint after the other"),
        (name = "proxy", description = "the process itself")
    )
)]
struct Document;

/// What a change over many services takes in its headers: no one service's epoch.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes the header; `precondition` reads it")]
pub(super) struct KeyHeader {
    /// A repeated call with the same key gets the same answer and makes no second change.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    idempotency_key: Option<String>,
}

/// What a call about what is under way in a service takes in its headers: repeated, it changes nothing.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes the header; `precondition` reads it")]
pub(super) struct MatchHeader {
    /// The service's epoch that the call was decided on, as its `etag` told it; else 412 with the present state.
    #[param(rename = "If-Match", example = "\"41\"")]
    if_match: Option<String>,
}

/// What a change of one service takes in its headers.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "describes the headers; `precondition` reads them")]
pub(super) struct ChangeHeaders {
    /// The service's epoch that the change was decided on, as its `etag` told it; else 412 with the present state.
    #[param(rename = "If-Match", example = "\"41\"")]
    if_match: Option<String>,
    /// A repeated call with the same key gets the same answer and makes no second change.
    #[param(rename = "Idempotency-Key", max_length = 255)]
    idempotency_key: Option<String>,
}

/// What every change is answered with.
pub(super) struct ChangeResponses;

impl IntoResponses for ChangeResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let done = ResponseBuilder::new().description("made and fenced, or so already, or the plan");
        let done = done.content("application/json", content(ChangeAnswer::name().as_ref()));
        let header = |text: &str| utoipa::openapi::HeaderBuilder::new().description(Some(text)).build();
        let done = done.header("etag", header("the service's epoch"));
        let done =
            done.header(precondition::REPLAYED_HEADER, header("true: the answer that this key got before"));
        let mut all = BTreeMap::from([("200".to_owned(), done.build().into())]);
        all.extend(problems(&[
            ("400", "not understood; `field` is at fault"),
            ("404", "no such service, version or endpoint"),
            ("409", "not possible as the service stands"),
            ("412", "the service has changed since; `present` is how it stands"),
            ("422", "understood, but not possible"),
            ("503", "could not be made durable, nothing was changed; or the proxy is stopping"),
            ("504", "the change is made; what was waited for has not come yet: `left`"),
        ]));
        all
    }
}

/// What calls about a rolling upgrade are answered with.
pub(super) struct RolloutResponses;

impl IntoResponses for RolloutResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let told = |text: &str| {
            let response = ResponseBuilder::new().description(text);
            response.content("application/json", content(Rollout::name().as_ref())).build().into()
        };
        let mut all = BTreeMap::from([
            ("200".to_owned(), told("as it stands, or the plan")),
            ("202".to_owned(), told("begun, or on its way to its end")),
        ]);
        all.extend(problems(&[
            ("400", "not understood; `field` is at fault"),
            ("404", "no such service, or no rollout"),
            ("409", "not possible as it stands"),
            ("412", "the service has changed since; `present` is how it stands"),
            ("422", "understood, but not possible"),
            ("503", "the proxy is stopping, or another process is about to take its place"),
        ]));
        all
    }
}

/// What an upgrade is answered with.
pub(super) struct UpgradeResponses;

impl IntoResponses for UpgradeResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let done = ResponseBuilder::new().description("the new process serves");
        let done = done.content("application/json", content(Upgraded::name().as_ref()));
        let mut all = BTreeMap::from([("200".to_owned(), done.build().into())]);
        all.extend(problems(&[
            ("400", "not understood; `field` is at fault"),
            ("409", "not possible now"),
            ("422", "the new process has failed; this one goes on"),
            ("503", "the proxy is stopping"),
            ("504", "the new process was not ready in time; this one goes on"),
        ]));
        all
    }
}

/// What every read may be refused with.
pub(super) struct ReadResponses;

impl IntoResponses for ReadResponses {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            ("400", "not understood; `field` is at fault"),
            ("404", "no such service or version"),
            ("503", "the store cannot be read"),
        ])
    }
}

/// What every call can be refused with, whatever it is about.
const ALWAYS: [(&str, &str); 6] = [
    ("401", "over TCP: neither a token nor a certificate that is known"),
    ("403", "whoever asks does not have the scope for it, or is a web page"),
    ("405", "the path is not served by this method; `allow` lists those that it is"),
    ("408", "the body did not come in time"),
    ("413", "the body is larger than 1 MiB"),
    ("429", "over TCP: whoever asks has as many connections, or event streams, already as one gets"),
];

/// These, and those that every call can be refused with.
fn problems(all: &[(&str, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let problem = |(status, description): &(&str, &str)| {
        let response = ResponseBuilder::new().description(*description);
        let response = response.content("application/problem+json", content(Problem::name().as_ref()));
        ((*status).to_owned(), response.build().into())
    };
    all.iter().chain(&ALWAYS).map(problem).collect()
}

fn content(schema: &str) -> Content {
    Content::new(Some(Ref::from_schema_name(schema)))
}
