//! What is read as a pin, and that nobody reads one where none may be.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn sorted(lines: &[&str], is_believed: bool) -> (Option<String>, Vec<String>) {
    let bytes = || lines.iter().map(|line| line.as_bytes());
    let Sorted { pin, lines: left } = sort(bytes(), is_believed);
    let left = left.unwrap_or_else(|| bytes().map(<[u8]>::to_vec).collect());
    let text = |line: Vec<u8>| String::from_utf8(line).unwrap();
    (pin.map(|pin| pin.to_string()), left.into_iter().map(text).collect())
}

#[test]
fn a_pin_is_read_as_it_is_written() {
    for (value, pin) in [
        ("v42", Some("v42")),
        ("v42/cart:v7", Some("v42/cart:v7")),
        ("cart%3Av7%2Fv42", Some("cart:v7/v42")),
        ("%76%34%32", Some("v42")),
        ("V42", Some("V42")),
        ("", None),
        ("/", None),
        ("v42/", None),
        (":v42", None),
        ("cart:", None),
        ("cart:v7:v8", None),
        ("v 42", None),
        ("%20v42", None),
        ("%2576", None),
        ("v42%", None),
        ("v42%zz", None),
        ("v42%ff", None),
        ("v42%00", None),
        ("@candidate", None),
        ("\"v42\"", None),
        ("v42\u{e9}", None),
    ] {
        let read = Pin::read(value.as_bytes()).map(|pin| pin.to_string());
        assert_eq!(read.as_deref(), pin, "{value:?}");
    }
    let words = |count: usize| vec!["v42"; count].join("/");
    assert!(Pin::read(words(MOST_WORDS).as_bytes()).is_some());
    assert!(Pin::read(words(MOST_WORDS + 1).as_bytes()).is_none());
    assert!(Pin::read("v".repeat(64).as_bytes()).is_none(), "longer than any label");
}

#[test]
fn what_is_said_of_one_service_comes_before_what_is_said_of_all() {
    let version = |pin: &str, service: &str, known: &[&str]| {
        let pin = Pin::read(pin.as_bytes()).unwrap();
        let knows = |name: &VersionName| known.contains(&name.as_str());
        pin.version_of(&service.parse().unwrap(), knows).map(ToString::to_string)
    };
    assert_eq!(version("v42", "cart", &["v41", "v42"]).as_deref(), Some("v42"));
    assert_eq!(version("v42", "cart", &["v7"]), None);
    assert_eq!(version("v42/cart:v7", "cart", &["v42", "v7"]).as_deref(), Some("v7"));
    assert_eq!(version("v42/cart:v7", "shop", &["v42", "v7"]).as_deref(), Some("v42"));
    // What is meant is meant, also where it is not there.
    assert_eq!(version("v42/cart:v8", "cart", &["v42", "v7"]).as_deref(), Some("v8"));
    assert_eq!(version("cart:v7/cart:v8", "cart", &["v8"]).as_deref(), Some("v7"));
    assert_eq!(version("v43/v42", "shop", &["v42"]).as_deref(), Some("v42"), "the first that it has");
    assert_eq!(version("Cart:v7", "cart", &["v7"]), None);
}

#[test]
fn the_first_that_can_be_read_is_believed_and_goes_on_alone() {
    // A line each.
    for (lines, pin, left) in [
        ("a=1,switchback-release=v42;p=1 ,b=2", Some("v42"), "a=1,switchback-release=v42;p=1 ,b=2"),
        ("switchback-release=v1,a=1|switchback-release=v2", Some("v1"), "switchback-release=v1,a=1"),
        ("switchback-release=,a=1, switchback-release = v2", Some("v2"), "a=1, switchback-release = v2"),
        ("Switchback-Release=v1|a=1", None, "a=1"),
        ("switchback-release;p=v1,a=1", None, "a=1"),
        ("b=2|a=1;switchback-release=v1", None, "b=2"),
        ("a=1,switchback-release=v1 v2", None, "a=1"),
        ("a=1|b=2", None, "a=1|b=2"),
    ] {
        let lines: Vec<_> = lines.split('|').collect();
        let (found, goes_on) = sorted(&lines, true);
        assert_eq!((found.as_deref(), &*goes_on.join("|")), (pin, left), "{lines:?}");
    }
}

#[test]
fn a_strangers_is_taken_out_however_it_is_written_and_everything_else_stays() {
    for ours in [
        "switchback-release=v42",
        "switchback-release",
        "switchback-release=",
        "switchback-release;p=1",
        " \tswitchback-release\t = v42 ;p",
        "SwitchBack-Release=v42",
        "switchback%2drelease=v42",
        "%73witchback-release%3Dv42",
        "switchback%252Drelease=v42",
        "switchback%25252Drelease=v42",
        "+switchback-release+=v42",
        "%20switchback-release=v42",
        "\"switchback-release\"=v42",
        "\u{a0}switchback-release\u{a0}=v42",
        "switch back-release=v42",
        "switchback% 2drelease=v42",
        "=switchback-release=v42",
        ";switchback-release=v42",
        "x=1;switchback-release=v42",
        "x=1%2Cswitchback-release=v42",
        "x=1%0d%0aswitchback-release=v42",
        "switchback-release%00x=v42",
    ] {
        assert_eq!(sorted(&[ours], false), (None, vec![]), "{ours:?}");
        let (before, behind, both) =
            (format!("a=1 ,{ours}"), format!("{ours}, b=2;q"), format!(" a=1,{ours},b=2"));
        let lines = [&*before, &behind, &both, ours, "c=3 ,,d"];
        let left = ["a=1", "b=2;q", "a=1,b=2", "c=3 ,,d"].map(str::to_owned);
        assert_eq!(sorted(&lines, false), (None, left.into()), "{ours:?}");
    }
    for other in [
        "release=switchback-release",
        "x-switchback-release=1",
        "switchback-releases=1",
        "switchback-release.x=1",
        "switchback=release",
        "a=x;p=switchback-release",
        "",
        ",",
        "=",
        "%",
        "%2",
    ] {
        assert!(!is_in(other.as_bytes()), "{other:?}");
    }
}

#[test]
fn a_release_is_told_in_front_of_what_everybody_has_to_pass_on() {
    let release: VersionName = "v42".parse().unwrap();
    let told = |lines: &[&str]| {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        with(&release, &lines).map(|line| String::from_utf8(line).unwrap())
    };
    assert_eq!(told(&[]).as_deref(), Some("switchback-release=v42"));
    assert_eq!(told(&["a=1 , b=2;p", "", ",c=3"]).as_deref(), Some("switchback-release=v42,a=1,b=2;p,c=3"));
    assert_eq!(told(&["a=1", "switchback-release=v1"]), None, "another one has said so");
    let many: Vec<_> = (0..100).map(|number| format!("k{number}=1")).collect();
    let line = told(&[&many.join(",")]).unwrap();
    assert_eq!((line.split(',').count(), line.ends_with(",k62=1")), (MOST_MEMBERS, true), "{line}");
    let room = MOST_BYTES - "switchback-release=v42,".len();
    let fits = "x".repeat(room);
    assert_eq!(told(&[&fits]).unwrap().len(), MOST_BYTES);
    assert_eq!(told(&[&format!("{fits}x"), "a=1"]).as_deref(), Some("switchback-release=v42"));
}

/// What the letter of the standard, and of how SDKs read it, makes of these lines: the keys.
///
/// Each of them is somebody's way: to decode a key or not, once or before anything else, and `+` as a blank; to trim what is
/// white, or to drop it; to know properties, or to take them for members; to pass over what is empty.
fn readings(lines: &[String]) -> BTreeSet<String> {
    let decoded = |text: &str, plus: bool| {
        let text = if plus { text.replace('+', " ") } else { text.to_owned() };
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let mut keys = BTreeSet::new();
    for (plus, first, separators, drops) in [
        (false, false, &[','][..], false),
        (true, false, &[','][..], false),
        (false, true, &[','][..], false),
        (false, false, &[',', ';'][..], false),
        (true, true, &[',', ';'][..], false),
        (false, false, &[',', ';'][..], true),
    ] {
        let whole = lines.join(",");
        let whole = if first { decoded(&whole, plus) } else { whole };
        let whole: String = if drops { whole.split_whitespace().collect() } else { whole };
        for member in whole.split(separators) {
            let pair = member.split(';').find(|part| !part.is_empty()).unwrap_or_default();
            let key = pair.split('=').find(|part| !part.trim().is_empty()).unwrap_or_default();
            for key in [key.to_owned(), decoded(key, plus), decoded(&decoded(key, plus), plus)] {
                let quoted = key.trim().trim_matches('"').trim().to_lowercase();
                keys.insert(quoted);
            }
        }
    }
    keys
}

fn line() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => proptest::sample::select(vec![
            "switchback-release", "Switchback-Release", "switchback%2Drelease", "%73witchback-release",
            "switchback%252drelease", "switchback-", "release", "s", "a", "v42", "key",
        ]),
        6 => proptest::sample::select(vec![
            ",", ",", "=", "=", ";", " ", "\t", "+", "\"", "%20", "%2C", "%3B", "%3D", "%25", "%", "2", "D", "\u{a0}", "%c2%a0",
        ]),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// All that anybody sees of it.
fn bare(text: &str) -> String {
    let mut seen = Vec::new();
    see(text.as_bytes(), &mut seen);
    String::from_utf8(seen).unwrap()
}

proptest! {
    /// Of who is not believed nobody reads a pin; and nothing is taken away that nobody could have read as one.
    #[test]
    fn nobody_reads_a_strangers_pin(lines in proptest::collection::vec(line(), 0..4)) {
        let texts: Vec<_> = lines.iter().map(String::as_str).collect();
        let (pin, left) = sorted(&texts, false);
        prop_assert_eq!(pin, None);
        prop_assert!(!readings(&left).contains(KEY), "{:?} of {:?}", left, lines);
        let members = |lines: &[String]| -> Vec<String> {
            let all = lines.iter().flat_map(|line| line.split(','));
            all.map(|member| member.trim_matches([' ', '\t']).to_owned()).filter(|member| !member.is_empty()).collect()
        };
        let mut after = members(&left).into_iter().peekable();
        for member in members(&lines) {
            if after.next_if_eq(&member).is_none() {
                prop_assert!(bare(&member).contains(KEY), "{:?} is gone from {:?}", member, lines);
            }
        }
        prop_assert_eq!(after.next(), None, "the order is kept");
        prop_assert_eq!(sorted(&left.iter().map(String::as_str).collect::<Vec<_>>(), false).1, left, "once is enough");
    }

    /// Of who is believed one goes on at most, and that is the one that is read.
    #[test]
    fn what_goes_on_is_what_was_read(lines in proptest::collection::vec(line(), 0..4)) {
        let texts: Vec<_> = lines.iter().map(String::as_str).collect();
        let (pin, left) = sorted(&texts, true);
        let again: Vec<_> = left.iter().map(String::as_str).collect();
        prop_assert_eq!(sorted(&again, true), (pin.clone(), left.clone()));
        let ours = left.iter().flat_map(|line| line.split(',')).filter(|member| is_in(member.as_bytes())).count();
        prop_assert_eq!(ours, usize::from(pin.is_some()));
    }

    /// A pin is written as it is read.
    #[test]
    fn a_pin_says_what_it_says(words in proptest::collection::vec("([a-z0-9][a-z0-9._-]{0,5}:)?[A-Z0-9][a-z0-9._-]{0,5}", 1..6)) {
        let text = words.join("/");
        prop_assert_eq!(Pin::read(text.as_bytes()).unwrap().to_string(), text);
    }

    /// Whatever bytes there are: in time, and with a list that still is one.
    #[test]
    fn any_bytes_are_sorted(line in proptest::collection::vec(any::<u8>(), 0..200), is_believed: bool) {
        let sorted = sort([&line[..]].into_iter(), is_believed);
        let left = sorted.lines.unwrap_or_else(|| vec![line.clone()]);
        let again = sort(left.iter().map(Vec::as_slice), is_believed);
        prop_assert_eq!(again.lines, None);
        prop_assert_eq!(again.pin, sorted.pin);
    }
}

/// What a client may send at most, of what takes longest.
#[test]
fn absurd_sizes_take_no_longer_than_they_are_long() {
    for piece in ["%25", "%", "%2", ",", ";", "=", "switchback-release=,", "%73witchback-release=v/", "v1/"] {
        let line = piece.repeat(200_000 / piece.len());
        for is_believed in [false, true] {
            sort([line.as_bytes()].into_iter(), is_believed);
        }
        assert_eq!(is_in(line.as_bytes()), piece.contains("release"), "{piece}");
    }
}
