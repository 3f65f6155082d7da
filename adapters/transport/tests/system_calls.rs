//! How often the system is called: reads for what comes, writes for what leaves. The sockets are the test's own and count; time
//! plays no part.
//!
//! ```text
//!  test ─▶ Pipe ─▶ Node or Hub ─▶ Pipe ─▶ test        a Pipe takes as many bytes as it has room for, and then blocks
//! ```

use bowline::hub::{HubConfig, Publish, Rate};
use bowline::wire::KeyedHash;
use bowline::wire::gonka::Kind;
use bowline::{ContentKey, Policy};
use bowline_transport::http::{Bytes, Callback, Routes};
use bowline_transport::hub::{
    Action, Admission, Claim, Content, Heard, Hub, HubSetup, HubWire, Line, Reading, Said, Text, Visit,
};
use bowline_transport::{Node, Setup};
use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Default)]
struct System {
    inbound: VecDeque<u8>,
    outbound: Vec<u8>,
    /// How many more bytes are taken.
    room: usize,
    reads: usize,
    writes: usize,
}

/// One end of a connection; the test holds another handle to it.
#[derive(Clone, Default)]
struct Pipe(Arc<Mutex<System>>);

impl Pipe {
    fn open() -> Self {
        let pipe = Self::default();
        pipe.lock().room = usize::MAX;
        pipe
    }

    fn lock(&self) -> MutexGuard<'_, System> {
        self.0.lock().unwrap()
    }

    /// The payloads of the frames that have left, all of which are whole.
    fn frames(&self) -> Vec<String> {
        let out = core::mem::take(&mut self.lock().outbound);
        let (mut frames, mut rest) = (Vec::new(), out.as_slice());
        while let [_, length, ..] = rest {
            let (head, length) = match *length {
                126 => (4, usize::from(u16::from_be_bytes([rest[2], rest[3]]))),
                short => (2, usize::from(short)),
            };
            frames.push(String::from_utf8_lossy(&rest[head..head + length]).into_owned());
            rest = &rest[head + length..];
        }
        assert!(rest.is_empty());
        frames
    }
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut system = self.lock();
        system.reads += 1;
        match system.inbound.read(buffer)? {
            0 => Err(ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut system = self.lock();
        system.writes += 1;
        let taken = bytes.len().min(system.room);
        if taken == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        system.room -= taken;
        system.outbound.extend(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A text frame; a client's is masked, by zeros.
fn frame(text: &str, masked: bool) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let length = u16::try_from(text.len()).unwrap();
    let mut frame = match u8::try_from(length).ok().filter(|length| *length < 126) {
        Some(short) => vec![0x81, mask | short],
        None => [&[0x81, mask | 126][..], &length.to_be_bytes()].concat(),
    };
    if masked {
        frame.extend([0; 4]);
    }
    frame.extend(text.as_bytes());
    frame
}

/// Messages of whatever JSON, known by the number in them; each is confirmed by that number.
#[derive(Debug)]
struct Numbers;

impl HubWire for Numbers {
    type Peer = usize;
    type Proof = ();
    type Confirmation = ();
    type Encoded = Text;

    const LONGEST_FRAME: usize = 64 * 1024;

    fn routes(&self) -> Routes<'static> {
        Routes { websockets: &["/ws"], guarded: true, ..Routes::NONE }
    }

    fn guest(&self) -> Option<Claim<Self>> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        Some(Claim { peer: LAST.fetch_add(1, Ordering::Relaxed), proof: (), stamp: None })
    }

    fn holds(&self, _: &usize, (): &()) -> bool {
        true
    }

    fn read(&self, _: &KeyedHash, _: &usize, text: &Bytes) -> Heard {
        let id = String::from_utf8_lossy(&text[..4]).into_owned();
        let content = Content { kind: "number".into(), data: text.clone(), id: Some(id.into()) };
        Heard { said: Said::Message(content), ..Heard::OTHER }
    }

    fn encode(&self, _: &str, data: &str) -> Result<Text, Cow<'static, str>> {
        Ok(data.into())
    }

    fn size(encoded: &Text) -> usize {
        encoded.len()
    }

    fn frame(&self, encoded: &Text, _: &usize) -> Text {
        encoded.clone()
    }

    fn confirmation(&self, id: &str, _: ContentKey, _: Result<&(), &str>) -> Option<Text> {
        Some(id.into())
    }
}

/// A hub, and an adapter that does nothing by itself.
struct Rig {
    hub: Arc<Hub<Numbers>>,
    actions: Arc<Mutex<Vec<Action<Numbers>>>>,
}

impl Rig {
    fn new() -> Self {
        let actions = Arc::<Mutex<Vec<_>>>::default();
        let acted = Arc::clone(&actions);
        let setup = HubSetup::with("127.0.0.1:0", Numbers, HubConfig::DEFAULT).unwrap();
        let setup = setup.authorize(|_| Admission::accept()).configure(|config| {
            (config.per_identity.messages, config.per_address.messages) = (Rate::UNLIMITED, Rate::UNLIMITED);
            (config.session.inbox.bytes, config.session.inbox.held) = (256 << 10, 256);
        });
        let hub = Hub::new(setup, move |action| acted.lock().unwrap().push(action)).unwrap();
        Self { hub, actions }
    }

    /// A client that is let in, with a pipe that takes everything.
    fn client(&self) -> (Arc<Line<Numbers>>, Pipe) {
        let visit = Visit::new(IpAddr::from([127, 0, 0, 1]));
        let asked = Callback { path: "/ws", ..Callback::empty("ws") };
        assert_eq!(smol::block_on(self.hub.request(&visit, asked)).status, 200);
        let pipe = Pipe::open();
        let line = self.hub.accepted(visit.admitted().unwrap(), Box::new(pipe.clone()), b"").unwrap();
        for action in self.take() {
            if let Action::Run { job, .. } = action {
                smol::block_on(job);
            }
        }
        self.hub.turn();
        self.wakes();
        (line, pipe)
    }

    fn take(&self) -> Vec<Action<Numbers>> {
        core::mem::take(&mut *self.actions.lock().unwrap())
    }

    /// How many turns have been asked for since the last call; nothing else may have been.
    fn wakes(&self) -> usize {
        let actions = self.take();
        assert!(actions.iter().all(|action| matches!(action, Action::Wake)));
        actions.len()
    }

    fn publish(&self, text: &str) {
        self.hub.publish("number", text, Publish::DEFAULT).unwrap();
    }
}

fn texts(count: usize, length: usize) -> Vec<String> {
    (0..count).map(|n| text(n, length)).collect()
}

fn text(n: usize, length: usize) -> String {
    format!("{n:04}{}", "x".repeat(length - 4))
}

#[test]
fn small_frames_that_come_together_take_a_hub_few_reads() {
    let rig = Rig::new();
    let messages = rig.hub.messages().clone();
    let (line, pipe) = rig.client();
    // Behind a long one, with whose text the read buffer goes.
    for (round, long) in [None, Some(30_000), Some(5000)].into_iter().enumerate() {
        if let Some(long) = long {
            pipe.lock().inbound.extend(frame(&text(1000 + round, long), true));
            while rig.hub.readable(&line) == Reading::Again {}
        }
        let _long = messages.try_recv();
        pipe.lock().reads = 0;
        let sent: Vec<_> = (0..60).map(|n| text(60 * round + n, 300)).collect();
        sent.iter().for_each(|text| pipe.lock().inbound.extend(frame(text, true)));
        assert_eq!(rig.hub.readable(&line), Reading::Empty);
        // 2 KiB at a time, and one that finds nothing; behind a long one two to come to a buffer of 2 KiB again.
        let least = 60 * 308 / 2048 + 2 + if long.is_some() { 2 } else { 0 };
        let reads = pipe.lock().reads;
        assert!(reads <= least, "{reads} reads instead of {least}, behind {long:?}");
        for sent in sent {
            let came = messages.try_recv().unwrap();
            assert_eq!(came.data(), sent.as_bytes());
            came.confirm(());
        }
    }
}

#[test]
fn small_frames_that_come_together_take_a_node_few_reads() {
    let node = Node::new(&Setup::ml_node("127.0.0.1:0").unwrap(), || ()).unwrap();
    let pipe = Pipe::open();
    node.accepted(Box::new(pipe.clone()), b"").unwrap();
    for long in [None, Some(30_000)] {
        if let Some(long) = long {
            pipe.lock().inbound.extend(frame(&format!(r#"{{"type":"{}"}}"#, text(0, long)), true));
        }
        node.turn(&mut Vec::new());
        pipe.lock().reads = 0;
        texts(60, 300).iter().for_each(|text| {
            pipe.lock().inbound.extend(frame(&format!(r#"{{"type":"{text}"}}"#), true));
        });
        node.turn(&mut Vec::new());
        // 8 KiB at a time, and one that finds nothing.
        let least = 60 * 319 / 8192 + 2;
        let reads = pipe.lock().reads;
        assert!(pipe.lock().inbound.is_empty() && reads <= least, "{reads} reads instead of {least}, behind {long:?}");
    }
}

#[test]
fn what_is_sent_by_a_hub_in_one_go_leaves_in_one_write() {
    let rig = Rig::new();
    let clients = [rig.client(), rig.client()];
    for round in 0..3 {
        let sent = texts(8, 1000);
        for (n, text) in sent.iter().enumerate() {
            rig.publish(text);
            assert_eq!(rig.wakes(), usize::from(n == 0), "the first asks for a turn, and the turn is for all");
        }
        assert!(clients.iter().all(|(_, pipe)| pipe.lock().writes == round));
        rig.hub.turn();
        for (_, pipe) in &clients {
            assert_eq!(pipe.lock().writes, round + 1, "one for all eight");
            assert_eq!(pipe.frames(), sent);
        }
    }
}

#[test]
fn what_an_application_confirms_in_one_go_leaves_in_one_write() {
    let rig = Rig::new();
    let messages = rig.hub.messages().clone();
    let (line, pipe) = rig.client();
    let sent = texts(32, 300);
    sent.iter().for_each(|text| pipe.lock().inbound.extend(frame(text, true)));
    assert_eq!(rig.hub.readable(&line), Reading::Empty);
    while let Ok(message) = messages.try_recv() {
        assert!(message.confirm(()));
    }
    assert_eq!((pipe.lock().writes, rig.wakes()), (0, 1));
    rig.hub.turn();
    assert_eq!(pipe.lock().writes, 1);
    assert!(pipe.frames().iter().eq(sent.iter().map(|text| &text[..4])));
}

#[test]
fn whatever_comes_first_takes_along_what_waits_for_the_turn() {
    let rig = Rig::new();
    let _messages = rig.hub.messages();
    let [(line, reader), (_, other)] = [rig.client(), rig.client()];
    rig.publish("published");
    reader.lock().inbound.extend(frame("0000", true));
    rig.hub.readable(&line);
    assert_eq!((reader.frames(), other.frames()), (vec!["published".to_owned()], vec!["published".to_owned()]));
    // The next one asks again.
    rig.wakes();
    rig.publish("again");
    assert_eq!(rig.wakes(), 1);
    // Nothing that was sent is lost with the end.
    rig.hub.ended();
    assert_eq!(other.frames().first().map(String::as_str), Some("again"), "before the close frame");
}

#[test]
fn a_socket_that_blocks_at_any_byte_gets_everything_in_its_order() {
    let sent = texts(8, 150);
    let whole: usize = sent.iter().map(|text| frame(text, false).len()).sum();
    for room in 0..whole {
        let rig = Rig::new();
        let (line, pipe) = rig.client();
        pipe.lock().room = room;
        sent.iter().for_each(|text| rig.publish(text));
        rig.hub.turn();
        let watched =
            |action: &Action<Numbers>| matches!(action, Action::Watch(watched) if watched.conn() == line.conn());
        assert_eq!(rig.take().iter().filter(|action| watched(action)).count(), 1, "{room}");
        rig.publish("last");
        rig.hub.turn();
        assert_eq!(pipe.lock().outbound.len(), room);
        // A byte at first, as a slow reader takes it.
        pipe.lock().room = 1;
        assert!(rig.hub.writable(&line) || room + 1 == whole, "{room}");
        pipe.lock().room = usize::MAX;
        rig.hub.writable(&line);
        rig.hub.turn();
        assert!(pipe.frames().iter().eq(sent.iter().chain([&"last".to_owned()])), "{room}");
    }
}

#[test]
fn what_is_published_without_a_turn_fills_no_memory() {
    let rig = Rig::new();
    let (line, pipe) = rig.client();
    pipe.lock().room = 0;
    for text in texts(2000, 1000) {
        rig.publish(&text);
    }
    // It is not asked again before it has taken something.
    assert_eq!(pipe.lock().writes, 1);
    pipe.lock().room = usize::MAX;
    assert!(!rig.hub.writable(&line));
    rig.hub.turn();
    let frames = pipe.frames();
    // Seventeen lay in the line; of the others the newest 256 were kept.
    assert_eq!((frames.len(), rig.hub.stats().lost), (17 + 256, 2000 - 17 - 256));
    assert!(frames.last().is_some_and(|last| last.starts_with("1999")));
}

#[test]
fn what_is_sent_by_a_node_in_one_go_leaves_in_one_write() {
    let node = Node::new(&Setup::ml_node("127.0.0.1:0").unwrap(), || ()).unwrap();
    let pipe = Pipe::open();
    node.accepted(Box::new(pipe.clone()), b"").unwrap();
    pipe.lock().inbound.extend(frame(r#"{"type":"ready"}"#, true));
    node.turn(&mut Vec::new());
    pipe.lock().writes = 0;
    let receipts: Vec<_> = (0..8)
        .map(|n| node.try_send(&Kind::Generated, format!(r#"{{"node_id":{n}}}"#), Policy::DEFAULT).unwrap())
        .collect();
    assert_eq!(pipe.lock().writes, 0);
    node.turn(&mut Vec::new());
    assert_eq!(pipe.lock().writes, 1);
    assert_eq!(pipe.frames().len(), receipts.len());
}
