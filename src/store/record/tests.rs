//! What was written stays readable, and what is read is what was written.

use std::time::Duration;

use super::*;
use crate::store::arbitrary;
use crate::table::{HoldScope, Traits};
use proptest::prelude::*;

fn read(text: &str) -> Result<Change, StoreError> {
    from_text::<ChangeForm, Change>(text, || "change 1".to_owned())
}

proptest! {
    #[test]
    fn a_change_reads_as_it_was_written(change in arbitrary::change()) {
        let text = to_text(&ChangeForm::from(&change)).unwrap();
        prop_assert_eq!(read(&text).unwrap(), change);
    }
}

/// What was written stays readable: this text is never edited, only added to.
const WRITTEN: &str = r#"{"epoch":7,"at_ms":1700000000000,"kind":"flip","actor":{"kind":"operator","name":"uid=0"},
        "reason":"r","summary":"s","services":[
        {"service":"shop","epoch":7,"standing":{"stable":"green","weights":{"green":10000},
         "previous":{"stable":"blue","weights":{"blue":9500,"green":500}},
         "edits":{"green":{"is":{"version":{"name":"green","endpoints":["127.0.0.1:9101","unix:/run/a.sock"],
           "protocol":"http1"},"over":null}},
           "old":{"removed":{"over":{"name":"old","endpoints":[],"protocol":"http1"}}}},
         "file_digest":"cbf29ce484222325"}},
        {"service":"cart","epoch":7,"standing":null}]}"#;

#[test]
fn the_first_form_stays_readable() {
    let change = read(WRITTEN).unwrap();
    assert_eq!((change.epoch, change.kind), (Epoch(7), ChangeKind::Flip));
    let standing = change.services[0].standing.as_ref().unwrap();
    assert_eq!(standing.edits.len(), 2);
    assert_eq!(standing.file_digest, FileDigest { form: 0, hash: 0xcbf2_9ce4_8422_2325 });
    assert_eq!(change.services[1].standing, None);
    // Added later.
    let text = WRITTEN.replacen("22325\"}", "22325\",\"digest_form\":1}", 1);
    assert_eq!(read(&text).unwrap().services[0].standing.as_ref().unwrap().file_digest.form, 1);
    let text = WRITTEN.replacen("\"green\":500}}", "\"green\":500},\"exclusive\":\"writes\"}", 1);
    let later = read(&text).unwrap().services[0].standing.clone().unwrap().previous.unwrap();
    let before = standing.previous.clone().unwrap();
    assert_eq!((before.exclusive, later.exclusive), (None, Some(HoldScope::Writes)));
}

#[test]
fn an_endpoint_of_an_earlier_build_weighs_1() {
    let text = WRITTEN.replacen(
        "\"protocol\":\"http1\"}",
        "\"protocol\":\"http1\",\"traits\":{\"127.0.0.1:9101\":{\"weight\":3,\"zone\":\"a\"}}}",
        1,
    );
    let traits = |text: &str| {
        let change = read(text).unwrap();
        let edits = &change.services[0].standing.as_ref().unwrap().edits;
        let Edit::Is { version, .. } = &edits[&"green".parse().unwrap()] else { unreachable!() };
        version.traits.of(&"127.0.0.1:9101".parse().unwrap())
    };
    assert_eq!(traits(WRITTEN), Traits::default());
    let later = traits(&text);
    assert_eq!((later.weight.number(), later.zone.unwrap().as_str()), (3, "a"));
}

/// The same with a trial, as it was written first: never edited, only added to.
const TRIED: &str = r#""trial":{"stage":6,"generation":2,"baseline":"blue","candidate":"green",
        "asked":{"green":10000},"acts":true,"until_ms":1700000600000},"#;

#[test]
fn a_record_of_an_earlier_build_is_of_no_trial() {
    let trial = |text: &str| read(text).unwrap().services[0].standing.clone().unwrap().trial;
    assert_eq!(trial(WRITTEN), None);
    let text = WRITTEN.replacen("\"edits\":", &format!("{TRIED}\"edits\":"), 1);
    let [blue, green] = ["blue", "green"].map(|name| name.parse::<VersionName>().unwrap());
    let expected = Trial {
        stage: Epoch(6),
        generation: 2,
        baseline: blue,
        candidate: green.clone(),
        asked: Split::all_to(green.clone()),
        stable: green,
        is_suspect: false,
        acts: true,
        by_file: false,
        exclusive: None,
        until: Some(Timestamp(1_700_000_600_000)),
        lasts: None,
    };
    assert_eq!(trial(&text), Some(expected.clone()));
    // Until the next weights.
    let open = text.replacen("\"until_ms\":1700000600000", "\"until_ms\":null", 1);
    assert_eq!(trial(&open), Some(Trial { until: None, ..expected.clone() }));
    // Added later.
    let more = text.replacen("\"acts\":true,", "\"acts\":true,\"by_file\":true,\"exclusive\":\"writes\",", 1);
    let exclusive = Some(HoldScope::Writes);
    assert_eq!(trial(&more), Some(Trial { by_file: true, exclusive, ..expected.clone() }));
    let canary = text.replacen("{\"green\":10000},\"acts\"", "{\"blue\":9000,\"green\":1000},\"acts\"", 1);
    assert_eq!(trial(&canary).unwrap().stable, expected.baseline);
    let more = canary.replacen("\"acts\":true,", "\"acts\":true,\"stable\":\"green\",", 1);
    assert_eq!(trial(&more).unwrap().stable, expected.candidate);
    let more = text.replacen("\"until_ms\"", "\"lasts_ms\":600000,\"until_ms\"", 1);
    let lasts = Some(Duration::from_mins(10));
    assert_eq!(trial(&more), Some(Trial { lasts, ..expected.clone() }));
    let more = text.replacen("\"acts\":true,", "\"suspect\":true,\"acts\":true,", 1);
    assert_eq!(trial(&more), Some(Trial { is_suspect: true, ..expected.clone() }));
    for (was, is) in [
        ("\"asked\":{\"green\":10000}", "\"asked\":{\"green\":9999}"),
        ("\"baseline\":\"blue\"", "\"baseline\":\"b/lue\""),
        ("\"acts\":true,", ""),
        ("\"stage\":6", "\"stage\":-6"),
    ] {
        let bad = text.replacen(was, is, 1);
        assert_ne!(bad, text, "{was}");
        assert!(matches!(read(&bad), Err(StoreError::Corrupt(_))), "{is}");
    }
}

/// The same with a ramp, and one that is over, as they were written first: never edited, only added to.
const RAMPED: &str = r#""ramp":{"begun":6,"to":"green","before":{"stable":"blue","weights":{"blue":10000}},
        "steps":[100,500,10000],"every_ms":120000,"step":1,"until_ms":1700000120000,"lasts_ms":120000,"frozen":false,
        "supervise":{"for":{"ms":600000}},"actor":{"kind":"operator","name":"uid=0"},"reason":"v2"},
        "ramped":{"begun":2,"to":"green","reached":500,"how":"aborted","epoch":4},"#;

#[test]
fn a_ramp_stays_readable() {
    let standing = |text: &str| read(text).map(|change| change.services[0].standing.clone().unwrap());
    let text = WRITTEN.replacen("\"edits\":", &format!("{RAMPED}\"edits\":"), 1);
    let standing_of_it = standing(&text).unwrap();
    let (ramp, ramped) = (standing_of_it.ramp.unwrap(), standing_of_it.ramped.unwrap());
    assert_eq!((ramp.begun, ramp.weight().points(), ramp.next().points()), (Epoch(6), 500, 10_000));
    assert_eq!(ramp.left(Timestamp(1_700_000_100_000)), Some(Duration::from_secs(20)));
    assert_eq!(ramp.supervise, crate::release::Supervise::For(Some(Duration::from_mins(10))));
    assert_eq!((ramped.how, ramped.reached.points()), (crate::release::RampEnd::Aborted, 500));
    assert!(standing(WRITTEN).unwrap().ramp.is_none(), "records of earlier builds are of no ramp");
    for (was, is) in [
        ("\"step\":1", "\"step\":2"),
        ("[100,500,10000]", "[500,100,10000]"),
        ("\"how\":\"aborted\"", "\"how\":\"gone\""),
        ("\"frozen\":false,", ""),
    ] {
        let bad = text.replacen(was, is, 1);
        assert_ne!(bad, text, "{was}");
        assert!(matches!(standing(&bad), Err(StoreError::Corrupt(_))), "{is}");
    }
}

/// The same with a retirement, and one that is over, as they were written first: never edited, only added to.
const RETIRED: &str = r#""retirement":{"begun":6,"version":"green","weights":{"blue":7500,"green":2500},"users":18446744073709551615,"quiet_ms":1800000,
        "until_ms":1700086400000,"lasts_ms":86400000,"actor":{"kind":"operator","name":"uid=0"},"reason":"v2"},
        "retired":{"begun":2,"version":"green","how":"finished","epoch":4},"#;

#[test]
fn a_retirement_stays_readable() {
    let standing = |text: &str| read(text).map(|change| change.services[0].standing.clone().unwrap());
    let text = WRITTEN.replacen("\"edits\":", &format!("{RETIRED}\"edits\":"), 1);
    let of_it = standing(&text).unwrap();
    let (retirement, retired) = (of_it.retirement.unwrap(), of_it.retired.unwrap());
    assert_eq!(
        (retirement.begun, retirement.split.to_string()),
        (Epoch(6), "blue 75 %, green 25 %".to_owned())
    );
    assert_eq!(retirement.left(Timestamp(1_700_086_380_000)), Duration::from_secs(20));
    assert_eq!((retired.how, retired.epoch), (crate::release::RampEnd::Finished, Epoch(4)));
    assert!(standing(WRITTEN).unwrap().retirement.is_none(), "records of earlier builds are of none");
    assert!(!to_text(&ChangeForm::from(&read(WRITTEN).unwrap())).unwrap().contains("retire"));
    for (was, is) in [
        ("\"version\":\"green\",\"weights\"", "\"version\":\"v3\",\"weights\""),
        ("{\"blue\":7500,\"green\":2500},\"users\"", "{\"green\":10000},\"users\""),
        ("\"how\":\"finished\"", "\"how\":\"gone\""),
        ("\"lasts_ms\":86400000,", ""),
    ] {
        let bad = text.replacen(was, is, 1);
        assert_ne!(bad, text, "{was}");
        assert!(matches!(standing(&bad), Err(StoreError::Corrupt(_))), "{is}");
    }
}

#[test]
fn without_a_trial_an_earlier_build_can_read_it() {
    let change = read(WRITTEN).unwrap();
    assert!(!to_text(&ChangeForm::from(&change)).unwrap().contains("trial"));
}

#[test]
fn a_field_of_a_later_build_is_skipped() {
    let later = WRITTEN.replacen("\"reason\"", "\"ticket\":{\"id\":4},\"reason\"", 1);
    assert_eq!(read(&later).unwrap(), read(WRITTEN).unwrap());
}

#[test]
fn a_record_that_says_something_impossible_is_corrupt() {
    for (was, is) in [
        ("\"green\":10000", "\"green\":9999"),
        ("\"kind\":\"flip\"", "\"kind\":\"flop\""),
        ("\"stable\":\"blue\"", "\"stable\":\"b/lue\""),
        ("127.0.0.1:9101", "127.0.0.1"),
        ("cbf29ce484222325", "xyz"),
        ("\"reason\":\"r\",", ""),
        ("{\"epoch\"", "{{\"epoch\""),
    ] {
        let text = WRITTEN.replacen(was, is, 1);
        assert_ne!(text, WRITTEN, "{was}");
        let error = read(&text).unwrap_err();
        assert!(matches!(&error, StoreError::Corrupt(why) if why.starts_with("change 1: ")), "{error}");
    }
}
