//! Users who stay with a version: what a request is known by, and the cookie that one which is not known gets.

use http::header::{COOKIE, HOST, SET_COOKIE};
use http::{HeaderMap, HeaderValue};

use super::connection::Client;
use super::forwarded;
use super::gate::Asked;
use super::head::Parts;
use super::identity::write_hex;
use super::ledger::Drawn;
use super::live::Lane;
use crate::table::sticky::cookie;
use crate::table::{AssignedBy, Sticky, StickyBy, StickyKey};

/// What decides on a request's version.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known {
    pub(super) by: AssignedBy,
    /// Whose request it is, where that decides.
    pub(super) key: Option<StickyKey>,
    /// True when its answer brings a cookie along.
    pub(super) mints: bool,
    /// True of who is new where one of the versions takes nobody new: he throws no coin among all of them.
    pub(super) is_turned_away: bool,
}

/// How often an id is drawn for who is new, where some of them belong to a version that takes nobody new.
const DRAWS: usize = 1_000;

impl Known {
    /// Nothing is asked of a request of this lane's service but its coin.
    pub(super) fn by_coin(lane: &Lane) -> Self {
        Self { by: lane.assigned_by, key: None, mints: false, is_turned_away: false }
    }

    /// This rule decides: there is no coin, and no user who is to be known again.
    pub(super) fn by_rule(number: u8) -> Self {
        Self { by: AssignedBy::Rule(number), key: None, mints: false, is_turned_away: false }
    }

    /// A pin leads to this lane. Where that is what every coin says, it has decided nothing, and the request counts as any does.
    pub(super) fn by_pin(lane: &Lane) -> Self {
        let by = if lane.has_all() { AssignedBy::Single } else { AssignedBy::Pinned };
        Self { by, key: None, mints: false, is_turned_away: false }
    }

    /// True where a coin, his own or one of many, has chosen among all versions: only those who throw one are compared.
    pub(super) fn is_drawn(self) -> bool {
        !self.is_turned_away && !matches!(self.by, AssignedBy::Rule(_) | AssignedBy::Pinned)
    }

    /// Whose coin that was.
    pub(super) fn drawn(self) -> Drawn {
        match (self.by, self.key) {
            (AssignedBy::Single | AssignedBy::Rule(_) | AssignedBy::Pinned, _) => Drawn::Nobodys,
            (AssignedBy::Sticky, Some(key)) => Drawn::Clients(key),
            // Who is new has thrown none before.
            (AssignedBy::Coin | AssignedBy::Minted | AssignedBy::Sticky, _) => Drawn::Its,
        }
    }
}

/// An id for a user who has none: one a request, wherever it waits and however often it is tried.
#[derive(Debug)]
pub(super) struct Minted {
    id: Id,
    /// The cookie that brings it.
    cookie: Option<HeaderValue>,
    /// True when a version was asked: then the answer brings it along.
    pub(super) is_due: bool,
}

/// 128 bits in hexadecimal digits.
type Id = [u8; 32];

/// By what a request for a service with sticky users is assigned; a request that needs one gets an id in `minted`.
///
/// `by` is what decides where nobody stays. Where it is the only version there is, no key is made.
pub(super) fn know(
    sticky: &Sticky,
    by: AssignedBy,
    (client, head, asked): (&Client, &Parts, &Asked<'_>),
    minted: &mut Option<Box<Minted>>,
) -> Known {
    let is_single = by == AssignedBy::Single;
    let keyed = |key: Option<StickyKey>| {
        let by = if key.is_some() { AssignedBy::Sticky } else { by };
        Known { by, key, mints: false, is_turned_away: false }
    };
    match &sticky.rules.by {
        StickyBy::Cookie { name, mint } => {
            let fields = head.headers.get_all(COOKIE).into_iter().map(HeaderValue::as_bytes);
            let sent = cookie(fields, name).filter(|sent| !sent.is_empty());
            match (sent, mint) {
                (None, Some(max_age)) => {
                    let minted = minted.get_or_insert_with(|| Box::new(Minted::new(client.worker.dice())));
                    let mints = minted.draw(sticky, || client.worker.dice());
                    minted.bake(name, max_age.as_secs(), is_secure(client, head));
                    let by = match mints {
                        _ if is_single => by,
                        true => AssignedBy::Minted,
                        false => AssignedBy::Coin,
                    };
                    let key = sticky.key(&minted.id).filter(|_| !is_single);
                    Known { by, key, mints, is_turned_away: sticky.turns_away() }
                }
                (sent, _) => keyed(sent.filter(|_| !is_single).and_then(|sent| sticky.key(sent))),
            }
        }
        _ if is_single => keyed(None),
        StickyBy::Header(name) if HOST == **name => keyed(sticky.key_of_host(asked.bare_host())),
        StickyBy::Header(name) => {
            let sent = head.headers.get(&**name);
            keyed(sent.and_then(|sent| sticky.key(sent.as_bytes())))
        }
        StickyBy::Client => {
            let address = client.arrival.peer.client(&head.headers);
            keyed(address.map(|address| sticky.key_of_client(address)))
        }
    }
}

/// True when the client came by https, to us or to a trusted proxy before us.
fn is_secure(client: &Client, head: &Parts) -> bool {
    let told = client.arrival.peer.is_trusted().then(|| forwarded::scheme(&head.headers)).flatten();
    told.map_or(client.arrival.secured.is_some(), |scheme| scheme.eq_ignore_ascii_case(b"https"))
}

impl Minted {
    fn new(dice: u128) -> Self {
        let mut id = Id::default();
        write_hex(&mut id, dice);
        Self { id, cookie: None, is_due: false }
    }

    /// Draws until it is an id that somebody new may have. False when none was found, as where hardly any are: its user is new then
    /// with the next request too.
    fn draw(&mut self, sticky: &Sticky, mut dice: impl FnMut() -> u128) -> bool {
        if !sticky.turns_away() {
            return true;
        }
        let is_closed = |id: &Id| sticky.key(id).is_some_and(|key| sticky.is_closed_to(key));
        (0..DRAWS).any(|_| {
            let is_his = !is_closed(&self.id);
            if !is_his {
                write_hex(&mut self.id, dice());
            }
            is_his
        })
    }

    /// Writes the cookie (RFC 6265 §4.1).
    fn bake(&mut self, name: &str, max_age: u64, is_secure: bool) {
        let mut text = Vec::with_capacity(name.len() + 112);
        // Browsers take cookies of such names only so (RFC 6265bis §4.1.3).
        let is_secure = is_secure || ["__Host-", "__Secure-"].iter().any(|prefix| name.starts_with(prefix));
        let secure: &[u8] = if is_secure { b"; Secure" } else { b"" };
        let age = itoa::Buffer::new().format(max_age).to_owned();
        let begin = [name.as_bytes(), b"=", &self.id, b"; Path=/; Max-Age=", age.as_bytes()];
        begin
            .into_iter()
            .chain([b"; HttpOnly; SameSite=Lax".as_slice(), secure])
            .for_each(|part| text.extend_from_slice(part));
        self.cookie = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).ok();
    }

    /// Adds the cookie to the answer, unless the version itself sets it.
    pub(super) fn put(&self, headers: &mut HeaderMap) {
        let Some(cookie) = self.cookie.as_ref().filter(|_| self.is_due) else { return };
        let name = |cookie: &HeaderValue| {
            let bytes = cookie.as_bytes();
            let end = bytes.iter().position(|byte| b"=;".contains(byte)).unwrap_or(bytes.len());
            bytes[..end].trim_ascii().to_vec()
        };
        let own = name(cookie);
        if !headers.get_all(SET_COOKIE).into_iter().any(|set| name(set) == own) {
            headers.append(SET_COOKIE, cookie.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{BasisPoints, Split, StickyRules, VersionName};

    fn minted(name: &str, is_secure: bool) -> Minted {
        let mut minted = Minted { is_due: true, ..Minted::new(0x7766_5544_3322_1100_fedc_ba98_7654_3210) };
        minted.bake(name, 60, is_secure);
        minted
    }

    #[test]
    fn a_cookie_has_all_that_keeps_it_from_others() {
        let text = |is_secure| minted("sb_id", is_secure).cookie.unwrap();
        let id = "7766554433221100fedcba9876543210";
        assert_eq!(text(false), format!("sb_id={id}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax"));
        assert_eq!(text(true), format!("sb_id={id}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure"));
    }

    #[test]
    fn what_the_version_sets_itself_stays_alone() {
        for (own, count) in
            [("sb_id=mine; Path=/", 1), (" sb_id =mine", 1), ("sb_id", 1), ("sb_ids=1", 2), ("a=sb_id=1", 2)]
        {
            let mut headers = HeaderMap::new();
            headers.append(SET_COOKIE, HeaderValue::from_static("first=1"));
            headers.append(SET_COOKIE, HeaderValue::from_static(own));
            minted("sb_id", false).put(&mut headers);
            assert_eq!(headers.get_all(SET_COOKIE).into_iter().count(), 1 + count, "{own}");
        }
        let mut headers = HeaderMap::new();
        Minted { is_due: false, ..minted("sb_id", false) }.put(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn who_is_new_gets_an_id_that_is_not_of_the_version_that_is_closed() {
        let names = ["blue", "green"].map(|name| name.parse::<VersionName>().unwrap());
        let rules = StickyRules { by: StickyBy::Client, salt: "shop".into() };
        let mut next = 0u128;
        let mut dice = || {
            next = next.wrapping_mul(0xda94_2042_e4dd_58b5_da94_2042_e4dd_58b5).wrapping_add(1);
            next
        };
        for (green, finds) in [(1, 100), (5_000, 100), (9_000, 100), (9_999, 60)] {
            let split = Split::of_two(&names[1], BasisPoints::new(green).unwrap(), &names[0]);
            let sticky = Sticky::new(&rules, &split, names.iter());
            let mut open = Minted::new(7);
            assert!(open.draw(&sticky, || unreachable!()), "nothing is drawn twice");
            let sticky = sticky.turning_away(&names[1], &split, names.iter());
            let found = (0..100).filter(|_| {
                let mut minted = Minted::new(dice());
                let has = minted.draw(&sticky, &mut dice);
                let key = sticky.key(&minted.id).unwrap();
                assert_eq!((sticky.assign_new(key), has), (Some(0), !sticky.is_closed_to(key)));
                has
            });
            let found = found.count();
            assert!(if finds == 100 { found == 100 } else { found < finds }, "{found} of 100 at {green}");
        }
    }
}
