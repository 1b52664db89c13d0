//! Targeting rules: the call that sets them, and how they are read.
#![allow(unused_qualifications, reason = "what `utoipa::path` expands to")]

use axum::response::Response;

use super::api::{Problem, Rule};
use super::call::Call;
use super::openapi::{ChangeHeaders, ChangeResponses};
use super::order::{ChangeQuery, Order, make};
use super::refusal::Blame;
use crate::release::Command;
use crate::table::ServiceName;

/// The targeting rules of a service, all of them, in order: whoever the first one that fits is about goes where it leads. An empty list takes
/// them away. Weights, ramps and freezes leave them as they are; a flip takes them away.
#[utoipa::path(put, path = "/v1/services/{service}/rules", tag = "changes", request_body = Vec<Rule>,
    params(("service" = String, Path), ChangeQuery, ChangeHeaders), responses(ChangeResponses))]
pub(super) async fn put_rules(call: Call) -> Result<Response, Box<Problem>> {
    let (service, rules) = (call.service()?, call.json::<Vec<Rule>>()?);
    let command = command(service.clone(), &rules)?;
    let to = rules.into_iter().map(|rule| rule.to).collect();
    make(&call, Order::one(service, command).blaming(Blame::Rules(to))).await
}

/// These rules, in the heart's words.
pub(super) fn command(service: ServiceName, rules: &[Rule]) -> Result<Command, Box<Problem>> {
    let read = |(index, rule): (usize, &Rule)| {
        rule.read().map_err(|mut problem| {
            let inside = problem.field.take().map(|field| format!(".{field}")).unwrap_or_default();
            problem.at(format!("[{index}]{inside}"))
        })
    };
    let rules = rules.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    Ok(Command::SetRules { service, rules })
}
