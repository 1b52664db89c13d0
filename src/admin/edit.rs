//! From what is asked on the wire to a command of the heart.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::api::{Batch, Edit, EndpointEdit, Flip, Hold, Problem, PutEndpoint, Weights, text};
use super::call::{from_json, parse};
use super::rules;
use crate::control::{Exclusively, Streams};
use crate::release::{Command, Interrupts, Supervise};
use crate::table::{
    BasisPoints, EndpointAddr, EndpointWeight, Epoch, HoldScope, Holder, Invalid, LONGEST_HOLD, PoolTraits,
    Protocol, ServiceName, TraitsEdit, VersionRef, VersionSpec, ZoneEdit,
};

/// The longest reason that is kept, in bytes.
const MAX_REASON: usize = 1024;

pub(super) fn flip(service: ServiceName, flip: &Flip) -> Result<Command, Box<Problem>> {
    let supervise = supervise(flip.supervise.as_ref())?;
    let interrupts = if flip.interrupt == Some(false) { Interrupts::No } else { Interrupts::Yes };
    Ok(Command::Flip { service, to: parse("to", &flip.to)?, supervise, interrupts })
}

/// `true`, `false` or a time such as `"10m"`; left out: as the service's rules say.
pub(super) fn supervise(value: Option<&Value>) -> Result<Supervise, Box<Problem>> {
    match value {
        None | Some(Value::Null) => Ok(Supervise::AsConfigured),
        Some(Value::Bool(true)) => Ok(Supervise::For(None)),
        Some(Value::Bool(false)) => Ok(Supervise::No),
        Some(Value::String(text)) => {
            let period = text::supervision(text).map_err(|Invalid(why)| bad("supervise", why))?;
            Ok(Supervise::For(Some(period)))
        }
        Some(_) => Err(bad("supervise", "expected true, false or a time such as \"10m\"".to_owned())),
    }
}

fn is_asked(value: Option<&Value>) -> bool {
    value.is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)))
}

/// A value as it stands in a query.
pub(super) fn value(text: String) -> Value {
    match text.as_str() {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => Value::String(text),
    }
}

/// How a flip is made, if not just so.
pub(super) fn exclusively(flip: &Flip) -> Result<Option<Exclusively>, Box<Problem>> {
    if !is_asked(flip.exclusive.as_ref()) {
        let with = [("streams", flip.streams.is_some()), ("hold_timeout", flip.hold_timeout.is_some())];
        let alone = with.iter().find(|(_, is_there)| *is_there);
        return match alone {
            Some((field, _)) => Err(bad(field, format!("`{field}` goes with `exclusive`"))),
            None => Ok(None),
        };
    }
    let scope = match &flip.exclusive {
        Some(Value::Bool(true)) => HoldScope::All,
        Some(Value::String(text)) if text == "writes" => HoldScope::Writes,
        _ => return Err(bad("exclusive", "expected true, false or \"writes\"".to_owned())),
    };
    let streams = match flip.streams.as_deref() {
        None | Some("refuse") => Streams::Refuse,
        Some("close") => Streams::Close,
        Some("ignore") => Streams::Ignore,
        Some(_) => return Err(bad("streams", "expected refuse, close or ignore".to_owned())),
    };
    Ok(Some(Exclusively {
        scope,
        streams,
        timeout: hold_timeout("hold_timeout", flip.hold_timeout.as_deref())?,
    }))
}

/// A hold.
pub(super) fn hold(service: ServiceName, hold: &Hold) -> Result<Command, Box<Problem>> {
    let scope = match hold.scope.as_deref() {
        None | Some("all") => HoldScope::All,
        Some("writes") => HoldScope::Writes,
        Some(_) => return Err(bad("scope", "expected all or writes".to_owned())),
    };
    let timeout = hold_timeout("timeout", hold.timeout.as_deref())?;
    Ok(Command::Hold { service, holder: Holder::Operator, scope, timeout })
}

fn hold_timeout(field: &'static str, text: Option<&str>) -> Result<Option<Duration>, Box<Problem>> {
    let Some(text) = text else { return Ok(None) };
    let timeout = text::duration(text).map_err(|Invalid(why)| bad(field, why))?;
    if timeout.is_zero() || timeout > LONGEST_HOLD {
        let longest = LONGEST_HOLD.as_secs() / 60;
        return Err(bad(field, format!("a hold is at least 1ms and at most {longest}m long")));
    }
    Ok(Some(timeout))
}

fn bad(field: &str, detail: String) -> Box<Problem> {
    Problem::new(400, "bad_value", detail).at(field)
}

pub(super) fn weights(
    service: ServiceName,
    weights: &Weights,
    rest: Option<&str>,
    supervise: Option<&Value>,
) -> Result<Command, Box<Problem>> {
    let supervise = self::supervise(supervise)?;
    let weight = |(version, points): (&String, &u64)| {
        let points = BasisPoints::new(*points);
        let bad = |Invalid(why)| Problem::new(422, "bad_weights", why).at(version);
        Ok((parse(version, version)?, points.map_err(bad)?))
    };
    let weights = weights.0.iter().map(weight).collect::<Result<Vec<_>, Box<Problem>>>()?;
    let rest = rest.map(|version| parse("rest", version)).transpose()?;
    Ok(Command::SetWeights { service, weights, rest, supervise })
}

pub(super) fn put_version(
    service: ServiceName,
    version: &str,
    endpoints: &[String],
    protocol: Option<&str>,
) -> Result<Command, Box<Problem>> {
    let endpoint = |(index, text): (usize, &String)| parse(&format!("endpoints[{index}]"), text);
    let mut read: Vec<EndpointAddr> = Vec::with_capacity(endpoints.len());
    for item in endpoints.iter().enumerate() {
        let address = endpoint(item)?;
        if read.contains(&address) {
            let detail = format!("{address} is named twice");
            return Err(Problem::new(422, "bad_value", detail).at(format!("endpoints[{}]", item.0)));
        }
        read.push(address);
    }
    let name = parse("version", version)?;
    let protocol = read_protocol(protocol, &read)?;
    let version = VersionSpec {
        name,
        endpoints: Arc::from(read),
        protocol,
        tls: None,
        proxy_header: None,
        draining: Arc::default(),
        traits: PoolTraits::default(),
        pool: None,
    };
    Ok(Command::PutVersion { service, version })
}

/// What is said of an endpoint.
pub(super) fn traits(said: &PutEndpoint) -> Result<TraitsEdit, Box<Problem>> {
    let weight = said.weight.map(EndpointWeight::new).transpose();
    let zone = match said.zone.as_deref() {
        None => ZoneEdit::AsItIs,
        Some("") => ZoneEdit::Nowhere,
        Some(zone) => ZoneEdit::Is(parse("zone", zone)?),
    };
    Ok(TraitsEdit { weight: weight.map_err(|Invalid(why)| bad("weight", why))?, zone })
}

/// Only an endpoint that is put has a weight and a zone to be told.
fn says_nothing(edit: &str, asked: &EndpointEdit) -> Result<(), Box<Problem>> {
    let said = [("weight", asked.weight.is_some()), ("zone", asked.zone.is_some())];
    match said.iter().find(|(_, is_said)| *is_said) {
        Some((field, _)) => {
            Err(bad(&format!("{edit}.{field}"), format!("`{field}` goes with `put_endpoint`")))
        }
        None => Ok(()),
    }
}

/// A protocol; over TLS a version is verified by its endpoints' own names and the system's authorities, so each has to
/// have a name.
fn read_protocol(protocol: Option<&str>, endpoints: &[EndpointAddr]) -> Result<Protocol, Box<Problem>> {
    let Some(text) = protocol else { return Ok(Protocol::default()) };
    let refused = |why: Invalid| Problem::new(400, "bad_value", why.to_string()).at("protocol");
    let protocol: Protocol = text.parse().map_err(refused)?;
    match endpoints.iter().position(|endpoint| matches!(endpoint, EndpointAddr::Unix(_))) {
        Some(index) if protocol.is_tls() => {
            let detail = format!("{} has no name that could be verified over TLS", endpoints[index]);
            Err(Problem::new(422, "bad_value", detail).at(format!("endpoints[{index}]")))
        }
        _ => Ok(protocol),
    }
}

/// The reason, if any; at most 1 KiB, without control characters, which could forge lines of a log or a terminal.
pub(super) fn reason(body: Option<String>, query: Option<&String>) -> Result<String, Box<Problem>> {
    let reason = body.or_else(|| query.cloned()).unwrap_or_default();
    if reason.len() > MAX_REASON || reason.chars().any(char::is_control) {
        let detail =
            format!("a reason is at most {MAX_REASON} bytes on one line, without control characters");
        return Err(Problem::new(400, "bad_value", detail).at("reason"));
    }
    Ok(reason)
}

/// What a batch asks for, in the heart's words.
#[derive(Debug, Clone, Default)]
pub struct Edits {
    /// One command an edit, in order.
    pub commands: Vec<Command>,
    /// The service of each.
    pub services: Vec<ServiceName>,
    /// The epoch at which each wants its service to be, if any.
    pub if_epochs: Vec<Option<Epoch>>,
    /// Why.
    pub reason: Option<String>,
    /// Whether endpoints are well or not.
    pub force: bool,
}

impl Edits {
    /// Reads the body of a batch.
    ///
    /// # Errors
    /// The problem, with the member at fault.
    pub fn read(body: &[u8]) -> Result<Self, Box<Problem>> {
        let batch: Batch = from_json(body)?;
        let mut edits = Self { reason: batch.reason, force: batch.force.unwrap_or(false), ..Self::default() };
        for (index, asked) in batch.changes.into_iter().enumerate() {
            let (service, epoch, command) = edit(index, asked)?;
            edits.services.push(service);
            edits.if_epochs.push(epoch);
            edits.commands.push(command);
        }
        Ok(edits)
    }

    /// The services that must be at an epoch.
    #[must_use]
    pub fn expected(&self) -> Vec<(ServiceName, Epoch)> {
        let expected = self.services.iter().zip(&self.if_epochs);
        expected.filter_map(|(service, epoch)| Some((service.clone(), (*epoch)?))).collect()
    }

    /// The first edit of a service.
    pub(super) fn about(&self, service: &ServiceName) -> Option<usize> {
        self.services.iter().position(|of| of == service)
    }

    /// The edit that wants a service to be at this epoch.
    pub(super) fn expecting(&self, service: &ServiceName, epoch: Epoch) -> Option<usize> {
        let mut expected = self.services.iter().zip(&self.if_epochs);
        expected.position(|(of, wanted)| of == service && *wanted == Some(epoch))
    }

    /// The edit that sends a service's traffic to `version`: the last one that names it for that, else the last one that moves any.
    pub(super) fn mover(&self, service: &ServiceName, version: &VersionRef) -> Option<usize> {
        let last = |is_it: &dyn Fn(&Command) -> bool| {
            let mut edits = self.services.iter().zip(&self.commands);
            edits.rposition(|(of, command)| of == service && is_it(command))
        };
        let names = |command: &Command| match command {
            Command::Flip { to, .. } => to == version,
            Command::SetWeights { weights, rest, .. } => {
                let gets = |(of, weight): &(_, _)| of == version && *weight > BasisPoints::NONE;
                weights.iter().any(gets) || rest.as_ref() == Some(version)
            }
            Command::SetRules { rules, .. } => rules.iter().any(|(_, to)| to == version),
            _ => false,
        };
        let moves = |command: &Command| {
            matches!(
                command,
                Command::Flip { .. }
                    | Command::SetWeights { .. }
                    | Command::SetRules { .. }
                    | Command::Revert { .. }
            )
        };
        last(&names).or_else(|| last(&moves))
    }
}

/// An edit of a batch, with the service and the epoch it is expected at.
fn edit(index: usize, edit: Edit) -> Result<(ServiceName, Option<Epoch>, Command), Box<Problem>> {
    let inside = |mut problem: Box<Problem>| {
        let field = problem.field.take();
        problem
            .at(field
                .map_or_else(|| format!("changes[{index}]"), |field| format!("changes[{index}].{field}")))
    };
    let service: ServiceName = parse("service", &edit.service).map_err(inside)?;
    let expected = edit.if_epoch.map(Epoch);
    let command = command(service.clone(), edit).map_err(inside)?;
    Ok((service, expected, command))
}

fn command(service: ServiceName, edit: Edit) -> Result<Command, Box<Problem>> {
    if edit.flip.as_ref().is_some_and(|flip| flip.force.is_some()) {
        return Err(bad("flip.force", "`force` belongs to the whole change".to_owned()));
    }
    let own_reason = [
        ("flip.reason", edit.flip.as_ref().and_then(|flip| flip.reason.as_ref())),
        ("revert.reason", edit.revert.as_ref().and_then(|revert| revert.reason.as_ref())),
    ];
    if let Some((field, _)) = own_reason.iter().find(|(_, reason)| reason.is_some()) {
        return Err(Problem::new(400, "bad_value", "the reason belongs to the whole change").at(*field));
    }
    if let Some(asked) = &edit.flip {
        stands_not_alone(asked)?;
    }
    if edit.supervise.is_some() && edit.weights.is_none() {
        return Err(
            Problem::new(400, "bad_value", "`supervise` goes with `weights`, or into `flip`").at("supervise")
        );
    }
    if edit.rest.is_some() && edit.weights.is_none() {
        return Err(Problem::new(400, "bad_value", "`rest` goes with `weights`").at("rest"));
    }
    let mut commands = Vec::new();
    if let Some(asked) = &edit.flip {
        commands.push(flip(service.clone(), asked)?);
    }
    if edit.revert.is_some() {
        commands.push(Command::Revert { service: service.clone() });
    }
    if let Some(asked) = &edit.weights {
        commands.push(weights(service.clone(), asked, edit.rest.as_deref(), edit.supervise.as_ref())?);
    }
    if let Some(asked) = &edit.rules {
        commands.push(rules::command(service.clone(), asked).map_err(|mut problem| {
            let inside = problem.field.take().unwrap_or_default();
            problem.at(format!("rules{inside}"))
        })?);
    }
    commands.extend(pool_edits(&service, &edit)?);
    let only = if commands.len() == 1 { commands.pop() } else { None };
    only.ok_or_else(|| {
        Problem::new(400, "bad_value", "an edit has exactly one of flip, revert, weights, rules, put_version, remove_version, put_endpoint, remove_endpoint, drain_endpoint")
    })
}

/// A flip of a batch is a plain one; what it says about an exclusive one has to be understood nevertheless, or two
/// versions would serve at a time where somebody wanted that they never do.
fn stands_not_alone(flip: &Flip) -> Result<(), Box<Problem>> {
    let inside = |mut problem: Box<Problem>| {
        let field = problem.field.take().unwrap_or_default();
        problem.at(format!("flip.{field}"))
    };
    match exclusively(flip).map_err(inside)? {
        None => Ok(()),
        Some(_) => {
            let to = flip.to.escape_default();
            let detail = format!("a flip to `{to}` that is exclusive stands alone, not in a batch");
            Err(bad("flip.exclusive", detail))
        }
    }
}

fn pool_edits(service: &ServiceName, edit: &Edit) -> Result<Vec<Command>, Box<Problem>> {
    let mut commands = Vec::new();
    let address = |field: &str, asked: &EndpointEdit| -> Result<(VersionRef, EndpointAddr), Box<Problem>> {
        let version = parse(&format!("{field}.version"), &asked.version)?;
        Ok((version, parse(&format!("{field}.endpoint"), &asked.endpoint)?))
    };
    if let Some(asked) = &edit.put_version {
        let protocol = asked.protocol.as_deref();
        commands.push(put_version(service.clone(), &asked.version, &asked.endpoints, protocol)?);
    }
    if let Some(version) = &edit.remove_version {
        let version = parse("remove_version", version)?;
        commands.push(Command::RemoveVersion { service: service.clone(), version });
    }
    if let Some(asked) = &edit.put_endpoint {
        let (version, endpoint) = address("put_endpoint", asked)?;
        let said = PutEndpoint { weight: asked.weight, zone: asked.zone.clone() };
        let traits = traits(&said).map_err(|mut problem| {
            let field = problem.field.take().unwrap_or_default();
            problem.at(format!("put_endpoint.{field}"))
        })?;
        commands.push(Command::PutEndpoint { service: service.clone(), version, endpoint, traits });
    }
    if let Some(asked) = &edit.remove_endpoint {
        says_nothing("remove_endpoint", asked)?;
        let (version, endpoint) = address("remove_endpoint", asked)?;
        commands.push(Command::RemoveEndpoint { service: service.clone(), version, endpoint });
    }
    if let Some(asked) = &edit.drain_endpoint {
        says_nothing("drain_endpoint", asked)?;
        let (version, endpoint) = address("drain_endpoint", asked)?;
        commands.push(Command::DrainEndpoint { service: service.clone(), version, endpoint });
    }
    Ok(commands)
}
