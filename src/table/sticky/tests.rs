//! Shares, and who moves: of many users, and for ever.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::table::BasisPoints;

const NAMES: [&str; 4] = ["blue", "green", "v3", "v4"];
/// One client each.
const KEYS: u32 = 20_000;

fn split(weights: &[u64]) -> Split {
    let shares = NAMES.iter().zip(weights);
    Split::new(shares.map(|(name, points)| (name.parse().unwrap(), BasisPoints::new(*points).unwrap())))
        .unwrap()
}

fn rules(salt: &str) -> StickyRules {
    StickyRules { by: StickyBy::Client, salt: salt.into() }
}

fn sticky(salt: &str, weights: &[u64]) -> Sticky {
    let names = NAMES.map(|name| name.parse().unwrap());
    Sticky::new(&rules(salt), &split(weights), names[..weights.len()].iter())
}

/// Which version each of so many clients has.
fn assigned(sticky: &Sticky, clients: std::ops::Range<u32>) -> Vec<usize> {
    let version = |client: u32| {
        let key = sticky.key(format!("user-{client}").as_bytes()).unwrap();
        sticky.assign(key).unwrap()
    };
    clients.map(version).collect()
}

/// Weights that sum to 10,000.
fn weights(versions: usize) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(0u64..=10_000, versions - 1).prop_map(|mut bounds| {
        bounds.sort_unstable();
        bounds.push(10_000);
        let mut from = 0;
        bounds.into_iter().map(|bound| bound - std::mem::replace(&mut from, bound)).collect()
    })
}

/// Fails when so many of `all` are not what a probability of `points` gives, five standard deviations around.
fn is_share(count: usize, all: usize, points: u64) {
    let (p, n) = (points as f64 / 1e4, all as f64);
    let (expected, deviation) = (n * p, (n * p * (1.0 - p)).sqrt());
    assert!((count as f64 - expected).abs() <= 5.0 * deviation + 1.0, "{count} of {all} at {points} points");
}

#[test]
fn a_version_gets_its_weight_of_the_clients() {
    // Of the small ones more, so that there are some.
    for (green, clients) in [(1, 400_000), (10, 200_000), (500, 50_000), (5_000, 50_000), (9_999, 400_000)] {
        let found = assigned(&sticky("shop", &[10_000 - green, green]), 0..clients);
        is_share(found.iter().filter(|version| **version == 1).count(), found.len(), green);
    }
    let three = [100, 2_400, 7_500];
    let found = assigned(&sticky("shop", &three), 0..100_000);
    for (version, points) in three.into_iter().enumerate() {
        is_share(found.iter().filter(|other| **other == version).count(), found.len(), points);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn shares_are_weights_whatever_they_are(weights in weights(4), salt: u32) {
        let found = assigned(&sticky(&salt.to_string(), &weights), 0..KEYS);
        for (version, points) in weights.into_iter().enumerate() {
            let count = found.iter().filter(|other| **other == version).count();
            if points == 0 {
                prop_assert_eq!(count, 0);
            }
            is_share(count, found.len(), points);
        }
    }

    /// Of two: who moves is who has to, and nobody else.
    #[test]
    fn of_two_only_those_move_who_have_to(one in 0u64..=10_000, other in 0u64..=10_000) {
        let (low, high) = (one.min(other), one.max(other));
        let [before, after] = [low, high].map(|green| assigned(&sticky("shop", &[10_000 - green, green]), 0..KEYS));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
        let moved = moved.inspect(|pair| assert_eq!(*pair, (&0, &1))).count();
        is_share(moved, KEYS as usize, high - low);
    }

    /// Of any number: where one rises and no other does, none moves away from it.
    #[test]
    fn a_version_that_rises_loses_nobody(before in weights(4), risen in 0usize..4, parts in prop::collection::vec(0u64..=100, 4)) {
        let mut after = before.clone();
        for (version, part) in parts.into_iter().enumerate().filter(|(version, _)| *version != risen) {
            let less = after[version] * part / 100;
            after[version] -= less;
            after[risen] += less;
        }
        let [old, new] = [&before, &after].map(|weights| assigned(&sticky("shop", weights), 0..KEYS / 4));
        for (old, new) in old.iter().zip(&new) {
            prop_assert!(*old != risen || *new == risen, "{before:?} {after:?}");
        }
        // And back: the same ones.
        prop_assert_eq!(assigned(&sticky("shop", &before), 0..KEYS / 4), old);
    }

    #[test]
    fn as_many_move_as_is_told(before in weights(3), after in weights(3)) {
        let [old, new] = [&before, &after].map(|weights| assigned(&sticky("shop", weights), 0..KEYS));
        let count = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        let told = moved(&split(&before), &split(&after));
        let deviation = (f64::from(KEYS) * told * (1.0 - told)).sqrt();
        prop_assert!((count as f64 - f64::from(KEYS) * told).abs() <= 5.0 * deviation + 1.0, "{count}, told {told}");
    }
}

#[test]
fn a_canary_that_grows_keeps_who_it_has_and_a_revert_brings_the_same_ones_back() {
    let on_green = |green: u64| -> HashSet<usize> {
        let found = assigned(&sticky("shop", &[10_000 - green, green]), 0..KEYS);
        (0..KEYS as usize).filter(|client| found[*client] == 1).collect()
    };
    let steps = [0, 100, 500, 2_500, 10_000].map(on_green);
    assert!(steps.windows(2).all(|pair| pair[0].is_subset(&pair[1])));
    assert_eq!((steps[0].len(), steps[4].len()), (0, KEYS as usize));
    assert_eq!(steps[2], on_green(500));
}

#[test]
fn other_salts_and_other_keys_say_nothing_of_one_another() {
    // At the half each: as often the same as not.
    let [shop, cart] = ["shop", "cart"].map(|salt| assigned(&sticky(salt, &[5_000, 5_000]), 0..50_000));
    is_share(shop.iter().zip(&cart).filter(|(shop, cart)| shop == cart).count(), shop.len(), 5_000);
    is_share(shop.windows(2).filter(|pair| pair[0] == pair[1]).count(), shop.len() - 1, 5_000);
    // Nor does one version's lot of another's: a third one that comes takes from both what they have.
    let three = assigned(&sticky("shop", &[4_000, 4_000, 2_000]), 0..50_000);
    for version in [0, 1] {
        let had = shop.iter().zip(&three).filter(|(before, _)| **before == version);
        let (all, lost) = had.fold((0, 0), |(all, lost), (_, now)| (all + 1, lost + usize::from(*now == 2)));
        is_share(lost, all, 2_000);
    }
}

/// Were one of these to change, every user would move with the next upgrade.
#[test]
fn keys_and_lots_are_for_ever() {
    let sticky = sticky("shop", &[5_000, 5_000]);
    let key = sticky.key(b"user-1").unwrap();
    let lots: Vec<_> = sticky.contenders.iter().map(|contender| lot(key, contender.mark).to_bits()).collect();
    // Computed apart from all this, by the paper (Aumasson and Bernstein, 2012).
    assert_eq!(
        (key.bits(), lots),
        (14_512_093_946_371_751_468, vec![4_575_658_547_714_539_072, 4_585_006_209_500_958_224])
    );
    assert_eq!(libm::log(0.3).to_bits(), 13_831_473_067_500_349_217);
    let of_users = [0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0];
    assert_eq!(assigned(&sticky, 0..24), of_users);
    let of_client = |address: &str| sticky.key_of_client(address.parse().unwrap()).bits();
    assert_eq!(of_client("192.0.2.1"), 18_097_243_911_472_019_481);
    assert_eq!(of_client("2001:db8::1"), 9_770_950_772_942_875_270);
}

#[test]
fn the_order_of_versions_and_those_without_weight_decide_nothing() {
    let names: Vec<VersionName> = ["v4", "green", "blue"].map(|name| name.parse().unwrap()).to_vec();
    let other = Sticky::new(&rules("shop"), &split(&[4_000, 6_000]), names.iter());
    let named = |sticky: &Sticky, names: &[&str]| -> Vec<String> {
        assigned(sticky, 0..500).into_iter().map(|version| names[version].to_owned()).collect()
    };
    let one = sticky("shop", &[4_000, 6_000]);
    assert_eq!(named(&one, &NAMES), named(&other, &["v4", "green", "blue"]));
}

#[test]
fn nothing_is_no_key_and_one_ipv6_network_is_one_client() {
    let sticky = sticky("shop", &[5_000, 5_000]);
    assert_eq!(sticky.key(b""), None);
    assert_ne!(sticky.key(b"a"), sticky.key(b"\"a\""));
    let key = |address: &str| sticky.key_of_client(address.parse().unwrap());
    assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
}

#[test]
fn moved_is_what_has_to_move() {
    let told = |before: &[u64], after: &[u64]| moved(&split(before), &split(after));
    assert!((told(&[9_900, 100], &[9_500, 500]) - 0.04).abs() < 1e-12);
    assert_eq!((told(&[10_000, 0], &[0, 10_000]), told(&[9_500, 500], &[9_500, 500])), (1.0, 0.0));
    assert!((told(&[5_000, 5_000, 0], &[4_000, 4_000, 2_000]) - 0.2).abs() < 1e-12);
}

proptest! {
    /// Who is new has no id of the version that is closed, by the weights then, nor while it has less; and where he comes to is where he stays.
    #[test]
    fn who_is_new_comes_to_where_he_stays(seed: u64, green in 1u64..=9_999, less in 0u64..=9_999, third in 0u64..=5_000) {
        let names = ["blue", "green", "v3"].map(|name| name.parse::<VersionName>().unwrap());
        let of = |green: u64, third: u64| {
            let points = |points| BasisPoints::new(points).unwrap();
            let third = third.min(10_000 - green);
            let weights = [10_000 - green - third, green, third].map(points);
            Split::new(names.iter().cloned().zip(weights)).unwrap()
        };
        let rules = StickyRules { by: StickyBy::Client, salt: "shop".into() };
        let then = of(green, third);
        let sticky = |split: &Split| Sticky::new(&rules, split, names.iter());
        let open = sticky(&then);
        let closing = sticky(&then).turning_away(&names[1], &then, names.iter());
        prop_assert_eq!((open.turns_away(), closing.closed()), (false, Some(1)));
        // As supervision leans back, and as it ends.
        let leaning = sticky(&of(less.min(green), 0)).turning_away(&names[1], &of(green, 0), names.iter());
        let over = sticky(&then.giving(&names[1], BasisPoints::NONE, &names[0]));
        for draw in 0u64..64 {
            let key = open.key(&(seed ^ draw << 32).to_be_bytes()).unwrap();
            prop_assert_eq!(closing.assign(key), open.assign(key), "who is there stays");
            prop_assert_eq!(closing.is_closed_to(key), open.assign(key) == Some(1));
            prop_assert_ne!(closing.assign_new(key), Some(1));
            if !closing.is_closed_to(key) {
                prop_assert_eq!(closing.assign_new(key), open.assign(key), "and so does who has come since");
            }
            if !leaning.is_closed_to(key) {
                prop_assert_eq!((leaning.assign_new(key), leaning.assign(key)), (Some(0), Some(0)));
            }
            if third == 0 {
                prop_assert_eq!(over.assign(key), Some(0));
            }
            prop_assert!(!open.is_closed_to(key) && open.assign_new(key) == open.assign(key));
        }
    }
}
