//! The disk form of a change: types of their own, so that a rename in the heart never changes what was written.
//!
//! JSON text; fields that this build does not know are skipped on reading, fields that are missing are an error.
//! Every store that keeps text uses it.

mod ramp;
mod retire;
#[cfg(test)]
mod tests;
mod traits;
mod trial;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::release::history::Standing;
use crate::release::{Actor, ActorKind, Change, ChangeKind, Timestamp};
use crate::release::{Discovered, Edit, FileDigest, Previous, Ramp, Ramped, ServiceRecord, Trial};
use crate::release::{Retired, Retirement};
use crate::table::{
    BasisPoints, EndpointAddr, Epoch, HoldScope, Invalid, Protocol, Split, Targeting, VersionName,
    VersionSpec,
};
use ramp::{RampForm, RampedForm};
use retire::{RetiredForm, RetirementForm};
use traits::TraitsForm;
use trial::{ScopeForm, TrialForm};

/// A [`Change`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeForm {
    epoch: u64,
    at_ms: u64,
    kind: String,
    actor: ActorForm,
    reason: String,
    summary: String,
    services: Vec<RecordForm>,
}

/// An [`Actor`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorForm {
    kind: String,
    name: String,
}

/// A [`ServiceRecord`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordForm {
    service: String,
    epoch: u64,
    standing: Option<StandingForm>,
}

/// A [`Standing`] as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingForm {
    stable: String,
    weights: Weights,
    /// The targeting rules as people type them; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    previous: Option<PreviousForm>,
    /// The comparison under way; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<TrialForm>,
    /// The ramp under way, and how the last one ended; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramp: Option<RampForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ramped: Option<RampedForm>,
    /// The retirement under way, and how the last one ended; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retirement: Option<RetirementForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retired: Option<RetiredForm>,
    /// The version for which the mirror is over; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror_over: Option<String>,
    edits: BTreeMap<String, EditForm>,
    /// Endpoints that were found; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    discovered: BTreeMap<String, Vec<String>>,
    /// Hexadecimal: not every reader of JSON has whole numbers of 64 bits.
    file_digest: String,
    /// Records of earlier builds do not tell.
    #[serde(default)]
    digest_form: u32,
}

/// Basis points by version.
type Weights = BTreeMap<String, u16>;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PreviousForm {
    stable: String,
    weights: Weights,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rules: Vec<String>,
    /// Records of earlier builds do not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exclusive: Option<ScopeForm>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum EditForm {
    Is { version: VersionForm, over: Option<VersionForm> },
    Removed { over: VersionForm },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct VersionForm {
    name: String,
    endpoints: Vec<String>,
    protocol: ProtocolForm,
    /// Endpoints that get no new requests; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    draining: Vec<String>,
    /// By address; records of earlier builds have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    traits: BTreeMap<String, TraitsForm>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ProtocolForm {
    Http1,
    Https,
    H2c,
    H2,
}

/// The text of a form.
///
/// # Errors
/// [`StoreError::Io`]; none of the forms can cause it.
pub fn to_text(form: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(form).map_err(|error| StoreError::Io(format!("cannot write a record: {error}")))
}

/// Reads a form, and from it the heart's value.
///
/// # Errors
/// [`StoreError::Corrupt`] when it is not what was written; `place` says which record.
pub fn from_text<'t, F, T>(text: &'t str, place: impl FnOnce() -> String) -> Result<T, StoreError>
where
    F: Deserialize<'t>,
    T: TryFrom<F, Error = Invalid>,
{
    let form: Result<F, _> = serde_json::from_str(text);
    let value =
        form.map_err(|error| error.to_string()).and_then(|form| T::try_from(form).map_err(|why| why.0));
    value.map_err(|why| StoreError::Corrupt(format!("{}: {why}", place())))
}

/// The sort of change with this token.
///
/// # Errors
/// [`Invalid`] when there is none.
pub fn change_kind(token: &str) -> Result<ChangeKind, Invalid> {
    let found = ChangeKind::ALL.into_iter().find(|kind| kind.token() == token);
    found.ok_or_else(|| Invalid(format!("`{token}` is no kind of change")))
}

/// The sort of actor with this token.
///
/// # Errors
/// [`Invalid`] when there is none.
pub fn actor_kind(token: &str) -> Result<ActorKind, Invalid> {
    let found = ActorKind::ALL.into_iter().find(|kind| kind.token() == token);
    found.ok_or_else(|| Invalid(format!("`{token}` is no kind of actor")))
}

impl From<&Change> for ChangeForm {
    fn from(change: &Change) -> Self {
        Self {
            epoch: change.epoch.0,
            at_ms: change.at.0,
            kind: change.kind.token().to_owned(),
            actor: ActorForm { kind: change.actor.kind.token().to_owned(), name: change.actor.name.clone() },
            reason: change.reason.clone(),
            summary: change.summary.clone(),
            services: change.services.iter().map(RecordForm::from).collect(),
        }
    }
}

impl TryFrom<ChangeForm> for Change {
    type Error = Invalid;
    fn try_from(form: ChangeForm) -> Result<Self, Invalid> {
        Ok(Self {
            epoch: Epoch(form.epoch),
            at: Timestamp(form.at_ms),
            kind: change_kind(&form.kind)?,
            actor: Actor { kind: actor_kind(&form.actor.kind)?, name: form.actor.name },
            reason: form.reason,
            summary: form.summary,
            services: form.services.into_iter().map(ServiceRecord::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&ServiceRecord> for RecordForm {
    fn from(record: &ServiceRecord) -> Self {
        let standing = record.standing.as_ref().map(StandingForm::from);
        Self { service: record.service.to_string(), epoch: record.epoch.0, standing }
    }
}

impl TryFrom<RecordForm> for ServiceRecord {
    type Error = Invalid;
    fn try_from(form: RecordForm) -> Result<Self, Invalid> {
        let standing = form.standing.map(Standing::try_from).transpose()?;
        Ok(Self { service: form.service.parse()?, epoch: Epoch(form.epoch), standing })
    }
}

impl From<&Standing> for StandingForm {
    fn from(standing: &Standing) -> Self {
        let edits = standing.edits.iter();
        Self {
            stable: standing.stable.to_string(),
            weights: weights(&standing.split),
            rules: rules(&standing.split),
            previous: standing.previous.as_ref().map(PreviousForm::from),
            trial: standing.trial.as_ref().map(TrialForm::from),
            ramp: standing.ramp.as_ref().map(RampForm::from),
            ramped: standing.ramped.as_ref().map(RampedForm::from),
            retirement: standing.retirement.as_ref().map(RetirementForm::from),
            retired: standing.retired.as_ref().map(RetiredForm::from),
            mirror_over: standing.mirror_over.as_ref().map(ToString::to_string),
            edits: edits.map(|(version, edit)| (version.to_string(), EditForm::from(edit))).collect(),
            discovered: found(&standing.discovered),
            file_digest: format!("{:016x}", standing.file_digest.hash),
            digest_form: standing.file_digest.form,
        }
    }
}

impl TryFrom<StandingForm> for Standing {
    type Error = Invalid;
    fn try_from(form: StandingForm) -> Result<Self, Invalid> {
        let hash = u64::from_str_radix(&form.file_digest, 16);
        let edits = form.edits.into_iter().map(|(name, edit)| Ok((name.parse()?, Edit::try_from(edit)?)));
        Ok(Self {
            stable: form.stable.parse()?,
            split: ruled(form.weights, &form.rules)?,
            previous: form.previous.map(Previous::try_from).transpose()?,
            trial: form.trial.map(Trial::try_from).transpose()?,
            ramp: form.ramp.map(Ramp::try_from).transpose()?,
            ramped: form.ramped.map(Ramped::try_from).transpose()?,
            retirement: form.retirement.map(Retirement::try_from).transpose()?,
            retired: form.retired.map(Retired::try_from).transpose()?,
            mirror_over: form.mirror_over.map(|version| version.parse()).transpose()?,
            edits: edits.collect::<Result<_, Invalid>>()?,
            discovered: discovered(form.discovered)?,
            file_digest: FileDigest {
                form: form.digest_form,
                hash: hash.map_err(|_| Invalid(format!("`{}` is not a digest", form.file_digest)))?,
            },
        })
    }
}

fn found(discovered: &Discovered) -> BTreeMap<String, Vec<String>> {
    let texts = |found: &[EndpointAddr]| found.iter().map(ToString::to_string).collect();
    discovered.iter().map(|(version, found)| (version.to_string(), texts(found))).collect()
}

fn discovered(form: BTreeMap<String, Vec<String>>) -> Result<Discovered, Invalid> {
    let endpoints =
        |texts: Vec<String>| texts.iter().map(|text| text.parse()).collect::<Result<_, Invalid>>();
    form.into_iter().map(|(version, texts)| Ok((version.parse()?, endpoints(texts)?))).collect()
}

fn weights(split: &Split) -> Weights {
    split.shares().map(|(version, weight)| (version.to_string(), weight.points())).collect()
}

fn split(weights: Weights) -> Result<Split, Invalid> {
    let share = |(version, points): (String, u16)| {
        Ok((version.parse::<VersionName>()?, BasisPoints::new(u64::from(points))?))
    };
    Split::new(weights.into_iter().map(share).collect::<Result<Vec<_>, Invalid>>()?)
}

fn rules(split: &Split) -> Vec<String> {
    split.rules().rules().iter().map(ToString::to_string).collect()
}

fn ruled(weights: Weights, rules: &[String]) -> Result<Split, Invalid> {
    let rules = rules.iter().map(|rule| rule.parse()).collect::<Result<_, Invalid>>()?;
    Ok(split(weights)?.targeting(Targeting::new(rules)?))
}

impl From<&Previous> for PreviousForm {
    fn from(previous: &Previous) -> Self {
        let (stable, weights) = (previous.stable.to_string(), weights(&previous.split));
        Self {
            stable,
            weights,
            rules: rules(&previous.split),
            exclusive: previous.exclusive.map(ScopeForm::from),
        }
    }
}

impl TryFrom<PreviousForm> for Previous {
    type Error = Invalid;
    fn try_from(form: PreviousForm) -> Result<Self, Invalid> {
        let (stable, split) = (form.stable.parse()?, ruled(form.weights, &form.rules)?);
        Ok(Self { stable, split, exclusive: form.exclusive.map(HoldScope::from) })
    }
}

impl From<&Edit> for EditForm {
    fn from(edit: &Edit) -> Self {
        match edit {
            Edit::Is { version, over } => {
                Self::Is { version: version.into(), over: over.as_ref().map(VersionForm::from) }
            }
            Edit::Removed { over } => Self::Removed { over: over.into() },
        }
    }
}

impl TryFrom<EditForm> for Edit {
    type Error = Invalid;
    fn try_from(form: EditForm) -> Result<Self, Invalid> {
        Ok(match form {
            EditForm::Is { version, over } => {
                Self::Is { version: version.try_into()?, over: over.map(VersionSpec::try_from).transpose()? }
            }
            EditForm::Removed { over } => Self::Removed { over: over.try_into()? },
        })
    }
}

impl From<&VersionSpec> for VersionForm {
    fn from(version: &VersionSpec) -> Self {
        Self {
            name: version.name.to_string(),
            endpoints: version.endpoints.iter().map(ToString::to_string).collect(),
            protocol: match version.protocol {
                Protocol::Http1 => ProtocolForm::Http1,
                Protocol::Https => ProtocolForm::Https,
                Protocol::H2c => ProtocolForm::H2c,
                Protocol::H2 => ProtocolForm::H2,
            },
            draining: version.draining.iter().map(ToString::to_string).collect(),
            traits: version.traits.iter().map(|(at, traits)| (at.to_string(), traits.into())).collect(),
        }
    }
}

impl TryFrom<VersionForm> for VersionSpec {
    type Error = Invalid;
    fn try_from(form: VersionForm) -> Result<Self, Invalid> {
        Ok(Self {
            name: form.name.parse()?,
            endpoints: form.endpoints.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            protocol: match form.protocol {
                ProtocolForm::Http1 => Protocol::Http1,
                ProtocolForm::Https => Protocol::Https,
                ProtocolForm::H2c => Protocol::H2c,
                ProtocolForm::H2 => Protocol::H2,
            },
            // Of the file's versions the file says it again.
            tls: None,
            proxy_header: None,
            pool: None,
            draining: form.draining.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            traits: (form.traits.into_iter())
                .map(|(at, traits)| Ok((at.parse()?, traits.try_into()?)))
                .collect::<Result<_, Invalid>>()?,
        })
    }
}
