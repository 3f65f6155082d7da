//! Writing frames: members in the order of the page, the payload last and as it is.

use alloc::string::String;
use core::fmt::Write as _;
use core::time::Duration;

use super::{Frame, Hello, MAX_WORDS, Poll, Position, Since, Ticket, Welcome};
use crate::ids::{Origin, Seq};
use crate::marks::{Beat, Nack, Report};
use crate::resume::{Got, Greeting};
use crate::wire::escape;

impl Frame<'_> {
    /// The frame, to be sent as text. A payload must be JSON, see [`check`](super::check). Spans are cut to whole
    /// milliseconds, and to 2³² − 1 of them; words for people to 1 KiB.
    ///
    /// ```
    /// use bowline::Seq;
    /// use bowline::wire::native::{Frame, Since};
    /// let frame = Frame::Subscribe { topic: "news".into(), since: Some(Since::Oldest) };
    /// assert_eq!(frame.encode(), r#"{"type":"subscribe","topic":"news","since":"oldest"}"#);
    /// assert_eq!(Frame::Batch(vec!["{}", "{}"]).encode(), r#"{"type":"batch","frames":[{},{}]}"#);
    /// ```
    #[must_use]
    pub fn encode(&self) -> String {
        match self {
            Self::Hello(hello) => encode_hello(hello),
            Self::Welcome(welcome) => encode_welcome(welcome),
            Self::Refused { reason } => Object::typed("refused").text("reason", reason.as_str()),
            Self::Data { seq, una, kind, data } => {
                let head = Object::with_room("data", data).seq("seq", *seq).seq("una", *una);
                head.text("kind", kind).raw("data", data)
            }
            Self::Marks { report, una, beat } => {
                let head = match beat {
                    Beat::None => Object::typed("ack"),
                    Beat::Ping(n) => Object::typed("ping").number("n", *n),
                    Beat::Pong(n) => Object::typed("pong").number("n", *n),
                };
                head.report(report).number("win", report.win.into()).seq("una", *una)
            }
            Self::Nack { seq, nack, reason } => {
                let head = Object::typed("nack").seq("seq", *seq);
                let head = match nack {
                    Nack::Retry { after } => head.text("code", "retry").span("after", *after),
                    Nack::Busy { after } => head.text("code", "busy").span("after", *after),
                    Nack::Reject => head.text("code", "reject"),
                };
                if reason.is_empty() { head } else { head.text("reason", words(reason)) }
            }
            Self::Subscribe { topic, since } => {
                let head = Object::typed("subscribe").text("topic", topic);
                match since {
                    None => head,
                    Some(Since::Oldest) => head.text("since", "oldest"),
                    Some(Since::After(at)) => head.raw("since", &Object::new().position(*at).end()),
                }
            }
            Self::Unsubscribe { topic } => Object::typed("unsubscribe").text("topic", topic),
            Self::Subscribed { topic, ok, at } => {
                Object::typed("subscribed").text("topic", topic).flag("ok", *ok).optional(*at, Object::position)
            }
            Self::Unsubscribed { topic, ok } => Object::typed("unsubscribed").text("topic", topic).flag("ok", *ok),
            Self::Event { topic, at, kind, data } => {
                let head = Object::with_room("event", data).text("topic", topic).position(*at);
                head.text("kind", kind).raw("data", data)
            }
            Self::Missed { topic, from: Position { epoch, offset }, to } => {
                let head = Object::typed("missed").text("topic", topic).number("epoch", (*epoch).into());
                head.number("from", *offset).number("to", *to)
            }
            Self::Reconnect { after, window } => {
                Object::typed("reconnect").span("after", *after).span("window", *window)
            }
            Self::Reauth { auth } => Object::typed("reauth").text("auth", auth),
            Self::Token { token } => Object::typed("token").text("token", token),
            Self::Error { message } => Object::typed("error").text("message", words(message)),
            Self::Batch(frames) => {
                let length = frames.iter().map(|frame| frame.len().saturating_add(1)).fold(0, usize::saturating_add);
                let mut list = String::with_capacity(length.saturating_add(2));
                for frame in frames {
                    list.push(if list.is_empty() { '[' } else { ',' });
                    list.push_str(frame);
                }
                list.push_str(if list.is_empty() { "[]" } else { "]" });
                Object::with_room("batch", &list).raw("frames", &list)
            }
            Self::Poll(Poll { report, una, wait }) => Object::typed("ping")
                .number("n", 0)
                .report(report)
                .number("win", report.win.into())
                .seq("una", *una)
                .span("wait", *wait),
            Self::Other { kind } => Object::typed(kind),
        }
        .end()
    }
}

fn encode_hello(hello: &Hello<'_>) -> Object {
    let Hello { cid, ticket, auth, greeting } = hello;
    let head = Object::typed("hello").number("v", 1).text("cid", cid).origin(greeting.origin);
    let head = head.flag("resume", greeting.resume).optional(ticket.as_ref(), Object::ticket).marks(greeting);
    let head = head.span("max_life", greeting.life).flag("order", greeting.order);
    head.optional(auth.as_deref(), |head, auth| head.text("auth", auth))
}

fn encode_welcome(welcome: &Welcome<'_>) -> Object {
    let Welcome { ticket, reason, greeting, heartbeat, dead, window, frame } = welcome;
    let head = Object::typed("welcome").number("v", 1).ticket(ticket).flag("resumed", greeting.resume);
    let head = head.optional(*reason, |head, reason| head.text("reason", reason.as_str()));
    let head = head.origin(greeting.origin).marks(greeting).span("hb", *heartbeat).span("dead", *dead);
    let head = head.span("window", *window).span("dedupe_ttl", greeting.life);
    head.number("frame", u64::try_from(*frame).unwrap_or(u64::MAX)).flag("order", greeting.order)
}

/// As much of a text for people as a receiver takes.
fn words(text: &str) -> &str {
    let end = (0..=MAX_WORDS.min(text.len())).rev().find(|&end| text.is_char_boundary(end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// A JSON object that is being written.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self(String::from("{"))
    }

    fn typed(kind: &str) -> Self {
        Self::with_room(kind, "")
    }

    /// With the memory for a payload and a head of the usual length, so that it is taken once.
    fn with_room(kind: &str, payload: &str) -> Self {
        let mut text = String::with_capacity(payload.len().saturating_add(192));
        text.push('{');
        Self(text).text("type", kind)
    }

    fn end(self) -> String {
        let Self(mut text) = self;
        text.push('}');
        text
    }

    fn name(mut self, name: &str) -> Self {
        self.0.push_str(if self.0.len() == 1 { "\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
        self
    }

    fn raw(self, name: &str, json: &str) -> Self {
        let mut object = self.name(name);
        object.0.push_str(json);
        object
    }

    fn text(self, name: &str, text: &str) -> Self {
        let mut object = self.name(name);
        object.0.push('"');
        escape(&mut object.0, text);
        object.0.push('"');
        object
    }

    fn number(self, name: &str, number: u64) -> Self {
        let mut object = self.name(name);
        // Writing to a `String` cannot fail.
        let _ = write!(object.0, "{number}");
        object
    }

    fn map(self, name: &str, map: u64) -> Self {
        let mut object = self.name(name);
        let _ = write!(object.0, "\"{map:x}\"");
        object
    }

    fn seq(self, name: &str, seq: Seq) -> Self {
        self.number(name, seq.get())
    }

    fn span(self, name: &str, span: Duration) -> Self {
        // Up, because most are lower bounds.
        let millis = span.as_nanos().div_ceil(1_000_000);
        self.number(name, u64::try_from(millis).unwrap_or(u64::MAX).min(u32::MAX.into()))
    }

    fn flag(self, name: &str, flag: bool) -> Self {
        self.raw(name, if flag { "true" } else { "false" })
    }

    fn optional<T>(self, value: Option<T>, write: impl FnOnce(Self, T) -> Self) -> Self {
        match value {
            Some(value) => write(self, value),
            None => self,
        }
    }

    fn ticket(self, ticket: &Ticket<'_>) -> Self {
        self.text("sid", &ticket.sid).text("token", &ticket.token)
    }

    fn origin(self, origin: Origin) -> Self {
        let mut object = self.name("origin");
        let _ = write!(object.0, "\"{:012x}\"", origin.identity());
        object.number("epoch", origin.epoch().into())
    }

    fn position(self, at: Position) -> Self {
        self.number("epoch", at.epoch.into()).number("offset", at.offset)
    }

    /// `rx`, `tx` and `win`.
    fn marks(self, greeting: &Greeting) -> Self {
        let rx =
            |object: Self, Got { of, report }: Got| object.raw("rx", &Self::new().origin(of).report(&report).end());
        let tx = Self::new().seq("next", greeting.next).seq("una", greeting.una).end();
        self.optional(greeting.rx, rx).raw("tx", &tx).number("win", greeting.win.into())
    }

    fn report(self, report: &Report) -> Self {
        let behind = |map: u64| map.checked_shr(map.trailing_ones()).unwrap_or(0);
        let unless_empty = |map: u64| (map != 0).then_some(map);
        let head = self.seq("cum", report.cum());
        let head = head.optional(unless_empty(behind(report.done)), |head, map| head.map("sack", map));
        let head = head.seq("rcv", report.rcv());
        let head = head.optional(unless_empty(behind(report.arrived)), |head, map| head.map("rsack", map));
        head.optional(unless_empty(report.rejected), |head, map| {
            let mut head = head.name("rej");
            let numbers = (0..u64::BITS).filter(|&bit| map.checked_shr(bit).unwrap_or(0) & 1 == 1);
            for (at, bit) in numbers.enumerate() {
                head.0.push(if at == 0 { '[' } else { ',' });
                let _ = write!(head.0, "{}", report.base.plus(bit.into()).get());
            }
            head.0.push(']');
            head
        })
    }
}
