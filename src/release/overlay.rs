//! The file says what exists; what is remembered says where the traffic goes: the one laid over the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::deployment::{Deployment, Discovered, Edit, Phase};
use super::digest::FileDigest;
use super::history::Standing;
use super::retire::as_far_as_known;
use crate::table::{
    BasisPoints, EndpointAddr, Epoch, Invalid, Service, ServiceSpec, Split, VersionName, VersionSpec,
};

/// Lays `edits` over the versions of the file: those that still hold, in the file's order, added versions last; what was
/// found joins the pools.
pub(super) fn effective(
    spec: &ServiceSpec,
    edits: &BTreeMap<VersionName, Edit>,
    discovered: &Discovered,
) -> Vec<VersionSpec> {
    let with_found = |version: VersionSpec| match discovered.get(&version.name) {
        Some(found) => {
            let more = found.iter().filter(|endpoint| !version.endpoints.contains(endpoint));
            let endpoints = version.endpoints.iter().chain(more).cloned().collect();
            VersionSpec { endpoints, ..version }
        }
        None => version,
    };
    own(spec, edits).into_iter().map(with_found).collect()
}

/// The same without what was found.
pub(super) fn own(spec: &ServiceSpec, edits: &BTreeMap<VersionName, Edit>) -> Vec<VersionSpec> {
    let of_file = spec.versions.iter().filter_map(|file| match edits.get(&file.name) {
        Some(edit) if edit.holds_over(Some(file)) => match edit {
            // Who is to be believed is the file's to say, and how a pool is worked.
            Edit::Is { version, .. } => Some(VersionSpec {
                tls: file.tls.clone(),
                proxy_header: file.proxy_header,
                pool: file.pool.clone(),
                ..version.clone()
            }),
            Edit::Removed { .. } => None,
        },
        _ => Some(file.clone()),
    });
    let in_file = |name: &VersionName| spec.versions.iter().any(|file| file.name == *name);
    let added = edits.iter().filter_map(|(name, edit)| match edit {
        Edit::Is { version, over: None } if !in_file(name) => Some(version.clone()),
        Edit::Is { .. } | Edit::Removed { .. } => None,
    });
    of_file.chain(added).collect()
}

/// What is found of the versions that `spec` has discovered. One that was not discovered before, or that would have no
/// endpoint now, keeps those that serve it until something is found.
pub(super) fn until_found(
    spec: &ServiceSpec,
    standing: &Standing,
    present: Option<(&Service, &Deployment)>,
) -> Discovered {
    let mut discovered = standing.discovered.clone();
    let Some((service, deployment)) = present else { return discovered };
    let (edits, _) = still_holding(spec, &standing.edits, &standing.discovered);
    let alone = own(spec, &edits);
    for name in spec.discovering.iter().filter(|name| !standing.discovered.contains_key(name)) {
        let kept: Vec<_> =
            service.version(name).into_iter().flat_map(VersionSpec::serving).cloned().collect();
        let is_new = !deployment.spec.discovering.contains(name);
        if !kept.is_empty() && (is_new || !serves(&alone, name)) {
            discovered.insert(name.clone(), kept.into());
        }
    }
    discovered
}

/// The edits that still hold over `spec`, and the names of those that the file has overruled. Of these the drains are left: a file
/// cannot say that somebody is about to stop a machine.
pub(super) fn still_holding(
    spec: &ServiceSpec,
    edits: &BTreeMap<VersionName, Edit>,
    discovered: &Discovered,
) -> (BTreeMap<VersionName, Edit>, Vec<VersionName>) {
    let file = |name: &VersionName| spec.versions.iter().find(|file| file.name == *name);
    let (mut kept, overruled): (BTreeMap<_, _>, BTreeMap<_, _>) =
        edits.clone().into_iter().partition(|(name, edit)| edit.holds_over(file(name)));
    for (name, edit) in &overruled {
        let found = discovered.get(name).map_or(&[][..], |found| found);
        kept.extend(
            file(name).and_then(|file| still_draining(edit, file, found)).map(|edit| (name.clone(), edit)),
        );
    }
    (kept, overruled.into_keys().collect())
}

/// What drained under `edit` and is there still, as an edit of what the file says now; `None` where nobody would be left.
fn still_draining(edit: &Edit, file: &VersionSpec, found: &[EndpointAddr]) -> Option<Edit> {
    let Edit::Is { version, .. } = edit else { return None };
    let there = || file.endpoints.iter().chain(found);
    let draining: Arc<[_]> =
        there().filter(|endpoint| version.draining.contains(endpoint)).cloned().collect();
    let serves = there().any(|endpoint| !draining.contains(endpoint));
    let version = VersionSpec { draining, ..file.clone() };
    (serves && !version.draining.is_empty()).then(|| Edit::Is { version, over: Some(file.clone()) })
}

/// The version that carries a service with this split: `stable` while it has weight, else the heaviest.
pub(super) fn carrier(stable: &VersionName, split: &Split) -> VersionName {
    if split.weight(stable) > BasisPoints::NONE { stable.clone() } else { split.heaviest().clone() }
}

/// A service that nothing is remembered of: as the file says.
///
/// # Errors
/// When the file's weights are not a split.
pub(super) fn initial(spec: &Arc<ServiceSpec>, epoch: Epoch) -> Result<(Service, Deployment), Invalid> {
    let weights = spec.weights.iter();
    let weights = weights.map(|(name, points)| Ok((name.clone(), BasisPoints::new(u64::from(*points))?)));
    let split = Split::new(weights.collect::<Result<Vec<_>, Invalid>>()?)?;
    let split = split.targeting(spec.targeting.clone());
    let stable = carrier(&spec.stable, &split);
    Ok(assemble(spec, BTreeMap::new(), Discovered::new(), stable, split, epoch))
}

/// A service as `standing` remembers it, over what the file says now; without rules to versions that are gone or empty.
///
/// `waits`: of a version that is there, and of which nothing is found that serves, whether traffic goes there nevertheless.
///
/// # Errors
/// The first version that carried traffic then and is gone or empty now.
pub(super) fn restore(
    spec: &Arc<ServiceSpec>,
    standing: &Standing,
    epoch: Epoch,
    waits: impl Fn(&VersionName) -> bool,
) -> Result<(Service, Deployment), VersionName> {
    let standing = &as_far_as_known(spec, standing);
    let (edits, _) = still_holding(spec, &standing.edits, &standing.discovered);
    let versions = effective(spec, &edits, &standing.discovered);
    let gets =
        |name: &VersionName| is_usable(spec, &versions, name) && (serves(&versions, name) || waits(name));
    if let Some((gone, _)) = standing.split.shares().find(|(name, _)| !gets(name)) {
        return Err(gone.clone());
    }
    let stable = carrier(&standing.stable, &standing.split);
    let rules = standing.split.rules().to_those(gets);
    let (found, split) = (standing.discovered.clone(), standing.split.clone().targeting(rules));
    let (service, mut deployment) = assemble(spec, edits, found, stable, split, epoch);
    deployment.previous.clone_from(&standing.previous);
    deployment.trial.clone_from(&standing.trial);
    deployment.ramp.clone_from(&standing.ramp);
    deployment.ramped.clone_from(&standing.ramped);
    deployment.retirement.clone_from(&standing.retirement);
    deployment.retired.clone_from(&standing.retired);
    deployment.mirror_over.clone_from(&standing.mirror_over);
    Ok((service, deployment))
}

/// The remembered service when versions with weight are gone: what they had goes to stable, or to whoever is left.
///
/// # Errors
/// When nothing usable is left and the file's own weights are not a split.
pub(super) fn without_the_gone(
    spec: &Arc<ServiceSpec>,
    standing: &Standing,
    epoch: Epoch,
) -> Result<(Service, Deployment), Invalid> {
    let (edits, _) = still_holding(spec, &standing.edits, &standing.discovered);
    let versions = effective(spec, &edits, &standing.discovered);
    let served = standing.split.shares().map(|(name, _)| name);
    let all = versions.iter().map(|version| &version.name);
    let candidates = [&standing.stable, &spec.stable].into_iter().chain(served).chain(all);
    let Some(heir) = candidates.into_iter().find(|name| is_usable(spec, &versions, name)).cloned() else {
        return initial(spec, epoch);
    };
    let kept = standing.split.shares().filter(|(name, _)| is_usable(spec, &versions, name) && **name != heir);
    let mut weights: Vec<_> = kept.map(|(name, weight)| (name.clone(), weight)).collect();
    let sum: u64 = weights.iter().map(|(_, weight)| u64::from(weight.points())).sum();
    weights.push((heir.clone(), BasisPoints::new(u64::from(BasisPoints::ALL.points()).saturating_sub(sum))?));
    let rules = standing.split.rules().to_those(|version| is_usable(spec, &versions, version));
    let (found, split) = (standing.discovered.clone(), Split::new(weights)?.targeting(rules));
    let (service, mut deployment) = assemble(spec, edits, found, heir, split, epoch);
    // It does not stand without them, and its end is no matter of theirs alone.
    deployment.retirement.clone_from(&standing.retirement);
    deployment.mirror_over.clone_from(&standing.mirror_over);
    Ok((service, deployment))
}

/// True when the version is there and has an endpoint that serves, or will have: it is being looked for.
pub(super) fn is_usable(spec: &ServiceSpec, versions: &[VersionSpec], name: &VersionName) -> bool {
    let is_looked_for =
        spec.discovering.contains(name) && versions.iter().any(|version| version.name == *name);
    is_looked_for || serves(versions, name)
}

/// True when the version is there and has an endpoint that serves.
pub(super) fn serves(versions: &[VersionSpec], name: &VersionName) -> bool {
    versions.iter().any(|version| version.name == *name && version.serving().next().is_some())
}

fn assemble(
    spec: &Arc<ServiceSpec>,
    edits: BTreeMap<VersionName, Edit>,
    discovered: Discovered,
    stable: VersionName,
    split: Split,
    epoch: Epoch,
) -> (Service, Deployment) {
    let phase = Phase::of(&split, Vec::new());
    let service = Service::new(spec, effective(spec, &edits, &discovered), stable, split, epoch);
    let (spec, file_digest) = (Arc::clone(spec), FileDigest::of(spec));
    let (previous, trial) = (None, None);
    let ((ramp, ramped), (retirement, retired)) = Default::default();
    let deployment = Deployment {
        spec,
        file_digest,
        edits,
        discovered,
        phase,
        previous,
        trial,
        ramp,
        ramped,
        retirement,
        retired,
        mirror_over: None,
    };
    (service, deployment)
}
