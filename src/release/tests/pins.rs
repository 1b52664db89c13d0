//! Where a pin leads: to whom others get, and to nobody who is suspect or retired.

use std::sync::Arc;

use super::retire::minted;
use super::world::*;
use crate::release::{Act, Command, RampOrder, State};
use crate::table::{Epoch, Pin, Pinnable, ServiceSpec, SuperviseMode, SuperviseRules, VersionSpec};

const BETA: &str = "header x-beta=yes -> green";

/// The versions of `shop` that pins lead to.
fn leads(state: &State) -> Vec<&str> {
    let shop = state.table.service(&service("shop")).unwrap();
    let names = shop.versions.iter().map(|version: &VersionSpec| &version.name);
    names.filter(|name| shop.takes_pins(name) == Pinnable::Yes).map(|name| name.as_str()).collect()
}

/// What becomes of this pin at `shop`.
fn pinned(state: &State, pin: &str) -> Option<(usize, Pinnable)> {
    state.table.service(&service("shop")).unwrap().pinned(&Pin::read(pin.as_bytes()).unwrap())
}

fn supervised_by(mode: SuperviseMode) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].supervise = Some(Arc::new(SuperviseRules { mode, ..SuperviseRules::default() }));
    file
}

fn act(state: &State, act: Act) -> State {
    let stage = state.deployment(&service("shop")).unwrap().trial.as_ref().unwrap().stage;
    after(state, [supervise("shop", stage, act)])
}

#[test]
fn a_pin_leads_where_a_weight_or_a_rule_does() {
    let state = start(the_file());
    assert_eq!(leads(&state), ["blue"]);
    assert_eq!(pinned(&state, "green"), Some((1, Pinnable::Idle)));
    assert_eq!(pinned(&state, "shop:green/blue"), Some((1, Pinnable::Idle)));
    assert_eq!(pinned(&state, "v42/cart:two"), None);
    assert_eq!(pinned(&state, "shop:v42/blue"), None, "what is meant is not there");
    let state = after(&state, [set_rules("shop", &[BETA])]);
    assert_eq!((leads(&state), pinned(&state, "green")), (vec!["blue", "green"], Some((1, Pinnable::Yes))));
    let state = after(&state, [weights("shop", &[("green", "0.01")], Some("blue"))]);
    assert_eq!(leads(&state), ["blue", "green"]);
    let flipped = after(&state, [flip("shop", "green")]);
    assert_eq!(leads(&flipped), ["green"]);
    assert_eq!(leads(&after(&flipped, [revert("shop")])), ["blue", "green"]);
    let ramping = after(&start(the_file()), [begin_ramp("shop", "green", &["1", "100"])]);
    assert_eq!(leads(&ramping), ["blue", "green"]);
    assert_eq!(leads(&after(&ramping, [ramp("shop", RampOrder::Abort)])), ["blue"]);
}

#[test]
fn none_leads_to_who_is_suspect_however_little_that_has() {
    for share in ["50", "5"] {
        let canary = after(
            &start(supervised_by(SuperviseMode::On)),
            [weights("shop", &[("green", share)], Some("blue"))],
        );
        assert_eq!(leads(&canary), ["blue", "green"]);
        let suspect = act(&canary, Act::Lean(weight("10")));
        assert_eq!(
            (leads(&suspect), pinned(&suspect, "green")),
            (vec!["blue"], Some((1, Pinnable::Suspected)))
        );
        assert!(suspect.table.epoch() > canary.table.epoch(), "workers see it by its epoch alone");
        // A process that starts knows it too.
        let command =
            Command::Configure { services: supervised_by(SuperviseMode::On), records: records(&suspect) };
        assert_eq!(leads(&after(&State::at(suspect.table.epoch()), [command])), ["blue"]);
        let restored = act(&suspect, Act::Restore);
        assert_eq!(leads(&restored), ["blue", "green"]);
        assert!(restored.table.epoch() > suspect.table.epoch());
        assert_eq!(leads(&act(&suspect, Act::Convict)), ["blue"]);
        // Who only tells keeps nobody away.
        let told = after(&suspect, [configure(supervised_by(SuperviseMode::Alert))]);
        assert_eq!(leads(&told), ["blue", "green"]);
        assert!(told.table.epoch() > suspect.table.epoch());
    }
}

#[test]
fn none_leads_to_who_is_retired() {
    let canary = after(&start(minted()), [weights("shop", &[("green", "25")], Some("blue"))]);
    let retire = ramp("shop", RampOrder::Retire { quiet: None, lasts: None });
    let retiring = after(&canary, [retire]);
    assert_eq!((leads(&retiring), pinned(&retiring, "green")), (vec!["blue"], Some((1, Pinnable::Retiring))));
    let command = Command::Configure { services: minted(), records: records(&retiring) };
    assert_eq!(leads(&after(&State::at(Epoch(9)), [command])), ["blue"]);
    let weights = weights("shop", &[("green", "30")], Some("blue"));
    assert_eq!(leads(&after(&retiring, [weights])), ["blue", "green"], "that is its end");
}
