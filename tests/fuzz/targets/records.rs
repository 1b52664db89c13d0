//! The store's records: what can be read is written so that it reads the same again; the rest is said to be corrupt.

#![cfg_attr(fuzzing, no_main)]

use switchback::release::Change;
use switchback::store::StoreError;
use switchback::store::record::{ChangeForm, from_text, to_text};
use switchback_fuzz::fuzz_target;

fuzz_target!(|text: &str| {
    let read = |text: &str| from_text::<ChangeForm, Change>(text, || "change 1".to_owned());
    let change = match read(text) {
        Ok(change) => change,
        Err(StoreError::Corrupt(why)) => return assert!(why.starts_with("change 1: "), "{why}"),
        Err(other) => panic!("{other}"),
    };
    for record in &change.services {
        let splits = record.standing.iter().flat_map(|standing| {
            [Some(&standing.split), standing.previous.as_ref().map(|previous| &previous.split)]
        });
        for split in splits.flatten() {
            let sum: u32 = split.shares().map(|(_, weight)| u32::from(weight.points())).sum();
            assert_eq!(sum, 10_000);
        }
    }
    let written = to_text(&ChangeForm::from(&change)).expect("a change can be written");
    assert_eq!(read(&written).expect("what we write we read"), change, "{written}");
});
