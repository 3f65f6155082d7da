//! What is asked by HTTP: to become a WebSocket, to take a message, how the hub stands. Where, says the wire's routes.
//!
//! ```text
//!  a WebSocket    admission, before the 101      refused: 429 or 503 with Retry-After, 404 without WebSockets
//!  a callback     one message                    200 and its confirmation · 400 401 403 409 422 429 503
//!  …/health, …/stats   status, connections, active_connections, uptime, and more behind them
//!  …/metrics      Prometheus
//!  a page of the application's, as it was given
//! ```

use super::engine::{Trust, denied};
use super::line::Line;
use super::questions::Question;
use super::setup::{Deciding, Page};
use super::wire::{Complaint, HubWire, Letter, Misread, Said};
use super::{Admission, Hub};
use crate::explanation::Excerpt;
use crate::http::{Answer, Callback, Limits, Routes, Target};
use async_lock::Semaphore;
use bowline::hub::{CloseReason, ConnId, Denied, SessionId};
use bowline::wire::native::{FRAME_LIMIT, HELLO, MAX_WAIT, MESSAGES, PATH, POLL, SUBPROTOCOL};
use bowline::{ConfigError, RequestId};
use core::net::IpAddr;
use core::panic::AssertUnwindSafe;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, PoisonError};

/// One accepted socket, until it is a WebSocket or over.
///
/// ```
/// use bowline_transport::hub::Visit;
/// let visit = Visit::new("127.0.0.1".parse()?);
/// assert_eq!(visit.admitted(), None);
/// # Ok::<(), core::net::AddrParseError>(())
/// ```
#[derive(Debug)]
pub struct Visit {
    address: IpAddr,
    admitted: Mutex<Option<ConnId>>,
}

impl Visit {
    /// From this address.
    #[must_use]
    pub const fn new(address: IpAddr) -> Self {
        Self { address, admitted: Mutex::new(None) }
    }

    /// What stands for where it comes from: an address of version 4, or a network of version 6.
    #[must_use]
    pub const fn origin(&self) -> u64 {
        number(self.address)
    }

    /// The connection as which it was let in, if it was.
    #[must_use]
    pub fn admitted(&self) -> Option<ConnId> {
        *self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that stands for an address: one of version 4, or the network of one of version 6.
pub(super) const fn number(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(four) => four.to_bits() as u64,
        IpAddr::V6(six) => match six.to_ipv4_mapped() {
            Some(four) => four.to_bits() as u64,
            None => (six.to_bits() >> 64) as u64,
        },
    }
}

impl<W: HubWire> Hub<W> {
    /// For the adapter: the limits of a hub's requests.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let longest = if self.native.is_some() { W::LONGEST_FRAME.max(FRAME_LIMIT) } else { W::LONGEST_FRAME };
        Limits { body_bytes: u64::try_from(longest).unwrap_or(u64::MAX), ..self.http_limits }
    }

    /// For the adapter: how long an answer may take. As long as the application has to say who it is from, and then to
    /// handle it; a poll waits for longer.
    #[must_use]
    pub fn patience(&self, path: &str) -> Duration {
        if path == POLL { MAX_WAIT.saturating_add(Duration::from_secs(3)) } else { self.longest_answer }
    }

    /// For the adapter: a connection for which it has no place. What it is answered, whatever it asks for; it is counted and
    /// told of as those that the hub turns away (E4).
    pub fn full(&self, visit: &Visit) -> Answer {
        denied(self.with(|engine| engine.full(visit.address)))
    }

    /// For the adapter: what may be asked.
    #[must_use]
    pub fn routes(&self) -> Routes<'_> {
        self.routes.get()
    }

    /// For the adapter: answers a request; one to become a WebSocket is let in with 200.
    pub async fn request(&self, visit: &Visit, callback: Callback) -> Answer {
        if let Some(page) = self.routes.page(callback.path) {
            return self.with(|engine| engine.knock(visit.address)).map_or_else(denied, |()| page);
        }
        let routes = self.routes();
        if routes.websockets.contains(&callback.path) {
            return match (callback.path, callback.subprotocol) {
                (PATH, None) => Answer::error(400, "the subprotocol bowline.1 is spoken here"),
                (_, subprotocol) => self.admit(visit, callback.segment, subprotocol),
            };
        }
        let page = routes.pages.contains(&callback.path);
        // How it stands may be asked to the end, when every other request is refused; that is no refusal to be counted.
        let knocked = self.with(|engine| match page && engine.health().draining {
            true => Ok(()),
            false if callback.path == HELLO && self.native.is_some() => engine.shake(visit.address),
            false => engine.knock(visit.address),
        });
        if let Err(refused) = knocked {
            return denied(refused);
        }
        match callback.segment {
            "health" | "stats" if page => {
                Answer { body: Some(("application/json", self.health_json().into())), ..Answer::OK }
            }
            "metrics" if page => {
                Answer { body: Some(("text/plain; version=0.0.4", self.metrics().into())), ..Answer::OK }
            }
            _ if page => Answer::status(404),
            _ if NATIVE.contains(&callback.path) => self.native_request(visit.address, callback).await,
            _ => self.message(visit.address, callback).await,
        }
    }

    fn admit(&self, visit: &Visit, path: &'static str, subprotocol: Option<&'static str>) -> Answer {
        if !self.websocket {
            let why = match self.routes().callbacks {
                [path, ..] => format!("WebSockets are switched off; POST {path}"),
                [] => "WebSockets are switched off".to_owned(),
            };
            return Answer::error(404, why);
        }
        match self.with(|engine| engine.connect(visit.address, path, subprotocol)) {
            Ok(conn) => {
                *visit.admitted.lock().unwrap_or_else(PoisonError::into_inner) = Some(conn);
                Answer::OK
            }
            Err(refused) => denied(refused),
        }
    }

    async fn message(&self, address: IpAddr, callback: Callback) -> Answer {
        if let Err(after) = self.forgers.may(self.clock.now(), number(address)) {
            return self.refuse(address, None, CloseReason::Rate, after);
        }
        let Letter { peer, heard } = match self.wire().letter(self.names(), &callback.body) {
            Ok(letter) => letter,
            Err(Misread::Malformed(why)) => return Answer::error(400, why),
            Err(Misread::Forged) => {
                self.forgers.caught(self.clock.now(), number(address));
                return self.refuse(address, None, CloseReason::Impostor, Duration::ZERO);
            }
        };
        let content = match heard.said {
            Said::Message(content) if self.takes(&content.kind) => content,
            Said::Message(content) => {
                let why = Complaint::Unhandled(&content.kind).to_string();
                return self.rejected(400, &content, why);
            }
            Said::Other | Said::Malformed | Said::Pong | Said::Status | Said::Subscribe(_) | Said::Unsubscribe(_) => {
                return Answer::error(400, "not a message");
            }
        };
        let (mut receiver, mut question) = (None, None);
        let trust = self.lock().trust(&peer);
        // Going down, nobody is asked about who has no session.
        if trust == Trust::None
            && self.lock().health().draining
            && let Err(refused) = self.with(|engine| engine.adopt(&peer, None))
        {
            return self.refuse(address, Some(&peer), refused.why, refused.retry_after);
        }
        if trust != Trust::Fresh {
            let asked = self.questions.open(peer.clone());
            let gate = if trust == Trust::Old { &self.renewing } else { &self.deciding };
            match self.decide(peer.clone(), gate).await {
                Admission::Accept { receiver: found } => receiver = found,
                Admission::Refuse(why) => {
                    if trust == Trust::Old {
                        self.dismiss(&peer);
                    }
                    let said = Excerpt::new(&*why);
                    self.with(|engine| engine.turned_away(Some(address), Some(&peer), CloseReason::Unknown, said));
                    return Answer::error(403, why);
                }
                // What it said last holds until it can say more.
                Admission::Later(_) if trust == Trust::Old => {}
                Admission::Later(after) => return self.refuse(address, Some(&peer), CloseReason::Later, after),
            }
            question = Some(asked);
        }
        let copy = content.clone();
        let answer = self.take(address, peer, receiver, question, content, callback.body.len(), heard.stamp).await;
        match answer.error {
            Some(why) if answer.status == 422 => self.rejected(422, &copy, why),
            error => Answer { error, ..answer },
        }
    }

    /// A message that can never be taken: in the wire's own words, which alone end it (H8), if it has any.
    fn rejected(&self, status: u16, content: &super::Content, why: String) -> Answer {
        let name = content.id.as_deref().zip(self.names_of(content).key);
        match name.and_then(|(id, content)| self.wire().confirmation(id, content, Err(&why))) {
            Some(word) => Answer { body: Some(("application/json", word.into())), ..Answer::status(status) },
            None => Answer::error(status, why),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what was found out about one request")]
    async fn take(
        &self,
        address: IpAddr,
        peer: W::Peer,
        receiver: Option<Target>,
        question: Option<Question<'_, W::Peer>>,
        content: super::Content,
        bytes: usize,
        stamp: Option<bowline::hub::Stamp>,
    ) -> Answer {
        let (bytes, names) = (u32::try_from(bytes).unwrap_or(u32::MAX), self.names_of(&content));
        let taken = self.with(|engine| {
            if question.as_ref().is_some_and(|question| !question.stands()) {
                engine.turned_away(Some(address), Some(&peer), CloseReason::Dismissed, None);
                return Err(denied(Denied { why: CloseReason::Dismissed, retry_after: Duration::ZERO }));
            }
            engine.request(address, peer, receiver, content, (names, bytes), stamp)
        });
        // It is answered; the application may take as long as it likes.
        drop(question);
        match taken {
            Err(answer) => answer,
            Ok((session, request, answered)) => {
                let _gone = Gone { hub: self, session, request };
                answered.recv().await.unwrap_or(Answer::BUSY)
            }
        }
    }

    pub(super) fn refuse(&self, address: IpAddr, peer: Option<&W::Peer>, why: CloseReason, after: Duration) -> Answer {
        self.with(|engine| engine.turned_away(Some(address), peer, why, None));
        denied(Denied { why, retry_after: after })
    }

    /// Finds out who a newcomer is: what it shows first, then what the application says.
    pub(super) async fn verify(&self, line: &Arc<Line<W>>) {
        let hello = line.lock().hello.take();
        if let Some(hello) = hello {
            return self.verify_native(line, hello).await;
        }
        let proof = line.lock().proof.take();
        let (Some(proof), Some(peer)) = (proof, line.peer()) else { return };
        let question = self.questions.open(peer.clone());
        let admission = match self.wire().holds(peer, &proof) {
            true => Ok(self.decide(peer.clone(), &self.deciding).await),
            false => Err(CloseReason::Impostor),
        };
        self.with(|engine| {
            let admission = if question.stands() { admission } else { Err(CloseReason::Dismissed) };
            engine.verified(line, admission);
        });
    }

    /// What the application says of a peer. If it panics, it has not said anything yet.
    async fn decide(&self, peer: W::Peer, gate: &Semaphore) -> Admission {
        // Nobody waits here whose proof is wrong, and no request of whoever is known.
        self.calmly(|| (self.authorize)(peer), gate).await
    }

    pub(super) async fn calmly(&self, ask: impl FnOnce() -> Deciding, gate: &Semaphore) -> Admission {
        const LATER: Admission = Admission::Later(Duration::from_secs(5));
        let _pass = gate.acquire().await;
        match catch_unwind(AssertUnwindSafe(ask)) {
            Ok(deciding) => Calm(deciding).await.unwrap_or(LATER),
            Err(_) => LATER,
        }
    }
}

/// The last parts of the paths of a hub's own pages.
const PAGES: [&str; 3] = ["health", "stats", "metrics"];

/// Where a native client asks by HTTP.
const NATIVE: [&str; 3] = [HELLO, MESSAGES, POLL];

/// What may be asked: what the wire says, and what native peers ask besides.
pub(super) struct Paths {
    wire: Routes<'static>,
    websockets: Vec<&'static str>,
    callbacks: Vec<&'static str>,
    pages: Vec<&'static str>,
    own: Vec<Page>,
    native: bool,
}

impl Paths {
    pub(super) fn new(wire: Routes<'static>, own: Vec<Page>, native: bool) -> Self {
        let (mut websockets, mut callbacks) = (wire.websockets.to_vec(), wire.callbacks.to_vec());
        let pages = wire.pages.iter().copied().chain(own.iter().map(|page| page.path)).collect();
        if native {
            websockets.push(PATH);
            callbacks.extend(NATIVE);
        }
        Self { wire, websockets, callbacks, pages, own, native }
    }

    /// Refuses routes with which a hub could not do its work: `websocket`, whether peers may connect so, and `native`, whether
    /// there are native ones.
    pub(super) fn check(wire: &Routes<'_>, websocket: bool, native: bool) -> Result<(), ConfigError> {
        let lists = [wire.websockets, wire.callbacks, wire.pages];
        let all = || lists.into_iter().flatten();
        let twice = |path: &&&str| all().filter(|other| other == path).count() > 1;
        let known = |path: &&str| PAGES.contains(&path.rsplit('/').next().unwrap_or_default());
        let rules = [
            (
                !websocket || native || !wire.websockets.is_empty(),
                "routes.websockets",
                "nobody could connect: name a path, or switch WebSockets off",
            ),
            (
                websocket || native || !wire.callbacks.is_empty(),
                "routes.callbacks",
                "nobody could say anything: there are no WebSockets, and no path to post to",
            ),
            (
                wire.guarded || !(websocket && (native || !wire.websockets.is_empty())),
                "routes.guarded",
                "a hub decides about each connection before it becomes a WebSocket: it must be true",
            ),
            (all().all(|path| path.starts_with('/')), "routes", "a path does not begin with /"),
            (all().find(twice).is_none(), "routes", "a path has two meanings"),
            (
                wire.pages.iter().all(known),
                "routes.pages",
                "a hub has pages for paths that end with health, stats or metrics; others are for `HubSetup::page`",
            ),
        ];
        match rules.into_iter().find(|(holds, ..)| !holds) {
            Some((_, field, why)) => Err(ConfigError { field, why }),
            None => Ok(()),
        }
    }

    /// Whether one of these paths is this one, with or without native peers.
    pub(super) fn knows(wire: &Routes<'_>, path: &str) -> bool {
        let lists = [wire.websockets, wire.callbacks, wire.pages, &NATIVE, &[PATH]];
        lists.iter().any(|paths| paths.contains(&path))
    }

    /// The application's own page at this path.
    fn page(&self, path: &str) -> Option<Answer> {
        let page = self.own.iter().find(|page| page.path == path)?;
        Some(Answer { body: Some((page.kind, page.body.clone())), ..Answer::OK })
    }

    fn get(&self) -> Routes<'_> {
        Routes {
            websockets: &self.websockets,
            subprotocols: if self.native { &[SUBPROTOCOL] } else { self.wire.subprotocols },
            callbacks: &self.callbacks,
            pages: &self.pages,
            ..self.wire
        }
    }
}

/// A future whose panic is an answer: none.
struct Calm<F>(F);

impl<F: Future + Unpin> Future for Calm<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = &mut self.0;
        match catch_unwind(AssertUnwindSafe(|| Pin::new(inner).poll(cx))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

/// A request whose waiting is cancelled leaves its session.
pub(super) struct Gone<'a, W: HubWire> {
    pub(super) hub: &'a Hub<W>,
    pub(super) session: SessionId,
    pub(super) request: RequestId,
}

impl<W: HubWire> Drop for Gone<'_, W> {
    fn drop(&mut self) {
        self.hub.with(|engine| engine.request_gone(self.session, self.request));
    }
}

#[cfg(test)]
mod routes {
    use super::*;

    #[test]
    fn u14_what_a_hub_needs_of_its_routes_is_named() {
        let whole = Routes { websockets: &["/ws"], callbacks: &["/ws/messages"], guarded: true, ..Routes::NONE };
        let named = |routes: &Routes<'_>| Paths::check(routes, true, false).map_err(|error| error.field);
        assert_eq!(named(&whole), Ok(()));
        assert_eq!(named(&Routes { guarded: false, ..whole }), Err("routes.guarded"));
        assert_eq!(named(&Routes { websockets: &[], ..whole }), Err("routes.websockets"));
        assert_eq!(named(&Routes { pages: &["/ws"], ..whole }), Err("routes"));
        assert_eq!(named(&Routes { pages: &["/ws/about"], ..whole }), Err("routes.pages"));
    }
}

#[cfg(all(test, feature = "sr25519"))]
mod tests {
    use super::*;
    use crate::hub::HubSetup;
    use crate::keys::Keypair;

    #[test]
    fn u8_a_network_of_version_6_counts_as_one_address() {
        let number = |text: &str| number(text.parse().unwrap());
        assert_eq!(number("2001:db8::1"), number("2001:db8::ffff:1"));
        assert_ne!(number("2001:db8::1"), number("2001:db8:0:1::1"));
        assert_eq!(number("::ffff:192.0.2.1"), number("192.0.2.1"));
    }

    #[test]
    fn who_is_refused_between_admission_and_the_101_is_counted_once() {
        let keys = Keypair::from_seed_hex(&"07".repeat(32)).unwrap();
        let setup = HubSetup::validator("127.0.0.1:0", keys).unwrap().authorize(|_| Admission::accept());
        let setup = setup.configure(|config| config.hello = Duration::from_millis(20));
        let hub = Hub::new(setup, |_| {}).unwrap();
        let visit = Visit::new(IpAddr::from([127, 0, 0, 1]));
        let asked = Callback { path: "/ws", ..Callback::empty("ws") };
        assert_eq!(smol::block_on(hub.request(&visit, asked)).status, 200);
        // Nobody says that it is a WebSocket now, and its time to say who it is passes.
        while hub.health().pending > 0 {
            std::thread::yield_now();
            hub.turn();
        }
        assert_eq!(hub.stats().refused, 1);
        assert_eq!(hub.counters().refused.iter().sum::<u64>(), 1);
        hub.vanished(visit.admitted().unwrap());
        assert_eq!(hub.counters().refused.iter().sum::<u64>(), 1);
    }
}
