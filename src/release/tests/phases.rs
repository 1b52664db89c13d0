//! Every phase × event, as an operator would read it: one reviewed table.

use std::sync::Arc;
use std::time::Duration;

use super::world::*;
use crate::release::{Act, Command, Event, Order, Refused, Scopes, State, Supervise, Timestamp, Trial, step};
use crate::table::{Epoch, Hold, HoldScope, Holder, ServiceName, ServiceSpec, VersionName};

/// `shop` in each phase; `cart` stays out of it.
fn phases() -> [(&'static str, State); 13] {
    let steady = start(the_file());
    let canary = after(&steady, [weights("shop", &[("green", "5")], Some("@stable"))]);
    let draining = after(&steady, [flip("shop", "green")]);
    let reverted = after(&draining, [revert("shop")]);
    let held = after(&steady, [hold("shop", HoldScope::All)]);
    let held_twice = after(&held, [hold_by("shop", Holder::Exclusive, HoldScope::All)]);
    let held_canary = after(&canary, [hold("shop", HoldScope::Writes)]);
    let mixed =
        after(&canary, [put("shop", pool("v3", &[9401])), weights("shop", &[("v3", "10")], Some("blue"))]);
    let mut file = the_file();
    file[0].supervise = Some(Arc::default());
    let supervised = start(file);
    let tried = after(&supervised, [flip("shop", "green")]);
    let leaning = after(&tried, [supervise("shop", stage(&tried), Act::Lean(weight("10")))]);
    let ruled = after(&steady, [set_rules("shop", &["header x-beta=yes -> green"])]);
    let ruled_leaning = after(
        &tried,
        [
            set_rules("shop", &["cookie beta -> green", "client 10.0.0.0/8 -> blue"]),
            supervise("shop", stage(&tried), Act::Lean(weight("10"))),
        ],
    );
    let tried_canary = after(&supervised, [weights("shop", &[("green", "10")], Some("blue"))]);
    [
        ("steady on blue", steady),
        ("canary, green 5 %", canary),
        ("draining blue after a flip to green", draining),
        ("draining green after a revert to blue", reverted),
        ("draining green with a canary on v3", mixed),
        ("held on blue", held),
        ("held on blue, and for an exclusive flip", held_twice),
        ("writes held, canary on green", held_canary),
        ("supervised, all on green", tried),
        ("leaning back after a flip to green", leaning),
        ("supervised, canary on green 10 %", tried_canary),
        ("on blue, and a rule leads to green", ruled),
        ("leaning back, with rules to both", ruled_leaning),
    ]
}

/// The file, with `shop` supervised if it is so in this state.
fn file_of(state: &State) -> Vec<ServiceSpec> {
    let mut file = the_file();
    file[0].supervise = state.deployment(&service("shop")).and_then(|shop| shop.spec.supervise.clone());
    file
}

fn stage(state: &State) -> Epoch {
    state.deployment(&service("shop")).and_then(|shop| Some(shop.trial.as_ref()?.stage)).unwrap_or_default()
}

type Named<T> = Vec<(&'static str, T)>;

fn split_commands() -> Named<Command> {
    vec![
        ("flip to blue", flip("shop", "blue")),
        ("flip to green", flip("shop", "green")),
        ("flip to @stable", flip("shop", "@stable")),
        ("flip to @candidate", flip("shop", "@candidate")),
        ("flip to hollow", flip("shop", "hollow")),
        ("flip to nowhere", flip("shop", "nowhere")),
        ("flip of an unknown service", flip("stop", "green")),
        ("revert", revert("shop")),
        ("weights green=5, rest stable", weights("shop", &[("green", "5")], Some("@stable"))),
        ("weights green=50, rest blue", weights("shop", &[("green", "50")], Some("blue"))),
        ("weights green=100, blue=0", weights("shop", &[("green", "100"), ("blue", "0")], None)),
        ("weights green=5", weights("shop", &[("green", "5")], None)),
        ("weights green=60, blue=60", weights("shop", &[("green", "60"), ("blue", "60")], None)),
        (
            "weights over 100 %, rest blue",
            weights("shop", &[("green", "100"), ("hollow", "50")], Some("blue")),
        ),
        ("weights @stable=50, blue=50", weights("shop", &[("@stable", "50"), ("blue", "50")], None)),
        ("weights hollow=5, rest stable", weights("shop", &[("hollow", "5")], Some("@stable"))),
        ("weights nowhere=5, rest stable", weights("shop", &[("nowhere", "5")], Some("@stable"))),
    ]
}

fn rule_commands() -> Named<Command> {
    vec![
        ("rules to green", set_rules("shop", &["header x-beta=yes -> green"])),
        (
            "rules to blue and @candidate",
            set_rules("shop", &["query a -> blue", "host *.test -> @candidate"]),
        ),
        ("no rules", set_rules("shop", &[])),
        ("rules to hollow", set_rules("shop", &["query a -> hollow"])),
        ("rules to nowhere", set_rules("shop", &["query a -> nowhere"])),
    ]
}

fn pool_commands() -> Named<Command> {
    vec![
        ("put v3", put("shop", pool("v3", &[9401]))),
        ("put green as it is", put("shop", pool("green", &[9101]))),
        ("put green elsewhere", put("shop", pool("green", &[9109]))),
        ("put green empty", put("shop", pool("green", &[]))),
        ("put blue empty", put("shop", pool("blue", &[]))),
        ("remove blue", remove("shop", "blue")),
        ("remove green", remove("shop", "green")),
        ("remove hollow", remove("shop", "hollow")),
        ("remove nowhere", remove("shop", "nowhere")),
        ("add an endpoint to green", add_endpoint("shop", "green", 9102)),
        ("add the endpoint that green has", add_endpoint("shop", "green", 9101)),
        ("add an endpoint to @candidate", add_endpoint("shop", "@candidate", 9102)),
        ("remove an endpoint of blue", remove_endpoint("shop", "blue", 9001)),
        ("remove the last endpoint of green", remove_endpoint("shop", "green", 9101)),
        ("drain an endpoint of blue", drain_endpoint("shop", "blue", 9001)),
        ("drain the last endpoint of green", drain_endpoint("shop", "green", 9101)),
        ("drain an endpoint green lacks", drain_endpoint("shop", "green", 9999)),
        ("remove an endpoint green lacks", remove_endpoint("shop", "green", 9999)),
    ]
}

fn hold_commands() -> Named<Command> {
    let short = Command::Hold {
        service: service("shop"),
        holder: Holder::Operator,
        scope: HoldScope::All,
        timeout: Some(Duration::from_millis(500)),
    };
    vec![
        ("hold", hold("shop", HoldScope::All)),
        ("hold writes", hold("shop", HoldScope::Writes)),
        ("hold for half a second", short),
        ("hold of an unknown service", hold("stop", HoldScope::All)),
        ("release", release("shop")),
        ("end of an exclusive hold", release_by("shop", Holder::Exclusive)),
        ("switch to green", switch("shop", "green")),
        ("switch to blue", switch("shop", "blue")),
        ("switch to hollow", switch("shop", "hollow")),
    ]
}

fn batches() -> Named<Command> {
    fn batch<const N: usize>(edits: [Command; N]) -> Command {
        Command::Batch(edits.into())
    }
    let v3 = || put("shop", pool("v3", &[9401]));
    vec![
        ("batch: put v3, flip to v3", batch([v3(), flip("shop", "v3")])),
        ("batch: flip to green, remove blue", batch([flip("shop", "green"), remove("shop", "blue")])),
        ("batch: flip to green, revert", batch([flip("shop", "green"), revert("shop")])),
        ("batch: shop to green, cart to two", batch([flip("shop", "green"), flip("cart", "two")])),
        ("batch: cart to two, shop to hollow", batch([flip("cart", "two"), flip("shop", "hollow")])),
        ("batch of nothing", batch([])),
    ]
}

fn undos(state: &State) -> Named<Command> {
    let undo =
        |to, state: &State| Command::Undo { to: Epoch(to), records: records(state), scopes: Scopes::all() };
    vec![
        ("undo to the start", undo(1, &start(file_of(state)))),
        ("undo to now", undo(state.table.epoch().0, state)),
        ("undo to before it existed", Command::Undo { to: Epoch(0), records: vec![], scopes: Scopes::all() }),
    ]
}

fn supervision(state: &State) -> Named<Command> {
    let act = |act| supervise("shop", stage(state), act);
    let minute = Supervise::For(Some(Duration::from_secs(60)));
    vec![
        ("flip to green, supervised for 1 min", flip_with("shop", "green", minute)),
        ("flip to green, not supervised", flip_with("shop", "green", Supervise::No)),
        ("weights green=10, rest blue", weights("shop", &[("green", "10")], Some("blue"))),
        ("supervision leans back to 10 %", act(Act::Lean(weight("10")))),
        ("supervision restores", act(Act::Restore)),
        ("supervision convicts", act(Act::Convict)),
        ("supervision acquits", act(Act::Acquit)),
        ("supervision convicts, too late", supervise("shop", Epoch(77), Act::Convict)),
    ]
}

fn files(state: &State) -> Named<Command> {
    let edited = |edit: fn(&mut Vec<ServiceSpec>)| {
        let mut file = file_of(state);
        edit(&mut file);
        configure(file)
    };
    vec![
        ("the file again", edited(|_| {})),
        ("the file without green", edited(|file| drop(file[0].versions.remove(1)))),
        ("the file without shop", edited(|file| drop(file.remove(0)))),
        ("the file with green elsewhere", edited(|file| file[0].versions[1] = pool("green", &[9109]))),
        ("the file without supervision", edited(|file| file[0].supervise = None)),
    ]
}

fn guarded(state: &State) -> Named<Event> {
    let if_at = |epoch| match order(flip("shop", "green")) {
        Event::Order(asked) => Event::Order(Order { expected: vec![(service("shop"), epoch)], ..asked }),
        other @ (Event::Drained { .. } | Event::Remains { .. }) => other,
    };
    let present = state.table.service(&service("shop")).unwrap().epoch;
    vec![
        ("flip to green, if at its epoch", if_at(present)),
        ("flip to green, if at epoch 77", if_at(Epoch(77))),
    ]
}

fn drains() -> Named<Event> {
    vec![
        ("drained blue", drained("shop", "blue")),
        ("drained green", drained("shop", "green")),
        ("drained nowhere", drained("shop", "nowhere")),
        ("drained of an unknown service", drained("stop", "blue")),
        ("something remains on blue", remains("shop", "blue")),
        ("something remains on green", remains("shop", "green")),
        ("something remains of an unknown service", remains("stop", "blue")),
    ]
}

fn events(state: &State) -> Named<Event> {
    let commands = [
        split_commands(),
        rule_commands(),
        supervision(state),
        hold_commands(),
        pool_commands(),
        batches(),
        undos(state),
        files(state),
    ];
    let orders = commands.into_iter().flatten().map(|(name, command)| (name, order(command)));
    orders.chain(guarded(state)).chain(drains()).collect()
}

/// `canary   blue 95 %, green 5 %   stable blue`
fn standing(state: &State) -> String {
    let Some(shop) = state.table.service(&service("shop")) else { return "(gone)".to_owned() };
    let deployment = state.deployment(&shop.name).unwrap();
    let way_back = deployment.previous.as_ref().map_or("-".to_owned(), |way| way.split.to_string());
    let phase = deployment.phase.token();
    let held = |hold: Hold| format!("   held: {} ({})", hold.scope, hold.holder.token());
    let held: String = shop.holds.iter().map(held).collect();
    let trial = deployment.trial.as_ref().map_or(String::new(), |trial| {
        let Trial { stage, generation, baseline, candidate, asked, .. } = trial;
        format!("   trial {stage}.{generation} of {candidate} with {baseline}, asked {asked}")
    });
    let rules = shop.split.rules();
    let rules = if rules.is_empty() { String::new() } else { format!("   {rules}") };
    format!(
        "{phase:<9} {:<26} stable {:<6} back to {way_back}{held}{trial}{rules}",
        shop.split.to_string(),
        shop.stable.to_string()
    )
}

fn names(versions: &[(ServiceName, VersionName)]) -> String {
    let names: Vec<_> = versions.iter().map(|(service, version)| format!("{service}/{version}")).collect();
    names.join(" ")
}

fn row(state: &State, name: &str, event: Event) -> String {
    match step(state, event, Timestamp(1)) {
        Err(refused) => refusal(name, &refused),
        Ok((next, effects)) => {
            let delta = next.table.epoch().0 - state.table.epoch().0;
            let mut row = format!("  {name:<38} +{delta} {}", standing(&next));
            let mut add = |what: &str, text: String| {
                if !text.is_empty() {
                    row += &format!("\n  {:<38}      {what} {text}", "");
                }
            };
            add("left", names(&effects.left));
            add("returned", names(&effects.returned));
            add("history:", effects.change.map(|change| change.summary).unwrap_or_default());
            add("note:", effects.notes.join("; "));
            row
        }
    }
}

fn refusal(name: &str, refused: &Refused) -> String {
    let (token, hint) = (refused.token(), refused.hint());
    format!("  {name:<38} ✗  {token}: {refused}\n  {:<38}      hint: {hint}", "")
}

#[test]
fn every_phase_and_event() {
    let mut table = String::new();
    for (name, state) in phases() {
        table += &format!("== {name} ==\n  {:<38} .. {}\n", "", standing(&state));
        for (name, event) in events(&state) {
            table += &row(&state, name, event);
            table.push('\n');
        }
    }
    insta::assert_snapshot!(table);
}
