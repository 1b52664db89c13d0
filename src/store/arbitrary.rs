//! Any change that the heart could make, for property tests of the stores.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use proptest::prelude::*;

use crate::release::history::Standing;
use crate::release::{
    Actor, ActorKind, Change, ChangeKind, Edit, FileDigest, Previous, Ramp, RampEnd, Ramped, Retired,
    Retirement, ServiceRecord, Steps, Supervise, Timestamp, Trial,
};
use crate::table::{
    BasisPoints, Condition, Conditions, EndpointAddr, EndpointWeight, Epoch, HoldScope, Matching, PoolTraits,
    Protocol, ServiceName, Split, TargetRule, Targeting, Traits, VersionName, VersionSpec,
};

fn version_name() -> impl Strategy<Value = VersionName> {
    "[a-c][A-Z0-9._-]{0,2}".prop_map(|text| text.parse().unwrap())
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    "[s-v]".prop_map(|text| text.parse().unwrap())
}

fn rule() -> impl Strategy<Value = TargetRule> {
    let name = "[a-z][a-z0-9-]{0,6}";
    let matching = prop_oneof![
        Just(Matching::There),
        "[!-~]{0,6}( [!-~]{1,4})?".prop_map(|value| Matching::Is(value.into())),
        "[!-~é]{1,6}".prop_map(|value| Matching::Starts(value.into())),
    ];
    let named = (0..3u8, name, matching).prop_map(|(what, name, matching)| match what {
        0 => Condition::Header(name.into(), matching),
        1 => Condition::Cookie(name.into(), matching),
        _ => Condition::Query(name.into(), matching),
    });
    let client = prop::collection::vec((any::<u128>(), any::<bool>(), 0..=32u8), 1..3).prop_map(|all| {
        let network = |(bits, is_v6, length)| -> IpNet {
            let address = if is_v6 {
                format!("{}/{length}", Ipv6Addr::from_bits(bits))
            } else {
                format!("10.2.3.4/{length}")
            };
            address.parse().unwrap()
        };
        Condition::Client(all.into_iter().map(network).collect())
    });
    let host = "(\\*\\.)?[a-z]{1,5}\\.test".prop_map(|host| Condition::Host(host.parse().unwrap()));
    let conditions = prop::collection::vec(prop_oneof![3 => named, 1 => client, 1 => host], 1..4);
    (conditions, version_name()).prop_filter_map("no two about the same", |(all, to)| {
        Some(TargetRule { when: Conditions::new(all).ok()?, to })
    })
}

/// Any split, with rules or without.
fn split() -> impl Strategy<Value = Split> {
    let rules = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(rule(), 1..4)];
    (weights(), rules).prop_map(|(split, rules)| split.targeting(Targeting::new(rules).unwrap()))
}

fn weights() -> impl Strategy<Value = Split> {
    (version_name(), version_name(), 0u64..=10_000).prop_map(|(first, second, points)| {
        if first == second {
            return Split::all_to(first);
        }
        let weights = [(first, points), (second, 10_000 - points)];
        Split::new(weights.map(|(name, points)| (name, BasisPoints::new(points).unwrap()))).unwrap()
    })
}

fn endpoint() -> impl Strategy<Value = EndpointAddr> {
    let text =
        "(127\\.0\\.0\\.[1-9]:[1-9][0-9]{0,3}|\\[::1\\]:80|[a-z]{1,5}\\.internal:443|unix:/run/[a-z ]{1,4})";
    text.prop_map(|text| text.parse().unwrap())
}

fn traits() -> impl Strategy<Value = PoolTraits> {
    let weight = (1..=1000u64).prop_map(|weight| EndpointWeight::new(weight).unwrap());
    let zone = prop::option::of("[a-c]").prop_map(|zone| zone.map(|zone| zone.parse().unwrap()));
    let traits = (weight, zone).prop_map(|(weight, zone)| Traits { weight, zone });
    prop::collection::vec((endpoint(), traits), 0..3).prop_map(|all| all.into_iter().collect())
}

fn version() -> impl Strategy<Value = VersionSpec> {
    let lists = [0..3, 0..2].map(|size| prop::collection::vec(endpoint(), size));
    (version_name(), lists, traits()).prop_map(|(name, [endpoints, draining], traits)| VersionSpec {
        name,
        endpoints: endpoints.into(),
        protocol: Protocol::Http1,
        tls: None,
        proxy_header: None,
        draining: draining.into(),
        traits,
        pool: None,
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (version(), prop::option::of(version())).prop_map(|(version, over)| Edit::Is { version, over }),
        version().prop_map(|over| Edit::Removed { over }),
    ]
}

fn trial() -> impl Strategy<Value = Trial> {
    let until = prop::option::of((0..1u64 << 62, prop::option::of(0..1u64 << 40)));
    let times = (1..1u64 << 62, any::<u32>(), until);
    let terms = (any::<bool>(), any::<bool>(), any::<bool>(), scope());
    (times, version_name(), version_name(), split(), terms).prop_map(
        |((stage, generation, until), baseline, candidate, asked, (is_suspect, acts, by_file, exclusive))| {
            Trial {
                stage: Epoch(stage),
                generation,
                stable: if acts { baseline.clone() } else { candidate.clone() },
                baseline,
                candidate,
                asked,
                is_suspect,
                acts,
                by_file,
                exclusive,
                until: until.map(|(until, _)| Timestamp(until)),
                lasts: until.and_then(|(_, lasts)| lasts).map(Duration::from_millis),
            }
        },
    )
}

fn previous() -> impl Strategy<Value = Previous> {
    (version_name(), split(), scope()).prop_map(|(stable, split, exclusive)| Previous {
        stable,
        split,
        exclusive,
    })
}

fn ramp() -> impl Strategy<Value = Ramp> {
    let steps = prop::collection::btree_set(1u64..=10_000, 2..6);
    let steps =
        steps.prop_map(|all| all.into_iter().map(|points| BasisPoints::new(points).unwrap()).collect());
    let times = (prop::option::of(0..1u64 << 40), prop::option::of(0..1u64 << 62), 0..1u64 << 40);
    let period = prop::option::of((0..1u64 << 40).prop_map(Duration::from_millis));
    let wish =
        prop_oneof![Just(Supervise::AsConfigured), Just(Supervise::No), period.prop_map(Supervise::For)];
    let who = (0..ActorKind::ALL.len(), ".{0,8}", ".{0,12}");
    (1..1u64 << 62, version_name(), previous(), steps, times, any::<bool>(), wish, who).prop_map(
        |(begun, to, before, steps, (every, until, lasts), is_frozen, supervise, (actor, name, reason))| {
            Ramp {
                begun: Epoch(begun),
                to,
                before,
                step: Vec::len(&steps) - 2,
                steps: Steps::new(steps).unwrap(),
                every: every.map(Duration::from_millis),
                until: until.map(Timestamp),
                lasts: Duration::from_millis(lasts),
                is_frozen,
                supervise,
                actor: Actor { kind: ActorKind::ALL[actor], name },
                reason,
            }
        },
    )
}

fn ramped() -> impl Strategy<Value = Ramped> {
    (1..1u64 << 62, version_name(), 1u64..=10_000, 0..RampEnd::ALL.len(), 1..1u64 << 62).prop_map(
        |(begun, to, reached, how, epoch)| Ramped {
            begun: Epoch(begun),
            to,
            reached: BasisPoints::new(reached).unwrap(),
            how: RampEnd::ALL[how],
            epoch: Epoch(epoch),
        },
    )
}

fn retirement() -> impl Strategy<Value = Retirement> {
    let split = weights().prop_filter("it is shared", |split| !split.is_whole());
    let times = (0..1u64 << 40, 0..1u64 << 62, 0..1u64 << 40);
    let who = (any::<u64>(), 0..ActorKind::ALL.len(), ".{0,8}", ".{0,12}");
    (1..1u64 << 62, split, times, who).prop_map(
        |(begun, split, (quiet, until, lasts), (users, actor, name, reason))| Retirement {
            begun: Epoch(begun),
            version: split.heaviest().clone(),
            split,
            users,
            quiet: Duration::from_millis(quiet),
            until: Timestamp(until),
            lasts: Duration::from_millis(lasts),
            actor: Actor { kind: ActorKind::ALL[actor], name },
            reason,
        },
    )
}

fn retired() -> impl Strategy<Value = Retired> {
    (1..1u64 << 62, version_name(), 0..RampEnd::ALL.len(), 1..1u64 << 62).prop_map(
        |(begun, version, how, epoch)| Retired {
            begun: Epoch(begun),
            version,
            how: RampEnd::ALL[how],
            epoch: Epoch(epoch),
        },
    )
}

fn scope() -> impl Strategy<Value = Option<HoldScope>> {
    prop::option::of(prop_oneof![Just(HoldScope::All), Just(HoldScope::Writes)])
}

fn standing() -> impl Strategy<Value = Standing> {
    let edits = prop::collection::btree_map(version_name(), edit(), 0..3);
    let found = prop::collection::vec(endpoint(), 0..3).prop_map(Arc::from);
    let discovered = prop::collection::btree_map(version_name(), found, 0..2);
    let ways = (prop::option::of(previous()), prop::option::of(trial()));
    let ramps = (prop::option::of(ramp()), prop::option::of(ramped()));
    let over = prop::option::of(version_name());
    let retired = (prop::option::of(retirement()), prop::option::of(retired()), over);
    let ramps = (ramps, retired);
    (version_name(), split(), ways, ramps, edits, discovered, any::<(u32, u64)>()).prop_map(
        |(
            stable,
            split,
            (previous, trial),
            ((ramp, ramped), (retirement, retired, mirror_over)),
            edits,
            discovered,
            (form, hash),
        )| Standing {
            stable,
            split,
            previous,
            trial,
            ramp,
            ramped,
            retirement,
            retired,
            mirror_over,
            edits,
            discovered,
            file_digest: FileDigest { form, hash },
        },
    )
}

/// Any change, at any epoch from 1 on; its records carry its epoch.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let records = prop::collection::btree_map(service_name(), prop::option::of(standing()), 0..4);
    let actor = (0..ActorKind::ALL.len(), ".{0,8}");
    let words = (".{0,12}", ".{0,12}");
    (1..1u64 << 62, 0..1u64 << 62, 0..ChangeKind::ALL.len(), actor, words, records).prop_map(
        |(epoch, at, kind, (actor, name), (reason, summary), records)| Change {
            epoch: Epoch(epoch),
            at: Timestamp(at),
            kind: ChangeKind::ALL[kind],
            actor: Actor { kind: ActorKind::ALL[actor], name },
            reason,
            summary,
            services: records_at(Epoch(epoch), records),
        },
    )
}

fn records_at(epoch: Epoch, records: BTreeMap<ServiceName, Option<Standing>>) -> Vec<ServiceRecord> {
    records.into_iter().map(|(service, standing)| ServiceRecord { service, epoch, standing }).collect()
}

/// A history without gaps: changes of the epochs 1, 2, 3, …
pub(crate) fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..most).prop_map(|mut changes| {
        for (change, epoch) in changes.iter_mut().zip(1..) {
            change.epoch = Epoch(epoch);
            change.services.iter_mut().for_each(|record| record.epoch = Epoch(epoch));
        }
        changes
    })
}
