//! A release that a trusted hop has pinned: who was assigned the new version of one service meets the new versions behind it
//! too, else two versions of a contract meet.
//!
//! The decision travels in W3C Baggage (<https://www.w3.org/TR/baggage/>): the member `switchback-release` of the list that all
//! lines of the field `baggage` are together. Its value, percent-decoded, is a label, `v42`, for every service that has a version
//! of that name; `v42/cart:v7` says it otherwise for the service `cart`. Whose word that is, is the proxy's to judge: of all others
//! the member is taken out, and so is whatever somebody more lenient than we are may read as it.
//!
//! Cost: all of it is linear in the length of the lines.

use std::fmt;

use super::name::{ServiceName, VersionName};
use super::targeting::decoded;

#[cfg(test)]
mod tests;

/// The field.
pub const FIELD: &str = "baggage";
/// The member's key.
pub const KEY: &str = "switchback-release";

/// How long a list may be that everybody has to pass on, in bytes (Baggage §3.3.2).
pub const MOST_BYTES: usize = 8192;
/// How many members such a list has (Baggage §3.3.2).
pub const MOST_MEMBERS: usize = 64;
/// How many words a pin has.
const MOST_WORDS: usize = 64;

/// What is pinned, as it is written: `v42`, or `v42/cart:v7`. At least one word, and at most 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin(Box<[Word]>);

/// A label, for one service or for all that have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    service: Option<ServiceName>,
    version: VersionName,
}

/// The versions that no pin leads to although they get requests. By default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Avoided {
    /// The one that supervision suspects.
    pub suspected: Option<VersionName>,
    /// The one that nobody new comes to.
    pub retiring: Option<VersionName>,
}

/// Whether a pin leads to a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pinnable {
    /// It does.
    Yes,
    /// Neither a weight nor a rule leads there: nor does a pin.
    Idle,
    /// Supervision suspects it.
    Suspected,
    /// It is being retired.
    Retiring,
}

/// What lines come to that have something in them which may be read as a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sorted {
    /// What is pinned, where that is believed.
    pub pin: Option<Pin>,
    /// The lines that go on; `None`: those that came.
    pub lines: Option<Vec<Vec<u8>>>,
}

impl Pin {
    /// What a member's value pins, as it came; `None` when it cannot be read.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let text = String::from_utf8(decoded(value).collect()).ok()?;
        let words: Vec<_> = text.split('/').take(MOST_WORDS + 1).map(Word::read).collect::<Option<_>>()?;
        (words.len() <= MOST_WORDS).then(|| Self(words.into()))
    }

    /// The version that is pinned of `service`, `knows` of its labels: what is said of the service alone, else the first label
    /// that it knows.
    pub fn version_of(
        &self,
        service: &ServiceName,
        knows: impl Fn(&VersionName) -> bool,
    ) -> Option<&VersionName> {
        let own = self.0.iter().find(|word| word.service.as_ref() == Some(service));
        let common = || self.0.iter().find(|word| word.service.is_none() && knows(&word.version));
        own.or_else(common).map(|word| &word.version)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Word { service, version }) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "/" })?;
            match service {
                Some(service) => write!(f, "{service}:{version}")?,
                None => version.fmt(f)?,
            }
        }
        Ok(())
    }
}

impl Word {
    fn read(text: &str) -> Option<Self> {
        let (service, version) = match text.split_once(':') {
            Some((service, version)) => (Some(service.parse().ok()?), version),
            None => (None, text),
        };
        Some(Self { service, version: version.parse().ok()? })
    }
}

/// True when there is something in this line that somebody may read as a pin.
#[must_use]
pub fn is_in(line: &[u8]) -> bool {
    let mut room = Vec::new();
    members(line).any(|member| may_be_ours(member, &mut room))
}

/// What these lines come to. Believed is the first member that can be read, and it alone goes on, as it came; of who is not
/// believed none does. All other members stay what and where they are, byte for byte.
pub fn sort<'l>(lines: impl Iterator<Item = &'l [u8]>, is_believed: bool) -> Sorted {
    let (mut pin, mut kept, mut is_changed, mut room) = (None, Vec::new(), false, Vec::new());
    for line in lines {
        let mut goes_on = Vec::with_capacity(line.len());
        for member in members(line) {
            if may_be_ours(member, &mut room) {
                let read = if is_believed && pin.is_none() { read(member) } else { None };
                if read.is_none() {
                    is_changed = true;
                    continue;
                }
                pin = read;
            }
            goes_on.extend_from_slice(member);
            goes_on.push(b',');
        }
        goes_on.pop();
        // Around a value there is no blank (RFC 9110 §5.5), and in a list of nothing there is nothing.
        if members(&goes_on).any(|member| !member.trim_ascii().is_empty()) {
            kept.push(goes_on.trim_ascii().to_vec());
        }
    }
    Sorted { pin, lines: is_changed.then_some(kept) }
}

/// The one line that says all of these, and the release before it; `None` when a release is pinned in them already.
///
/// Of members that would make it longer than everybody has to pass on, the last ones are left out.
#[must_use]
pub fn with(release: &VersionName, lines: &[&[u8]]) -> Option<Vec<u8>> {
    if lines.iter().any(|line| is_in(line)) {
        return None;
    }
    let mut line = format!("{KEY}={release}").into_bytes();
    let others = lines
        .iter()
        .flat_map(|line| members(line))
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty());
    for member in others.take(MOST_MEMBERS - 1) {
        if line.len() + 1 + member.len() > MOST_BYTES {
            break;
        }
        line.push(b',');
        line.extend_from_slice(member);
    }
    Some(line)
}

/// There are no quotes in Baggage: a comma ends a member wherever it stands.
fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',')
}

/// What the member pins, if it is exactly ours.
fn read(member: &[u8]) -> Option<Pin> {
    let pair = member.split(|byte| *byte == b';').next()?;
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
    if key == KEY.as_bytes() { Pin::read(value) } else { None }
}

/// True when somebody may read the member as ours: in another case, with its key quoted, or decoded however often and when, with
/// blanks or what is not ASCII in it, with a property of ours taken for a member, or with nothing behind the key.
fn may_be_ours(member: &[u8], room: &mut Vec<u8>) -> bool {
    see(member, room);
    room.split(|byte| matches!(byte, b',' | b';')).any(|part| {
        let key = part.iter().skip_while(|byte| **byte == b'=').take_while(|byte| **byte != b'=');
        key.eq(KEY.as_bytes())
    })
}

/// Fills `seen` with all that the most lenient of readers makes of these bytes: each `%61` is what it stands for, and again what
/// comes of that, in small letters, without what may be a blank or a quote; where a line or a text may end there is a comma.
fn see(text: &[u8], seen: &mut Vec<u8>) {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    seen.clear();
    for byte in text {
        let mut next = Some(*byte);
        while let Some(byte) = next.take() {
            match byte {
                b'\0' | b'\r' | b'\n' => seen.push(b','),
                b'+' | b'"' => {}
                byte if byte.is_ascii_graphic() => seen.push(byte.to_ascii_lowercase()),
                _ => {}
            }
            if let [before @ .., b'%', high, low] = &seen[..]
                && let (Some(high), Some(low)) = (digit(*high), digit(*low))
            {
                let length = before.len();
                seen.truncate(length);
                next = Some(high << 4 | low);
            }
        }
    }
}
