//! Which path leads to which handler.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post, put};
use http::header::ORIGIN;

use super::api::Problem;
use super::{
    App, call, change, drain, events, explain, health, ramp, read, retire, rollout, upgrade, verdict,
};

/// Every path of the API with its methods; the OpenAPI document has the same ones, by a test.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Arc<App>>)> {
    vec![
        ("/v1/services", get(read::services)),
        ("/v1/services/{service}", get(read::service)),
        ("/v1/services/{service}/flip", post(change::flip)),
        ("/v1/services/{service}/revert", post(change::revert)),
        ("/v1/services/{service}/ramp", post(ramp::ramp)),
        ("/v1/services/{service}/promote", post(ramp::promote)),
        ("/v1/services/{service}/abort", post(ramp::abort)),
        ("/v1/services/{service}/retire", post(retire::retire)),
        ("/v1/services/{service}/freeze", post(ramp::freeze)),
        ("/v1/services/{service}/resume", post(ramp::resume)),
        ("/v1/services/{service}/hold", post(change::hold)),
        ("/v1/services/{service}/release", post(change::release)),
        ("/v1/services/{service}/weights", put(change::put_weights)),
        ("/v1/services/{service}/verdict", get(verdict::verdict)),
        (
            "/v1/services/{service}/versions/{version}",
            put(change::put_version).delete(change::remove_version),
        ),
        (
            "/v1/services/{service}/versions/{version}/endpoints/{endpoint}",
            put(change::put_endpoint).delete(change::remove_endpoint),
        ),
        (
            "/v1/services/{service}/versions/{version}/endpoints/{endpoint}/drain",
            get(drain::endpoint).post(change::drain_endpoint),
        ),
        ("/v1/services/{service}/versions/{version}/drain", get(drain::version)),
        ("/v1/services/{service}/versions/{version}/health", get(health::version)),
        ("/v1/services/{service}/versions/{version}/ready", get(rollout::ready)),
        ("/v1/services/{service}/rollout", get(rollout::show).post(rollout::start).delete(rollout::end)),
        ("/v1/services/{service}/rollout/proceed", post(rollout::proceed)),
        ("/v1/drain", get(drain::proxy)),
        ("/v1/changes", get(read::changes).post(change::batch)),
        ("/v1/undo", post(change::undo)),
        ("/v1/explain", post(explain::explain)),
        ("/v1/events", get(events::events)),
        ("/v1/status", get(read::status)),
        ("/v1/upgrade", post(upgrade::upgrade)),
        ("/v1/openapi.json", get(read::openapi)),
        ("/metrics", get(read::metrics)),
        ("/healthz", get(read::healthz)),
        ("/readyz", get(read::readyz)),
    ]
}

/// The whole API.
pub(super) fn admin(app: Arc<App>) -> Router {
    let router =
        routes().into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    finish(router, app).layer(middleware::from_fn(refuse_browsers)).layer(middleware::from_fn(call::hear))
}

/// Only what monitoring reads, for the separate listener.
pub(super) fn metrics(app: Arc<App>) -> Router {
    let router = Router::new().route("/metrics", get(read::metrics));
    finish(router.route("/healthz", get(read::healthz)).route("/readyz", get(read::readyz)), app)
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
