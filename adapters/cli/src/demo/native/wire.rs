//! What crosses, by its number: which message went again, and whether it was missing.
//!
//! ```text
//!  tap ─▶ Stream ─▶ hello, welcome: what each side says it has    ─▶ a crossing begins
//!                └▶ data, by WebSocket or in an HTTP body ─▶ first time · again · needless
//! ```
//!
//! A crossing is a WebSocket from its welcome to its end. A data frame on it is *again* if the same number had crossed when
//! it began, on an earlier connection or by HTTP; *needless* if the receiver had said in its greeting that it has it;
//! *beside* if it has crossed by HTTP since; *repeated* if it has crossed on this one. Bytes are counted as they are about to be written towards the receiver, so
//! what a cut swallows counts as crossed: of what went again nothing is missed.

use super::stream::{Passed, Stream};
use super::{Both, Way};
use bowline::wire::native::{self, Frame};
use bowline::{Path, Report, Seq};
use bowline_cli::proxy::{Direction, Tap};
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A crossing is told of after this at the latest.
const SETTLING: Duration = Duration::from_millis(500);

/// Messages and their bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Count {
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Count {
    const fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes as u64;
    }

    /// Both together.
    pub(super) const fn plus(self, other: Self) -> Self {
        Self { messages: self.messages + other.messages, bytes: self.bytes + other.bytes }
    }
}

/// One direction of a crossing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Traffic {
    /// When it began, so many had crossed whose completion the sender had no word of.
    pub(super) unanswered: u64,
    /// Everything.
    pub(super) all: Count,
    /// Of these, what had crossed before.
    pub(super) again: Count,
    /// Of these, what the receiver had said it has.
    pub(super) needless: u64,
    /// What crossed by HTTP while there was this connection, and then here.
    pub(super) beside: Count,
    /// What crossed twice on this very connection.
    pub(super) repeated: u64,
}

/// One WebSocket, from its welcome on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crossing {
    line: u64,
    /// The hub's word.
    pub(super) resumed: bool,
    pub(super) traffic: Both<Traffic>,
    /// What the receiver of each direction had.
    has: Both<Option<Report>>,
    since: Instant,
    over: bool,
}

impl Crossing {
    /// What had to cross again has, most likely.
    fn is_settled(&self) -> bool {
        let new = |traffic: &Traffic| traffic.all.messages > traffic.again.messages;
        self.over || self.traffic.iter().all(new) || self.since.elapsed() > SETTLING
    }
}

/// Everything that crossed.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    /// Every crossing, in order; the first one is the first connection.
    pub(super) crossings: Vec<Crossing>,
    /// In requests and answers.
    pub(super) http: Both<Count>,
    /// Of these, what had crossed before.
    pub(super) http_again: Both<Count>,
    /// Messages that have crossed.
    pub(super) distinct: Both<u64>,
}

#[derive(Debug, Default)]
struct Books {
    streams: BTreeMap<(Key, Way), Stream>,
    /// What a client said in its hello, until it is welcomed.
    hellos: BTreeMap<u64, Option<Report>>,
    /// By number, the connection it last crossed, and how many crossings there were then.
    last: Both<Vec<Option<(Key, usize)>>>,
    /// What the sender was told to be completed, by any path; it is told of the other way than messages go.
    completed: Both<u64>,
    totals: Totals,
    /// So many crossings have been told of.
    told: usize,
}

/// A connection: whether it is one of those by HTTP, and its number at its proxy.
type Key = (bool, u64);

/// What two proxies see. See the module.
#[derive(Debug, Default)]
pub(super) struct Wire(Mutex<Books>);

impl Wire {
    /// The tap of the proxy of this path.
    pub(super) fn tap(self: &Arc<Self>, path: Path) -> Arc<dyn Tap> {
        Arc::new(Side { wire: Arc::clone(self), http: path == Path::Http })
    }

    /// The next crossing that is settled and was not told of, with its place.
    pub(super) fn news(&self, all: bool) -> Option<(usize, Crossing)> {
        let mut books = self.books();
        let (place, crossing) = (books.told, *books.totals.crossings.get(books.told)?);
        if !all && !crossing.is_settled() {
            return None;
        }
        books.told += 1;
        Some((place, crossing))
    }

    /// How many there were.
    pub(super) fn crossings(&self) -> usize {
        self.books().totals.crossings.len()
    }

    /// What crossed so far.
    pub(super) fn totals(&self) -> Totals {
        self.books().totals.clone()
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Side {
    wire: Arc<Wire>,
    http: bool,
}

impl Tap for Side {
    fn passes(&self, line: u64, direction: Direction, bytes: &[u8]) {
        let (key, way) = ((self.http, line), Way::of(direction));
        let mut books = self.wire.books();
        for passed in books.streams.entry((key, way)).or_default().take(bytes) {
            match passed {
                Passed::Frame(text, whole) => books.frame(key, way, &text, whole),
                Passed::Body(text) => books.body(key, way, &text),
            }
        }
    }

    fn over(&self, line: u64) {
        let mut books = self.wire.books();
        for way in Way::BOTH {
            books.streams.remove(&((self.http, line), way));
        }
        if !self.http {
            books.hellos.remove(&line);
            if let Some(crossing) = books.totals.crossings.iter_mut().rev().find(|crossing| crossing.line == line) {
                crossing.over = true;
            }
        }
    }
}

impl Books {
    fn body(&mut self, key: Key, way: Way, text: &[u8]) {
        match native::decode(text) {
            Ok(Frame::Batch(frames)) => {
                frames.iter().for_each(|frame| self.frame(key, way, frame.as_bytes(), frame.len()))
            }
            Ok(_) => self.frame(key, way, text, text.len()),
            // The one body that is no frame.
            Err(_) => {
                if let Ok(poll) = native::Poll::decode(text) {
                    self.told(way.back(), &poll.report);
                }
            }
        }
    }

    fn frame(&mut self, (http, line): Key, way: Way, text: &[u8], whole: usize) {
        match native::decode(text) {
            Ok(Frame::Hello(hello)) if !http => {
                self.hellos.insert(line, hello.greeting.rx.map(|got| got.report));
            }
            Ok(Frame::Welcome(welcome)) if !http => {
                let to_client = self.hellos.remove(&line).flatten();
                let has = Both { to_hub: welcome.greeting.rx.map(|got| got.report), to_client };
                let resumed = welcome.greeting.resume;
                let traffic = Both::each(|way| Traffic { unanswered: self.unanswered(way), ..Traffic::default() });
                self.totals.crossings.push(Crossing {
                    line,
                    resumed,
                    traffic,
                    has,
                    since: Instant::now(),
                    over: false,
                });
            }
            Ok(Frame::Marks { report, .. }) => self.told(way.back(), &report),
            Ok(Frame::Data { seq, .. }) => self.data((http, line), way, seq, whole),
            _ => {}
        }
    }

    /// The sender of this direction is told.
    fn told(&mut self, way: Way, report: &Report) {
        let completed = self.completed.of_mut(way);
        *completed = report.cum().get().max(*completed);
    }

    fn unanswered(&self, way: Way) -> u64 {
        let crossed = self.last.of(way).len().saturating_sub(1) as u64;
        crossed.saturating_sub(*self.completed.of(way))
    }

    fn data(&mut self, key: Key, way: Way, seq: Seq, bytes: usize) {
        let Ok(number) = usize::try_from(seq.get()) else { return };
        let last = self.last.of_mut(way);
        if last.len() <= number {
            last.resize(number + 1, None);
        }
        let totals = &mut self.totals;
        let now = (key, totals.crossings.len());
        let Some(before) = last.get_mut(number).map(|last| last.replace(now)) else { return };
        *totals.distinct.of_mut(way) += u64::from(before.is_none());
        if key.0 {
            totals.http.of_mut(way).add(bytes);
            if before.is_some() {
                totals.http_again.of_mut(way).add(bytes);
            }
            return;
        }
        let mut crossings = totals.crossings.iter_mut().enumerate().rev();
        let Some((place, crossing)) = crossings.find(|(_, crossing)| crossing.line == key.1) else { return };
        let had = crossing.has.of(way).is_some_and(|report| report.of(seq).0);
        let traffic = crossing.traffic.of_mut(way);
        traffic.all.add(bytes);
        match before {
            None => {}
            Some((before, _)) if before == key => traffic.repeated += 1,
            Some((_, crossings)) if crossings > place => traffic.beside.add(bytes),
            Some(_) => {
                traffic.again.add(bytes);
                traffic.needless += u64::from(had);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::wire::native::{Hello, Ticket, Welcome};
    use bowline::{Beat, Got, Greeting, Origin};

    struct World {
        wire: Arc<Wire>,
        websocket: Arc<dyn Tap>,
        http: Arc<dyn Tap>,
    }

    impl World {
        fn new() -> Self {
            let wire = Arc::new(Wire::default());
            let (websocket, http) = (wire.tap(Path::WebSocket), wire.tap(Path::Http));
            Self { wire, websocket, http }
        }

        fn frame(&self, line: u64, direction: Direction, frame: &Frame<'_>) {
            let text = frame.encode();
            let length = u8::try_from(text.len() >> 8).unwrap();
            let head = [0x81, 126, length, (text.len() & 0xff) as u8];
            self.websocket.passes(line, direction, &[&head, text.as_bytes()].concat());
        }

        /// A WebSocket begins; the hub has what it says of the client's messages.
        fn begin(&self, line: u64, has: Option<Report>) {
            let origin = Origin::new(7, 1);
            let rx = has.map(|report| Got { of: origin, report });
            let greeting = Greeting { resume: rx.is_some(), rx, ..Greeting::new(origin) };
            let ticket = Ticket { sid: "s".into(), token: "t".into() };
            for way in [Direction::ToServer, Direction::ToClient] {
                self.websocket.passes(line, way, b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\n\r\n");
            }
            let hello = Hello { cid: "c".into(), ticket: None, auth: None, greeting: Greeting::new(origin) };
            self.frame(line, Direction::ToServer, &Frame::Hello(hello));
            let (heartbeat, dead, window) = (Duration::from_secs(20), Duration::from_secs(45), Duration::ZERO);
            let welcome = Welcome { ticket, reason: None, greeting, heartbeat, dead, window, frame: 1 << 20 };
            self.frame(line, Direction::ToClient, &Frame::Welcome(welcome));
        }

        fn data(&self, line: u64, number: u64) {
            self.frame(line, Direction::ToServer, &data(number));
        }

        fn up(&self, place: usize) -> Traffic {
            self.wire.totals().crossings[place].traffic.to_hub
        }
    }

    fn data(number: u64) -> Frame<'static> {
        Frame::Data { seq: Seq::from_number(number), una: Seq::FIRST, kind: "up".into(), data: "[]" }
    }

    #[test]
    fn again_is_what_crossed_before_and_needless_what_had_arrived() {
        let world = World::new();
        world.begin(0, None);
        (1..=5).for_each(|number| world.data(0, number));
        let report = Report { arrived: 0b11, done: 0b01, ..Report::nothing(64) };
        world.frame(0, Direction::ToClient, &Frame::Marks { report, una: Seq::FIRST, beat: Beat::None });
        world.websocket.over(0);
        world.begin(1, Some(report));
        (2..=6).for_each(|number| world.data(1, number));
        world.data(1, 6);
        assert_eq!((world.up(0).all.messages, world.up(0).again.messages), (5, 0));
        let second = world.up(1);
        assert_eq!((second.unanswered, second.all.messages, second.again.messages), (4, 6, 4));
        assert_eq!((second.needless, second.repeated), (1, 1), "2 had arrived; 6 came twice");
        assert!(second.again.bytes > 4 * 40);
        let crossings = world.wire.totals().crossings;
        assert_eq!((crossings[0].resumed, crossings[1].resumed), (false, true));
        assert!(world.wire.news(false).is_some(), "the first is over");
        assert!(world.wire.news(false).is_none() && world.wire.news(true).is_some());
    }

    #[test]
    fn what_went_by_http_meanwhile_is_beside_and_not_again() {
        let world = World::new();
        world.begin(0, None);
        let post = |number| {
            let body = data(number).encode();
            let request = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            world.http.passes(number, Direction::ToServer, request.as_bytes());
        };
        post(1);
        world.data(0, 1);
        assert_eq!((world.up(0).again.messages, world.up(0).beside.messages), (0, 1));
        post(2);
        world.begin(1, Some(Report::nothing(64)));
        world.data(1, 2);
        assert_eq!((world.up(1).again.messages, world.up(1).beside.messages), (1, 0));
        post(2);
        let totals = world.wire.totals();
        assert_eq!((totals.http.to_hub.messages, totals.http_again.to_hub.messages), (3, 1));
        assert_eq!(totals.distinct.to_hub, 2);
    }
}
