//! The inputs, replies and outputs of a session, with ages for numbers, and how they are translated.

use super::machine::Session;
use bowline::{
    Accepted, Answer, Arrival, DeliveryId, Ending, Event, Frame, Head, HttpOutcome, Input, Instant, LinkId, MessageId,
    Origin, Outcome, Output, Policy, PostId, Reason, Reply, RequestId, RetryHint, Seq, Verdict,
};
use core::time::Duration;

/// Number of connections since the newest, or of deliveries: 0 is the newest.
pub(super) type Age = u8;

/// A message's name on every path: its sender, the sender's life, and the number there.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub(super) struct Name {
    /// The sender.
    pub(super) side: u8,
    /// Its life.
    pub(super) life: u8,
    /// The number.
    pub(super) seq: u8,
}

impl Name {
    /// Who numbers a side's messages in one of its lives.
    pub(super) fn origin(side: u8, life: u8) -> Origin {
        Origin::new(u64::from(side) + 1, u32::from(life) + 1)
    }

    pub(super) fn id(self) -> MessageId {
        Self::origin(self.side, self.life).message(self.number())
    }

    pub(super) fn number(self) -> Seq {
        Seq::from_number(self.seq.into())
    }

    pub(super) fn of(id: MessageId) -> Self {
        let bits = id.bits();
        let small = |bits: u128| u8::try_from(bits).expect("an id of ours");
        let side = small((bits >> 80) - 1);
        let name = Self { side, life: small(((bits >> 48) & 0x3fff) - 1), seq: small(bits & 0xffff_ffff_ffff) };
        assert_eq!(name.id(), id, "an id of ours");
        name
    }
}

/// A frame, as it is received.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Heard {
    /// A message.
    Data(Name),
    /// An acknowledgement.
    Ack(Name),
    /// The transport's answer to a ping.
    Pong,
    /// The program's.
    Word,
    /// Nothing of consequence.
    Other,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Word {
    /// The peer: completed.
    Done,
    /// The peer: not yet.
    Busy,
    /// The peer: 409, for it is still at work on this one, or has given it back.
    Again,
    /// The peer: 500, as a receiver that can never take it.
    Poison,
    /// A go-between, with this status.
    Foreign(u16),
    /// Nobody is there.
    Unreached,
    /// Nobody knows.
    Unknown,
}

impl Word {
    pub(super) fn outcome(self) -> HttpOutcome {
        match self {
            Self::Done => HttpOutcome::status(200),
            Self::Again => HttpOutcome::status(409).with_after(Duration::from_secs(1)),
            Self::Busy => HttpOutcome::status(503).with_after(Duration::from_secs(1)),
            Self::Poison => HttpOutcome::status(500),
            Self::Foreign(status) => HttpOutcome::foreign(status),
            Self::Unreached => HttpOutcome::Unreached(Reason::PortClosed),
            Self::Unknown => HttpOutcome::Unknown(Reason::Timeout),
        }
    }
}

/// An input, with ages for numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Act {
    /// Time passes, in milliseconds.
    Pass(u32),
    /// [`Input::Start`].
    Start,
    /// [`Input::Accept`].
    Accept,
    /// [`Input::LinkUp`].
    LinkUp(Age),
    /// [`Input::LinkDown`].
    LinkDown(Age, Down),
    /// [`Input::Received`].
    Received(Age, Heard),
    /// [`Input::Posted`]: number, attempt.
    Posted(u8, u16, Word),
    /// [`Input::Request`].
    Request(u8, Name),
    /// [`Input::RequestGone`].
    RequestGone(u8),
    /// [`Input::Send`].
    Send(u8),
    /// [`Input::Complete`].
    Complete(Age),
    /// [`Input::Close`], with a drain in seconds.
    Close(u16),
}

/// How a connection or an attempt ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Down {
    /// With this code.
    Closed(u16),
    /// A go-between wants to know who this is.
    Login,
    /// Nobody listens.
    Nobody,
}

/// The answer to an [`Act`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Said {
    /// Taken.
    Done,
    /// It concerns something that is over.
    Stale,
    /// The newcomer has the place.
    Opened,
    /// It waits.
    Probing,
    /// It must go; or the message is not accepted.
    Refused,
    /// The message is accepted under this number.
    Queued(u8),
    /// The message goes to the application.
    Deliver {
        /// It may be known to a former self.
        maybe_dup: bool,
    },
    /// It does not.
    Known,
    /// The request is answered.
    Answered(Word),
}

/// An [`Output`], with ages for numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Out {
    /// [`Output::Close`]; by this code, or at once.
    Close(Age, Option<u16>),
    /// [`Output::Refuse`].
    Refuse(Age),
    /// [`Output::Connect`].
    Connect(Age),
    /// [`Event::Settled`].
    Settled(u8, Outcome),
    /// Any other event.
    Told,
    /// [`Output::Respond`].
    Respond(u8, Word),
    /// [`Frame::Ack`].
    Ack(Age, Name),
    /// [`Output::Probe`].
    Probe(Age),
    /// [`Frame::Ping`].
    Ping(Age),
    /// [`Frame::Data`]: number and payload.
    Data(Age, u8, u8),
    /// [`Output::Post`]: number, attempt and payload.
    Post(u8, u16, u8),
}

pub(super) fn small(number: u64) -> u8 {
    u8::try_from(number).expect("a few")
}

pub(super) fn input(session: &Session, act: Act) -> (Instant, Input<u8>) {
    let now = session.now();
    let stats = session.stats();
    let link = |age: Age| LinkId::from_number(stats.attempts - u64::from(age));
    let input = match act {
        Act::Pass(span) => return (now.after(Duration::from_millis(span.into())), Input::Tick),
        Act::Start => Input::Start,
        Act::Accept => Input::Accept,
        Act::LinkUp(age) => Input::LinkUp { link: link(age) },
        Act::LinkDown(age, down) => {
            let reason = match down {
                Down::Closed(code) => Reason::Closed(code),
                Down::Login => Reason::Status(401),
                Down::Nobody => Reason::PortClosed,
            };
            Input::LinkDown { link: link(age), reason, hint: RetryHint::NONE }
        }
        Act::Received(age, heard) => {
            let head = match heard {
                Heard::Data(name) => Head::Data { id: Some(name.id()), key: None },
                Heard::Ack(name) => Head::Ack { id: name.id() },
                Heard::Pong => Head::Pong,
                Heard::Word => Head::Word { pong: true },
                Heard::Other => Head::Other,
            };
            Input::Received { link: link(age), head }
        }
        Act::Posted(seq, attempt, word) => {
            let post = PostId { seq: Seq::from_number(seq.into()), attempt: attempt.into() };
            Input::Posted { post, outcome: word.outcome() }
        }
        Act::Request(request, name) => {
            Input::Request { request: RequestId(request.into()), id: Some(name.id()), key: None }
        }
        Act::RequestGone(request) => Input::RequestGone { request: RequestId(request.into()) },
        // Of no size, so that no time is needed for its way.
        Act::Send(payload) => Input::Send { payload, size: 0, policy: Policy::DEFAULT },
        Act::Complete(age) => {
            let delivery = DeliveryId::from_number(stats.delivered - u64::from(age));
            Input::Complete { delivery, verdict: Verdict::Done }
        }
        Act::Close(drain) => Input::Close { drain: Duration::from_secs(drain.into()) },
    };
    (now, input)
}

pub(super) fn said(reply: Reply<u8>) -> Said {
    match reply {
        Reply::Done => Said::Done,
        Reply::Stale => Said::Stale,
        Reply::Accepted(Accepted::Open(_)) => Said::Opened,
        Reply::Accepted(Accepted::Probing(_)) => Said::Probing,
        Reply::Accepted(Accepted::Refused) | Reply::Refused(..) => Said::Refused,
        Reply::Queued(seq) => Said::Queued(small(seq.get())),
        Reply::Arrival(Arrival::Deliver { maybe_dup, .. }) => Said::Deliver { maybe_dup },
        Reply::Arrival(Arrival::Duplicate | Arrival::Full) => Said::Known,
        Reply::Arrival(Arrival::Answer(answer)) => Said::Answered(answered(answer)),
        Reply::Arrival(Arrival::Ahead { .. } | Arrival::Reused) | Reply::Greeted(_) => {
            unreachable!("{reply:?} of a plain peer")
        }
    }
}

pub(super) fn answered(answer: Answer) -> Word {
    match answer {
        Answer::Done => Word::Done,
        Answer::Again { .. } => Word::Again,
        Answer::Busy { .. } => Word::Busy,
        answer => unreachable!("{answer:?} to a plain peer, whose messages are never rejected"),
    }
}

/// An output, and the connection that it is for, which has no age yet.
pub(super) fn raw(output: Output<'_, u8>) -> (Option<LinkId>, Out) {
    match output {
        Output::Close { link, ending: Ending::Code(code) } => (Some(link), Out::Close(0, Some(code))),
        Output::Close { link, ending: Ending::Drop } => (Some(link), Out::Close(0, None)),
        Output::Refuse { link } => (Some(link), Out::Refuse(0)),
        Output::Connect { link } => (Some(link), Out::Connect(0)),
        Output::Event(Event::Settled { seq, outcome, .. }) => (None, Out::Settled(small(seq.get()), outcome)),
        Output::Event(_) => (None, Out::Told),
        Output::Respond { request, answer } => (None, Out::Respond(small(request.0), answered(answer))),
        Output::Probe { link } => (Some(link), Out::Probe(0)),
        Output::Frame { link, frame: Frame::Ack { id } } => (Some(link), Out::Ack(0, Name::of(id))),
        Output::Frame { link, frame: Frame::Ping | Frame::Keepalive } => (Some(link), Out::Ping(0)),
        Output::Frame { link, frame: Frame::Data { seq, payload, .. } } => {
            (Some(link), Out::Data(0, small(seq.get()), *payload))
        }
        Output::Post { post, payload, .. } => {
            (None, Out::Post(small(post.seq.get()), u16::try_from(post.attempt).expect("some"), *payload))
        }
        output => unreachable!("only a native session says {output:?}"),
    }
}

/// The same, and how old its connection is.
pub(super) fn aged(newest: u64, link: Option<LinkId>, out: Out) -> Out {
    let age = link.map_or(0, |link| small(newest - link.get()));
    match out {
        Out::Close(_, code) => Out::Close(age, code),
        Out::Refuse(_) => Out::Refuse(age),
        Out::Connect(_) => Out::Connect(age),
        Out::Ack(_, name) => Out::Ack(age, name),
        Out::Probe(_) => Out::Probe(age),
        Out::Ping(_) => Out::Ping(age),
        Out::Data(_, seq, payload) => Out::Data(age, seq, payload),
        Out::Settled(..) | Out::Told | Out::Respond(..) | Out::Post(..) => out,
    }
}
