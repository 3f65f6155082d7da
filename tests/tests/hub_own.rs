//! A hub that speaks a protocol of one's own: lines of text, a name first.

use bowline::ContentKey;
use bowline::hub::HubConfig;
use bowline::wire::KeyedHash;
use bowline_smol::hub::{Admission, TopicFilter};
use bowline_smol::hub::{
    Claim, Complaint, Content, Event, Heard, Hub, HubSetup, HubWire, Letter, Misread, Publish, Said,
};
use bowline_smol::hub::{Start, Text, Wish};
use bowline_transport::http::{Bytes, Routes};
use core::time::Duration;
use std::borrow::Cow;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tungstenite::{Message, WebSocket};

const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Lines(Routes<'static>);

/// Where devices come in.
const DEVICES: Routes<'static> =
    Routes { websockets: &["/devices"], callbacks: &["/readings"], guarded: true, ..Routes::NONE };

impl HubWire for Lines {
    type Peer = String;
    type Proof = ();
    type Confirmation = ();
    type Encoded = String;

    const LONGEST_FRAME: usize = 4096;

    fn routes(&self) -> Routes<'static> {
        self.0
    }

    fn claim(&self, _: &KeyedHash, text: &str) -> Option<Claim<Self>> {
        let name = text.strip_prefix("I am ")?;
        Some(Claim { peer: name.to_owned(), proof: (), stamp: None })
    }

    fn holds(&self, peer: &String, (): &()) -> bool {
        peer != "somebody else"
    }

    fn read(&self, _: &KeyedHash, _: &String, text: &Bytes) -> Heard {
        let line = core::str::from_utf8(text).unwrap();
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        match verb {
            "measured" => {
                // Its name by which it is confirmed comes first.
                let (id, value) = rest.split_once(' ').expect("a wire of somebody's own may be wrong");
                let data = text.slice_ref(value.as_bytes());
                let content = Content { kind: "measured".into(), data, id: Some(id.into()) };
                Heard { said: Said::Message(content), ..Heard::OTHER }
            }
            "hear" => {
                let filter = TopicFilter::new(rest).unwrap();
                let wish = Wish { filter, since: Some(Start::Oldest), yes: Some("yes".into()), no: Some("no".into()) };
                Heard { said: Said::Subscribe(Box::new(wish)), ..Heard::OTHER }
            }
            _ => Heard::MALFORMED,
        }
    }

    /// A device that posts says its name first.
    fn letter(&self, names: &KeyedHash, body: &Bytes) -> Result<Letter<String>, Misread> {
        let text = core::str::from_utf8(body).unwrap();
        let (peer, line) = text.split_once(' ').ok_or(Misread::Malformed("no name".into()))?;
        let peer = peer.to_owned();
        let heard = self.read(names, &peer, &body.slice_ref(line.as_bytes()));
        Ok(Letter { peer, heard })
    }

    fn encode(&self, kind: &str, data: &str) -> Result<String, Cow<'static, str>> {
        if data.contains('\n') { Err("more than one line".into()) } else { Ok(format!("{kind} {data}")) }
    }

    fn size(encoded: &String) -> usize {
        encoded.len()
    }

    fn frame(&self, encoded: &String, to: &String) -> Text {
        format!("{to}: {encoded}").into()
    }

    fn welcome(&self, peer: &String, window: Duration) -> Option<Text> {
        Some(format!("welcome {peer}, spread over {} s", window.as_secs()).into())
    }

    fn confirmation(&self, id: &str, _: ContentKey, said: Result<&(), &str>) -> Option<Text> {
        Some(said.map_or_else(|why| format!("refused {id}: {why}"), |()| format!("stored {id}")).into())
    }

    fn complain(&self, peer: &String, complaint: Complaint<'_>) -> Option<Text> {
        Some(format!("{peer}: {complaint}").into())
    }
}

struct Device(WebSocket<TcpStream>);

impl Device {
    fn open(hub: &Hub<Lines>) -> Self {
        let stream = TcpStream::connect(hub.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self(tungstenite::client(format!("ws://{}/devices", hub.address()), stream).unwrap().0)
    }

    fn say(&mut self, text: &str) -> &mut Self {
        self.0.send(Message::text(text)).unwrap();
        self
    }

    /// The next text, or the code of the end.
    fn hears(&mut self) -> Result<String, u16> {
        loop {
            match self.0.read().unwrap() {
                Message::Text(text) => return Ok(text.as_str().to_owned()),
                Message::Close(frame) => return Err(frame.map_or(1005, |frame| frame.code.into())),
                _ => {}
            }
        }
    }
}

fn hub() -> Hub<Lines> {
    let setup = HubSetup::with("127.0.0.1:0", Lines(DEVICES), HubConfig::DEFAULT).unwrap();
    let setup = setup.authorize(|name| match name.as_str() {
        "sensor-7" => Admission::accept(),
        _ => Admission::Refuse("never heard of it".into()),
    });
    Hub::start(setup.on("measured", |message| async move {
        match message.data().as_ref() {
            b"nonsense" => Err("no number"),
            _ => Ok(()),
        }
    }))
    .unwrap()
}

#[test]
fn a_protocol_of_ones_own_has_all_that_a_hub_has() {
    let hub = hub();
    let mut device = Device::open(&hub);
    device.say("I am sensor-7");
    assert_eq!(device.hears().unwrap(), "welcome sensor-7, spread over 30 s");
    assert_eq!(device.say("measured m-1 20.5").hears().unwrap(), "stored m-1");
    assert_eq!(device.say("measured m-2 nonsense").hears().unwrap(), "refused m-2: no number");
    assert_eq!(device.say("measured m-1 20.5").hears().unwrap(), "stored m-1", "a copy is answered, not handled");
    assert_eq!(hub.stats().delivered, 2);

    assert_eq!(hub.publish_topic("alarms", "fire", "in the kitchen").unwrap().reached, 0);
    assert_eq!(device.say("hear alarms").hears().unwrap(), "yes");
    assert_eq!(device.hears().unwrap(), "sensor-7: fire in the kitchen", "what history held");
    hub.publish("all", "at once", Publish::DEFAULT).unwrap();
    assert_eq!(device.hears().unwrap(), "sensor-7: all at once");
    drop(hub.send("sensor-7".to_owned(), "only", "you").unwrap());
    assert_eq!(device.hears().unwrap(), "sensor-7: only you");
    assert!(hub.publish("all", "two\nlines", Publish::DEFAULT).is_err());
}

#[test]
fn whoever_is_not_who_it_says_or_nobody_known_is_turned_away() {
    let hub = hub();
    for first in ["I am somebody else", "I am new here", "hello"] {
        assert_eq!(Device::open(&hub).say(first).hears(), Err(1008), "{first}");
    }
    assert_eq!(hub.health().sessions, 0);
}

#[test]
fn a_wire_that_panics_costs_a_frame_and_no_line() {
    let hub = hub();
    let mut device = Device::open(&hub);
    device.say("I am sensor-7").hears().unwrap();
    assert_eq!(device.say("measured").hears().unwrap(), "sensor-7: not understood");
    assert_eq!(device.say("measured m-1 20.5").hears().unwrap(), "stored m-1");
}

/// The status and the body of the answer to what a device posts.
fn post(hub: &Hub<Lines>, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(hub.address()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let length = body.len();
    let head = format!("POST /readings HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A miner that was told that its message is stored has had it handed over: also where an earlier one has its id.
#[test]
fn i5_an_id_that_names_another_message_is_refused_by_either_path_and_told() {
    let hub = hub();
    let events = hub.events();
    let mut device = Device::open(&hub);
    device.say("I am sensor-7").hears().unwrap();
    assert_eq!(device.say("measured m-1 20.5").hears().unwrap(), "stored m-1");
    assert_eq!(device.say("measured m-2 20.5").hears().unwrap(), "stored m-2", "both are meant");
    let reused = "sensor-7: the id m-1 was used for another message";
    assert_eq!(device.say("measured m-1 21.5").hears().unwrap(), reused);
    let refused = (422, "refused m-1: this id was used for another message".to_owned());
    assert_eq!(post(&hub, "sensor-7 measured m-1 22.5"), refused);
    assert_eq!(post(&hub, "sensor-7 measured m-1 20.5"), (200, "stored m-1".into()), "a copy is none");
    assert_eq!(post(&hub, "sensor-7 measured m-3 20.5"), (200, "stored m-3".into()));
    assert_eq!(device.say("measured m-3 1").hears().unwrap(), "sensor-7: the id m-3 was used for another message");
    assert_eq!(hub.stats().delivered, 3);
    let mut events = smol::stream::block_on(events);
    let told = |event: &Event<String>| matches!(event, Event::IdReused { peer, total: 3 } if peer == "sensor-7");
    assert!(events.any(|event| told(&event)), "I5: the application is told each time");
}

/// Today's example of a hub's wire left `guarded` out: it accepted every upgrade and dropped the connection in silence.
#[test]
fn u14_routes_that_leave_out_what_a_hub_needs_are_refused_by_name() {
    let start = |routes, websocket, native: bool| {
        let setup = HubSetup::with("127.0.0.1:0", Lines(routes), HubConfig::DEFAULT).unwrap();
        let setup = setup.authorize(|_| Admission::accept()).enabled(websocket);
        let setup = if native { setup.native(|_| Admission::accept()) } else { setup };
        Hub::start(setup).map(drop).map_err(|error| error.to_string())
    };
    let fine = |routes| assert_eq!(start(routes, true, false), Ok(()), "{routes:?}");
    let posts: &[&str] = &["/devices/readings"];
    fine(DEVICES);
    fine(Routes { callbacks: posts, pages: &["/health", "/own/stats", "/metrics"], ..DEVICES });
    for (routes, websocket, native, named) in [
        (Routes { guarded: false, ..DEVICES }, true, false, "routes.guarded: "),
        (Routes { guarded: false, websockets: &[], ..DEVICES }, true, true, "routes.guarded: "),
        (Routes { websockets: &[], ..DEVICES }, true, false, "routes.websockets: "),
        (Routes { callbacks: &[], ..DEVICES }, false, false, "routes.callbacks: "),
        (Routes { websockets: &["devices"], ..DEVICES }, true, false, "routes: "),
        (Routes { callbacks: DEVICES.websockets, ..DEVICES }, true, false, "routes: "),
        (Routes { pages: &["/dashboard"], ..DEVICES }, true, false, "routes.pages: "),
    ] {
        let error = start(routes, websocket, native).unwrap_err();
        assert!(error.contains(named), "{routes:?}: {error}");
    }
    assert_eq!(start(Routes { callbacks: posts, ..Routes::NONE }, false, false), Ok(()), "by HTTP alone");
    assert_eq!(start(Routes { guarded: true, ..Routes::NONE }, true, true), Ok(()), "native clients alone");
}

/// The last part of a path that means something else at another place.
#[test]
fn u14_a_path_is_known_by_all_of_it() {
    let routes = Routes { callbacks: &["/posted/devices"], ..DEVICES };
    let setup = HubSetup::with("127.0.0.1:0", Lines(routes), HubConfig::DEFAULT).unwrap();
    let hub = Hub::start(setup.authorize(|_| Admission::accept())).unwrap();
    let mut socket = TcpStream::connect(hub.address()).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "POST /posted/devices HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
    let answer = std::io::read_to_string(socket).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "this wire takes no messages by HTTP: {answer}");
    assert_eq!(hub.health().pending, 0, "nobody was let in");
}

/// U14: no message of the longest length could ever be taken.
#[test]
fn u14_a_limit_of_held_bytes_below_the_longest_frames_is_refused() {
    let config = HubConfig { held_bytes: 18 * 4095, ..HubConfig::DEFAULT };
    let setup = HubSetup::with("127.0.0.1:0", Lines(DEVICES), config).unwrap().authorize(|_| Admission::accept());
    let error = Hub::start(setup).unwrap_err().to_string();
    assert!(error.contains("held_bytes: "), "{error}");
    let setup = HubSetup::with("127.0.0.1:0", Lines(DEVICES), HubConfig::DEFAULT).unwrap();
    let setup = setup.authorize(|_| Admission::accept()).http_limits(|limits| limits.head = Duration::ZERO);
    let error = Hub::start(setup).unwrap_err().to_string();
    assert!(error.contains("http_limits.head: "), "{error}");
}
