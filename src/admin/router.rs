//! Which path leads to which handler, and what it needs.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};
use http::Method;
use http::header::ORIGIN;

use super::api::Problem;
use super::need::{self, Need};
use super::{
    App, call, change, drain, events, explain, health, ramp, read, retire, rollout, rules, upgrade, verdict,
};

/// One call: where it is served, what it needs, and who answers it.
pub(super) struct Route {
    pub(super) path: &'static str,
    pub(super) method: Method,
    pub(super) need: Need,
    handler: MethodRouter<Arc<App>>,
}

/// How routes are written: none is there without saying what it needs.
fn route<H, T>(method: Method, path: &'static str, need: Need, handler: H) -> Route
where
    H: Handler<T, Arc<App>>,
    T: 'static,
{
    // HEAD comes with GET, as axum has it.
    let served = match method {
        Method::GET => routing::get(handler),
        Method::PUT => routing::put(handler),
        Method::DELETE => routing::delete(handler),
        _ => routing::post(handler),
    };
    Route { path, method, need, handler: served }
}

fn get<H: Handler<T, Arc<App>>, T: 'static>(path: &'static str, need: Need, handler: H) -> Route {
    route(Method::GET, path, need, handler)
}

fn put<H: Handler<T, Arc<App>>, T: 'static>(path: &'static str, need: Need, handler: H) -> Route {
    route(Method::PUT, path, need, handler)
}

fn post<H: Handler<T, Arc<App>>, T: 'static>(path: &'static str, need: Need, handler: H) -> Route {
    route(Method::POST, path, need, handler)
}

fn delete<H: Handler<T, Arc<App>>, T: 'static>(path: &'static str, need: Need, handler: H) -> Route {
    route(Method::DELETE, path, need, handler)
}

const SERVICE: &str = "/v1/services/{service}";
const VERSION: &str = "/v1/services/{service}/versions/{version}";
const ENDPOINT: &str = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}";
const ENDPOINT_DRAIN: &str = "/v1/services/{service}/versions/{version}/endpoints/{endpoint}/drain";
const ROLLOUT: &str = "/v1/services/{service}/rollout";

/// Every call of the API; the OpenAPI document has the same ones, by a test.
pub(super) fn routes() -> Vec<Route> {
    use Need::{Admin, Nothing, Operate, OperateChanged, OperateNamed, Read, ReadOwn, ReadService};
    vec![
        get("/v1/services", ReadOwn, read::services),
        get(SERVICE, ReadService, read::service),
        post("/v1/services/{service}/flip", Operate, change::flip),
        post("/v1/services/{service}/revert", Operate, change::revert),
        post("/v1/services/{service}/ramp", Operate, ramp::ramp),
        post("/v1/services/{service}/promote", Operate, ramp::promote),
        post("/v1/services/{service}/abort", Operate, ramp::abort),
        post("/v1/services/{service}/retire", Operate, retire::retire),
        post("/v1/services/{service}/freeze", Operate, ramp::freeze),
        post("/v1/services/{service}/resume", Operate, ramp::resume),
        post("/v1/services/{service}/hold", Operate, change::hold),
        post("/v1/services/{service}/release", Operate, change::release),
        put("/v1/services/{service}/weights", Operate, change::put_weights),
        put("/v1/services/{service}/rules", Operate, rules::put_rules),
        get("/v1/services/{service}/verdict", ReadService, verdict::verdict),
        put(VERSION, Operate, change::put_version),
        delete(VERSION, Operate, change::remove_version),
        put(ENDPOINT, Operate, change::put_endpoint),
        delete(ENDPOINT, Operate, change::remove_endpoint),
        get(ENDPOINT_DRAIN, ReadService, drain::endpoint),
        post(ENDPOINT_DRAIN, Operate, change::drain_endpoint),
        get("/v1/services/{service}/versions/{version}/drain", ReadService, drain::version),
        get("/v1/services/{service}/versions/{version}/health", ReadService, health::version),
        get("/v1/services/{service}/versions/{version}/ready", ReadService, rollout::ready),
        get(ROLLOUT, ReadService, rollout::show),
        post(ROLLOUT, Operate, rollout::start),
        delete(ROLLOUT, Operate, rollout::end),
        post("/v1/services/{service}/rollout/proceed", Operate, rollout::proceed),
        get("/v1/drain", ReadOwn, drain::proxy),
        get("/v1/changes", ReadOwn, read::changes),
        post("/v1/changes", OperateNamed, change::batch),
        post("/v1/undo", OperateChanged, change::undo),
        post("/v1/explain", ReadOwn, explain::explain),
        get("/v1/events", ReadOwn, events::events),
        get("/v1/status", Nothing, read::status),
        post("/v1/upgrade", Admin, upgrade::upgrade),
        get("/v1/openapi.json", Nothing, read::openapi),
        get("/metrics", Read, read::metrics),
        get("/healthz", Nothing, read::healthz),
        get("/readyz", Nothing, read::readyz),
    ]
}

/// The whole API, for callers who are told with each request.
pub(super) fn admin(app: Arc<App>) -> Router {
    let router = routes().into_iter().fold(Router::new(), |router, route| {
        let (need, app) = (route.need, Arc::clone(&app));
        let check =
            middleware::from_fn(move |request, next| need::authorize(need, Arc::clone(&app), request, next));
        router.route(route.path, route.handler.route_layer(check))
    });
    finish(router, app).layer(middleware::from_fn(refuse_browsers)).layer(middleware::from_fn(call::hear))
}

/// Only what monitoring reads, for the separate listener.
pub(super) fn metrics(app: Arc<App>) -> Router {
    let router = Router::new().route("/metrics", routing::get(read::metrics));
    let router = router.route("/healthz", routing::get(read::healthz));
    finish(router.route("/readyz", routing::get(read::readyz)), app)
}

fn finish(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router.fallback(unknown_path).method_not_allowed_fallback(wrong_method).with_state(app)
}

/// A page in somebody's browser must not drive the switch, however it reached the socket (CSRF, DNS rebinding):
/// browsers send `Origin` with every request that can change something, our clients never do.
async fn refuse_browsers(request: Request, next: Next) -> Response {
    if request.headers().contains_key(ORIGIN) {
        let refused =
            Problem::new(403, "origin_refused", "the admin API answers no requests made by web pages");
        return refused.at("origin").into_response();
    }
    next.run(request).await
}

async fn unknown_path(request: Request) -> Response {
    let detail = format!("there is nothing at {}", request.uri().path());
    Problem::new(404, "unknown_path", detail).hint("`/v1/openapi.json` lists what there is").into_response()
}

async fn wrong_method(request: Request) -> Response {
    let detail = format!("{} is not served at {}", request.method(), request.uri().path());
    Problem::new(405, "wrong_method", detail).hint("the header `allow` lists what is").into_response()
}
