//! What accompanies a request from its head to its answer: its id, the rules of its route and version, its line in the
//! access log. Of all three most requests have nothing, and then this is three empty fields.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::head::{Answer, Parts};
use http::HeaderValue;
use http::header::{MAX_FORWARDS, RETRY_AFTER};

use super::connection::Client;
use super::gate::Asked;
use super::identity::{Marks, REQUEST_ID};
use super::journal::Record;
use super::live::{Lane, Snapshot};
use super::permit::Permit;
use super::quota::NotNow;
use super::rewrite::{self, Rewritten, Values};
use super::shield::StandIn;
use super::sticky::{Known, Minted};
use super::upgrade::Upgrade;
use super::{answer, baggage, error, hold, hops};
use crate::metrics::Reason;
use crate::table::{
    Edits, Epoch, ErrorPage, OwnAnswer, Pin, RouteRules, Routed, Rules, Service, VersionName,
};

/// One request's companion.
#[derive(Debug)]
pub struct Story {
    /// What it is known by, if the settings give it anything.
    marks: Option<Box<Marks>>,
    /// Where it leads, if there are rules about that, or its service does not let it in.
    place: Option<Place>,
    /// The epoch that it was admitted under; until then, that of the table it was routed by.
    pub epoch: Option<Epoch>,
    /// True once it was let in: what becomes of it counts on its version.
    is_admitted: bool,
    /// After how many seconds it should be sent again when it is refused; 0: not known.
    pub retry_after: u32,
    /// Its line in the access log.
    pub record: Option<Rc<Record>>,
    /// An id for its client, who has none and needs one.
    pub(super) minted: Option<Box<Minted>>,
    /// The release that a trusted hop has pinned for it.
    pub(super) pin: Option<Pin>,
}

/// A route, and later a version, in the table of one epoch.
#[derive(Debug)]
#[expect(clippy::redundant_allocation, reason = "the worker's own pointer: no shared count is written")]
pub(super) struct Place {
    snapshot: Rc<Arc<Snapshot>>,
    routed: Routed,
    version: Option<usize>,
}

impl Place {
    /// This one, if there are rules about that.
    #[expect(clippy::redundant_allocation, reason = "the worker's own pointer: no shared count is written")]
    pub(super) fn of(snapshot: &Rc<Arc<Snapshot>>, routed: Routed, version: usize) -> Option<Self> {
        let place = || Self { snapshot: Rc::clone(snapshot), routed, version: Some(version) };
        snapshot.has_rules(routed.service).then(place)
    }

    fn service(&self) -> &Service {
        &self.snapshot.table.services()[self.routed.service]
    }

    fn rules(&self) -> Option<&Rules> {
        self.service().rules.as_deref()
    }

    fn route(&self) -> Option<&RouteRules> {
        self.rules()?.route(self.routed.route)
    }

    fn version(&self) -> Option<&Edits> {
        self.rules()?.version(&self.service().versions[self.version?].name)
    }

    /// The version that services behind it are told to follow.
    fn release(&self) -> Option<&VersionName> {
        let version = self.version.filter(|_| self.rules().is_some_and(|rules| rules.pins_release))?;
        Some(&self.service().versions[version].name)
    }

    /// The route's edits, then the version's.
    fn edits(&self) -> impl Iterator<Item = &Edits> {
        self.route().map(|route| &route.edits).into_iter().chain(self.version())
    }
}

/// A client that is there for as long as its request waits.
struct Here<'s> {
    story: &'s Story,
    client: &'s Client,
    is_over: bool,
}

impl Drop for Here<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.story.refused(self.client, Reason::ClientGone);
        }
    }
}

impl Story {
    /// The beginning of the request `head`.
    pub fn begin(client: &Client, head: &Parts) -> Self {
        let marks = Marks::of(client, head);
        let record = client.worker.journal.begin(client, head, marks.as_deref());
        Self {
            marks,
            place: None,
            epoch: None,
            is_admitted: false,
            retry_after: 0,
            record,
            minted: None,
            pin: None,
        }
    }

    fn request_id(&self) -> Option<&HeaderValue> {
        self.marks.as_ref()?.id.as_ref()
    }

    /// Its version is chosen, by what came: from here on the request `head` has its id and trace, and counts this proxy among its `hops`.
    pub(super) fn mark(&self, head: &mut Parts, hops: Option<u64>) {
        if let Some(marks) = &self.marks {
            marks.write(&mut head.headers);
        }
        if let Some(hops) = hops {
            head.headers.insert(MAX_FORWARDS, HeaderValue::from(hops.saturating_sub(1)));
        }
    }

    /// True when the request has an id or a trace of ours, or may not have the one that it came with.
    pub(super) fn is_marked(&self) -> bool {
        self.marks.is_some()
    }

    /// The request took this route; again when a change came in between. True when the route answers by itself.
    pub fn take(&mut self, snapshot: &Rc<Arc<Snapshot>>, routed: Routed) -> bool {
        if let Some(record) = &self.record {
            record.routed(&snapshot.table.services()[routed.service].name, snapshot.table.epoch());
        }
        let has_rules = snapshot.has_rules(routed.service);
        self.place = has_rules.then(|| Place { snapshot: Rc::clone(snapshot), routed, version: None });
        self.own_answer().is_some()
    }

    /// The request was assigned to this version of its service.
    pub(super) fn assigned(&mut self, lane: &Lane, known: Known, permit: &mut Permit) {
        self.epoch = Some(permit.epoch);
        self.is_admitted = true;
        if let Some(place) = &mut self.place {
            place.version = Some(lane.version);
        }
        if let Some(minted) = self.minted.as_mut().filter(|_| known.mints) {
            minted.is_due = true;
        }
        if let Some(record) = &self.record {
            record.assigned(permit.local(), known.by);
            permit.note_in(record);
        }
    }

    /// The version that the request was assigned to has failed it, and another one is to answer.
    pub(super) fn stands_in(&mut self, other: &mut StandIn) {
        self.epoch = Some(other.permit.epoch);
        self.place = other.place.take();
        if let Some(record) = &self.record {
            record.stands_in(other.permit.local(), other.permit.epoch, other.lost.told());
            other.permit.note_in(record);
        }
    }

    /// The service of this route does not let the request in, now or at all: what becomes of it is the service's.
    pub fn stays_outside(&mut self, snapshot: &Rc<Arc<Snapshot>>, routed: Routed) {
        self.place.get_or_insert_with(|| Place { snapshot: Rc::clone(snapshot), routed, version: None });
    }

    /// What comes of the request's waiting before a version was asked for. Dropped meanwhile, its client has left, and is counted as one
    /// that was refused.
    pub async fn wait<T>(&self, client: &Client, waiting: impl Future<Output = T>) -> T {
        let mut here = Here { story: self, client, is_over: false };
        let waited = waiting.await;
        here.is_over = true;
        waited
    }

    /// No version was asked: there is nobody else to count it on than its service, if it has one.
    fn refused(&self, client: &Client, reason: Reason) {
        client.worker.refused(self.place.as_ref().map(|place| &place.service().name), reason);
    }

    fn own_answer(&self) -> Option<&OwnAnswer> {
        self.place.as_ref()?.route()?.answer.as_ref()
    }

    /// The answer of a route that answers by itself.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] when it needs a host that HTTP/1.0 did not say; [`Reason::NoWebsocket`] when it would pass for a
    /// tunnel (RFC 9110 §9.3.6); [`Reason::Internal`] when the route does not answer.
    pub fn answer(&self, client: &Client, head: &Parts, asked: &Asked<'_>) -> Result<Answer, Reason> {
        let (Some(own), Some(place)) = (self.own_answer(), &self.place) else { return Err(Reason::Internal) };
        if asked.authority.is_empty() && own.needs_host() {
            return Err(Reason::BadRequest);
        }
        if asked.upgrade == Some(Upgrade::Http2) && matches!(own, OwnAnswer::Fixed { status: 200..300, .. }) {
            return Err(Reason::NoWebsocket);
        }
        client.worker.answered(own);
        if let Some(record) = &self.record {
            record.answered_by_itself(own.token());
        }
        Ok(answer::of(own, head, &self.values(place, client, head, Some(asked))).into())
    }

    /// The answer to a health check of a service that is held.
    pub fn checked(&self, client: &Client) -> Answer {
        client.worker.checked();
        if let Some(record) = &self.record {
            record.answered_by_itself("held");
        }
        hold::answer().into()
    }

    /// The answer to a request that may go through no more proxies.
    ///
    /// # Errors
    /// As [`hops::answer`].
    pub fn ends_here(&self, client: &Client, head: &Parts) -> Result<Answer, Reason> {
        let answer = hops::answer(head)?;
        client.worker.ended();
        if let Some(record) = &self.record {
            record.answered_by_itself("max_forwards");
        }
        Ok(answer.into())
    }

    /// The request as it is sent on; `None`: as it was asked.
    pub fn rewritten(&self, client: &Client, head: &Parts, asked: &Asked<'_>) -> Option<Rewritten<'_>> {
        self.rewritten_at(self.place.as_ref()?, client, head, asked)
    }

    /// The same for one that leads there.
    pub(super) fn rewritten_at<'p>(
        &self,
        place: &'p Place,
        client: &Client,
        head: &Parts,
        asked: &Asked<'_>,
    ) -> Option<Rewritten<'p>> {
        let path = place.route().and_then(|route| route.path.as_ref());
        let release = place.release();
        if path.is_none() && release.is_none() && place.edits().all(Edits::leaves_request) {
            return None;
        }
        let operations = place.edits().flat_map(|edits| &edits.request);
        let host = place.edits().filter_map(|edits| edits.host.as_ref()).last();
        let values = self.values(place, client, head, Some(asked));
        let mut rewritten = Rewritten::new(head, asked, operations, path, host, &values);
        if let Some(release) = release {
            baggage::pin(&mut rewritten.head.headers, release);
        }
        Some(rewritten)
    }

    /// The request may not pass now; why, and notes when it may.
    pub fn not_now(&mut self, not_now: NotNow) -> Reason {
        let seconds =
            |wait: Duration| u32::try_from(wait.as_nanos().div_ceil(1_000_000_000)).unwrap_or(u32::MAX);
        self.retry_after = not_now.wait.map_or(0, |wait| seconds(wait).max(1));
        not_now.reason
    }

    /// The proxy's own answer for `reason`, with the page that there is for it.
    pub fn failed(&self, client: &Client, reason: Reason, head: &Parts) -> Answer {
        if !self.is_admitted {
            self.refused(client, reason);
        }
        if let Some(record) = &self.record {
            record.ended(Some(reason));
        }
        let mut response = error::answer(reason, &head.headers);
        if self.retry_after > 0 {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(self.retry_after));
        }
        let settings = client.settings();
        let pages: &[ErrorPage] = match self.place.as_ref().and_then(Place::rules) {
            Some(rules) => &rules.pages,
            None => &settings.error_pages,
        };
        if let Some(page) = ErrorPage::find(pages, response.status().as_u16(), reason.token()) {
            answer::put_page(&mut response, page);
        }
        response.into()
    }

    /// The answer's head is about to go out: what is still changed about it, whoever made it.
    pub fn finish(&self, client: &Client, head: &Parts, answer: &mut Answer) {
        if let Some(id) = self.request_id()
            && client.settings().identity.request_id.is_some_and(|ids| ids.answer)
        {
            answer.headers.insert(REQUEST_ID, id.clone());
        }
        if let Some(place) = &self.place {
            let mut operations = place.edits().flat_map(|edits| &edits.response).peekable();
            if operations.peek().is_some() {
                let asked = Asked::of(head).ok();
                let values = self.values(place, client, head, asked.as_ref());
                rewrite::apply(&mut answer.headers, operations, &values);
            }
        }
        // Behind what the operator takes out of versions' answers: it is none of theirs.
        if let Some(minted) = &self.minted {
            minted.put(&mut answer.headers);
        }
        if let Some(record) = &self.record {
            record.answered(answer);
        }
    }

    fn values<'v>(
        &'v self,
        place: &'v Place,
        client: &'v Client,
        head: &Parts,
        asked: Option<&'v Asked<'v>>,
    ) -> Values<'v> {
        let service = place.service();
        Values {
            client: client.arrival.peer.client_text(&head.headers).unwrap_or_default(),
            scheme: client.arrival.scheme(),
            asked,
            prefix: service.routes[place.routed.route].path.len(),
            service: service.name.as_str(),
            version: place.version.map_or("", |version| service.versions[version].name.as_str()),
            epoch: place.snapshot.table.epoch().0,
            request_id: self.request_id().map_or(b"", |id| id.as_bytes()),
        }
    }
}
