//! The admin API's batch: a body is commands or a problem that can be told; commands are a new table or a refusal.

#![cfg_attr(fuzzing, no_main)]

use std::sync::OnceLock;

use switchback::admin::Edits;
use switchback::admin::api::{Batch, Problem};
use switchback::config::Config;
use switchback::release::{Actor, ActorKind, Command, Event, Order, State, Timestamp, step};
use switchback::store::record::{ChangeForm, from_text, to_text};
use switchback::table::{Epoch, ServiceName};
use switchback_fuzz::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let edits = match Edits::read(body) {
        Ok(edits) => edits,
        Err(problem) => return it_can_be_told(&problem),
    };
    assert_eq!(edits.commands.len(), edits.services.len());
    assert!(edits.expected().len() <= edits.services.len());
    // What it was read from is written so that it reads the same again: the CLI and the server agree.
    let batch: Batch = serde_json::from_slice(body).expect("it was read");
    let written = serde_json::to_vec(&batch).expect("it can be written");
    let again = Edits::read(&written).unwrap_or_else(|why| panic!("{why:?}: {}", written.escape_ascii()));
    assert_eq!(format!("{edits:?}"), format!("{again:?}"));
    each_is_a_table_or_a_refusal(edits);
});

fn it_can_be_told(problem: &Problem) {
    assert!(matches!(problem.status, 400 | 422), "{problem:?}");
    assert!(!problem.token().is_empty() && !problem.detail.is_empty());
    let text = serde_json::to_string(problem).expect("it can be written");
    let again: Problem = serde_json::from_str(&text).expect("and read");
    assert_eq!((again.detail, again.field), (problem.detail.clone(), problem.field.clone()));
}

fn each_is_a_table_or_a_refusal(edits: Edits) {
    let state = shop();
    let before = state.table.epoch();
    let expected = edits.expected();
    let order = order(Command::Batch(edits.commands), expected);
    match step(&state, Event::Order(order), Timestamp(2)) {
        Err(refused) => assert!(!refused.to_string().is_empty()),
        Ok((next, effects)) => {
            let changed = u64::from(effects.change.is_some());
            assert_eq!(next.table.epoch(), Epoch(before.0 + changed));
            for service in next.table.services() {
                let sum: u32 = service.split.shares().map(|(_, weight)| u32::from(weight.points())).sum();
                assert_eq!(sum, 10_000);
                assert!(service.split.shares().all(|(version, _)| service.version(version).is_some()));
            }
            // It survives: the store gives back what it was given.
            if let Some(change) = effects.change {
                let text = to_text(&ChangeForm::from(&change)).expect("it can be written");
                let kept = from_text::<ChangeForm, _>(&text, String::new).expect("and read");
                assert_eq!(change, kept);
            }
        }
    }
}

fn order(command: Command, expected: Vec<(ServiceName, Epoch)>) -> Order {
    let actor = Actor { kind: ActorKind::Operator, name: "uid=0".to_owned() };
    Order { command, actor, reason: String::new(), expected, health: switchback::release::Health::default() }
}

/// `shop` with `blue`, `green` and `hollow`, and `cart` with `one` and `two`.
fn shop() -> State {
    static STATE: OnceLock<State> = OnceLock::new();
    let start = || {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), include_str!("shop.toml")).expect("it is written");
        let services = Config::load(file.path()).expect("it is sound").services;
        let command = Command::Configure { services, records: Vec::new() };
        let start = Event::Order(order(command, Vec::new()));
        step(&State::at(Epoch(0)), start, Timestamp(1)).expect("it is put in force").0
    };
    STATE.get_or_init(start).clone()
}
