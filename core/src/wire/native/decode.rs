//! Reading frames: one pass over the flat object, everything in it raw until it is asked for.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::fields::{Fields, auth, flag, hexadecimal, inner, map, name, number, object, seq, span, word, words};
use super::{Frame, Hello, MAX_BATCH, MAX_NAME, MAX_WAIT, Poll, Position, Refusal, Since, Ticket, Welcome};
use crate::ids::{Origin, Seq};
use crate::marks::{Beat, Nack, Report, WINDOW};
use crate::resume::{Got, Greeting, ResumeRefusal};
use crate::wire::{WHITE, text};

/// Why a frame is not taken: answered with an `error` that says it; after sixteen the connection ends with 1002.
///
/// ```
/// use bowline::wire::native::{Malformed, decode};
/// assert_eq!(decode(b"[]"), Err(Malformed::Json));
/// assert_eq!(decode(br#"{"type":"data","seq":0}"#), Err(Malformed::Member("seq")));
/// let report = br#"{"type":"ack","cum":5,"rcv":4,"win":64,"una":1}"#;
/// assert_eq!(decode(report), Err(Malformed::Marks), "completed, but never arrived");
/// assert_eq!(Malformed::Member("seq").to_string(), "`seq` is missing, of a wrong kind or out of range");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// Not one JSON object in UTF-8.
    Json,
    /// A member we read occurs twice: readers would disagree on which one counts.
    Twice,
    /// This member is missing, of a wrong kind, or out of its range.
    Member(&'static str),
    /// Marks that contradict each other, or speak of numbers more than [`WINDOW`] apart.
    Marks,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json => f.write_str("not one JSON object in UTF-8"),
            Self::Twice => f.write_str("a member that occurs twice"),
            Self::Member(name) => write!(f, "`{name}` is missing, of a wrong kind or out of range"),
            Self::Marks => f.write_str("marks that contradict each other"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Reads a frame of either side, or the body of a request or an answer; of a poll, see [`Poll::decode`].
///
/// # Errors
///
/// [`Malformed`] says what is wrong with it.
pub fn decode(frame: &[u8]) -> Result<Frame<'_>, Malformed> {
    let json = core::str::from_utf8(frame).map_err(|_| Malformed::Json)?;
    let f = object(json)?;
    let kind = name(f.kind, "type")?;
    Ok(match &*kind {
        "hello" => Frame::Hello(hello(&f)?),
        "welcome" => Frame::Welcome(welcome(&f)?),
        "refused" => {
            let reason = name(f.reason, "reason")?;
            Frame::Refused { reason: Refusal::parse(&reason).ok_or(Malformed::Member("reason"))? }
        }
        "data" => Frame::Data {
            seq: seq(f.seq, "seq")?,
            una: seq(f.una, "una")?,
            kind: name(f.name, "kind")?,
            data: payload(&f)?,
        },
        "ack" => marks(&f, Beat::None)?,
        "ping" => marks(&f, Beat::Ping(number(f.n, "n")?))?,
        "pong" => marks(&f, Beat::Pong(number(f.n, "n")?))?,
        "nack" => Frame::Nack { seq: seq(f.seq, "seq")?, nack: nack(&f)?, reason: words(f.reason, "reason")? },
        "subscribe" => Frame::Subscribe { topic: name(f.topic, "topic")?, since: f.since.map(since).transpose()? },
        "unsubscribe" => Frame::Unsubscribe { topic: name(f.topic, "topic")? },
        "subscribed" => {
            let at = (f.epoch.is_some() || f.offset.is_some()).then(|| position(&f)).transpose()?;
            Frame::Subscribed { topic: name(f.topic, "topic")?, ok: flag(f.ok, "ok")?, at }
        }
        "unsubscribed" => Frame::Unsubscribed { topic: name(f.topic, "topic")?, ok: flag(f.ok, "ok")? },
        "event" => Frame::Event {
            topic: name(f.topic, "topic")?,
            at: position(&f)?,
            kind: name(f.name, "kind")?,
            data: payload(&f)?,
        },
        "missed" => {
            let (epoch, offset, to) = (epoch(&f)?, number(f.from, "from")?, number(f.to, "to")?);
            // With nothing missed of this epoch, all of an older one is.
            if to.saturating_add(1) < offset {
                return Err(Malformed::Member("to"));
            }
            Frame::Missed { topic: name(f.topic, "topic")?, from: Position { epoch, offset }, to }
        }
        "reconnect" => Frame::Reconnect { after: span(f.after, "after")?, window: span(f.window, "window")? },
        "reauth" => Frame::Reauth { auth: f.auth.and_then(auth).ok_or(Malformed::Member("auth"))? },
        "token" => Frame::Token { token: word(f.token, "token")? },
        // Never malformed, or two peers could answer each other's errors.
        "error" => Frame::Error { message: words(f.message, "message").unwrap_or_default() },
        "batch" => {
            let frames = f.frames.and_then(|raw| serde_json::from_str(raw.get()).ok());
            let Frames(frames) = frames.ok_or(Malformed::Member("frames"))?;
            Frame::Batch(frames)
        }
        _ => Frame::Other { kind },
    })
}

/// A text as it may be sent as `data`: one JSON value, without the white space around it. Ask before it is accepted for
/// sending.
///
/// ```
/// use bowline::wire::native::{Malformed, check};
/// assert_eq!(check(" [1, 2]\n"), Ok("[1, 2]"));
/// assert_eq!(check("[1, 2"), Err(Malformed::Json));
/// ```
///
/// # Errors
///
/// [`Malformed::Json`] if it is no JSON, or more than one value.
pub fn check(data: &str) -> Result<&str, Malformed> {
    let checked = serde_json::from_str::<IgnoredAny>(data);
    checked.map(|_| data.trim_matches(WHITE)).map_err(|_| Malformed::Json)
}

impl Poll {
    /// Reads the body of a poll.
    ///
    /// # Errors
    ///
    /// [`Malformed`] says what is wrong with it.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let json = core::str::from_utf8(body).map_err(|_| Malformed::Json)?;
        let f = object(json)?;
        if name(f.kind, "type")? != "ping" {
            return Err(Malformed::Member("type"));
        }
        let wait = span(f.wait, "wait")?;
        if wait > MAX_WAIT {
            return Err(Malformed::Member("wait"));
        }
        Ok(Self { report: report(&f, win(&f)?)?, una: seq(f.una, "una")?, wait })
    }
}

fn hello<'a>(f: &Fields<'a>) -> Result<Hello<'a>, Malformed> {
    let resume = flag(f.resume, "resume")?;
    Ok(Hello {
        cid: word(f.cid, "cid")?,
        ticket: resume.then(|| ticket(f)).transpose()?,
        auth: f.auth.map(|raw| auth(raw).ok_or(Malformed::Member("auth"))).transpose()?,
        greeting: greeting(f, resume, span(f.max_life, "max_life")?)?,
    })
}

fn welcome<'a>(f: &Fields<'a>) -> Result<Welcome<'a>, Malformed> {
    let reason =
        |raw| name(Some(raw), "reason").and_then(|name| ResumeRefusal::parse(&name).ok_or(Malformed::Member("reason")));
    Ok(Welcome {
        ticket: ticket(f)?,
        reason: f.reason.map(reason).transpose()?,
        greeting: greeting(f, flag(f.resumed, "resumed")?, span(f.dedupe_ttl, "dedupe_ttl")?)?,
        heartbeat: span(f.hb, "hb")?,
        dead: span(f.dead, "dead")?,
        window: span(f.window, "window")?,
        frame: usize::try_from(number(f.frame, "frame")?).unwrap_or(usize::MAX),
    })
}

fn ticket<'a>(f: &Fields<'a>) -> Result<Ticket<'a>, Malformed> {
    Ok(Ticket { sid: word(f.sid, "sid")?, token: word(f.token, "token")? })
}

/// What hello and welcome have in common.
fn greeting(f: &Fields<'_>, resume: bool, life: Duration) -> Result<Greeting, Malformed> {
    if number(f.v, "v")? != 1 {
        return Err(Malformed::Member("v"));
    }
    let tx = inner(f.tx, "tx")?;
    let win = win(f)?;
    let got = |rx: Fields<'_>| Ok(Got { of: origin(&rx)?, report: report(&rx, win)? });
    let (next, una) = (seq(tx.next, "next")?, seq(tx.una, "una")?);
    if una > next {
        return Err(Malformed::Marks);
    }
    Ok(Greeting {
        origin: origin(f)?,
        resume,
        rx: f.rx.map(|raw| inner(Some(raw), "rx").and_then(got)).transpose()?,
        next,
        una,
        win,
        life,
        order: flag(f.order, "order")?,
    })
}

fn origin(f: &Fields<'_>) -> Result<Origin, Malformed> {
    let identity = f.origin.and_then(|raw| text(raw, 12)).filter(|digits| digits.len() == 12);
    let identity = identity.and_then(|digits| hexadecimal(&digits)).ok_or(Malformed::Member("origin"))?;
    let epoch = u32::try_from(number(f.epoch, "epoch")?).ok().filter(|&epoch| epoch < 1 << 26);
    Ok(Origin::new(identity, epoch.ok_or(Malformed::Member("epoch"))?))
}

fn marks<'a>(f: &Fields<'a>, beat: Beat) -> Result<Frame<'a>, Malformed> {
    Ok(Frame::Marks { report: report(f, win(f)?)?, una: seq(f.una, "una")?, beat })
}

/// The lowest base from which everything that is said can be said in maps.
fn report(f: &Fields<'_>, win: u16) -> Result<Report, Malformed> {
    let (cum, sack) = (number(f.cum, "cum")?, map(f.sack, "sack")?);
    let (rcv, rsack) = (number(f.rcv, "rcv")?, map(f.rsack, "rsack")?);
    let rej = f.rej.map_or("", RawValue::get);
    let mut base = cum.saturating_add(1);
    for number in rejections(rej)? {
        base = base.min(number?);
    }
    let fits = |up_to, map| numbers(base, up_to, map).ok_or(Malformed::Marks);
    let (arrived, done, mut rejected) = (fits(rcv, rsack)?, fits(cum, sack)?, 0);
    for number in rejections(rej)? {
        rejected |= number?.checked_sub(base).and_then(bit).ok_or(Malformed::Marks)?;
    }
    let report = Report { base: Seq::from_number(base), arrived, done, rejected, win };
    let within = done & !arrived == 0 && rejected & !done == 0 && report.top() <= Seq::LAST;
    within.then_some(report).ok_or(Malformed::Marks)
}

/// The map from `base` on that has all numbers up to `up_to`, and those that `map` has behind it.
fn numbers(base: u64, up_to: u64, map: u64) -> Option<u64> {
    let count = u32::try_from(up_to.checked_add(1)?.checked_sub(base)?).ok()?;
    let below = if count == 0 { 0 } else { u64::MAX.checked_shr(u64::BITS.checked_sub(count)?)? };
    if map == 0 {
        return Some(below);
    }
    let moved = (map.leading_zeros() >= count).then(|| map.checked_shl(count)).flatten()?;
    Some(below | moved)
}

fn bit(at: u64) -> Option<u64> {
    1_u64.checked_shl(u32::try_from(at).ok()?)
}

/// The numbers in an array of at most [`WINDOW`] of them; an empty text is an empty array. In valid JSON whatever is not a
/// number leaves a piece between two commas that is none either, so no second parser is needed.
fn rejections(json: &str) -> Result<impl Iterator<Item = Result<u64, Malformed>>, Malformed> {
    const WRONG: Malformed = Malformed::Member("rej");
    let inside =
        if json.is_empty() { Some("") } else { json.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) };
    let inside = inside.ok_or(WRONG)?.trim_matches(WHITE);
    let pieces = || inside.split(',').filter(move |_| !inside.is_empty());
    if u64::try_from(pieces().count()).map_or(true, |count| count > WINDOW) {
        return Err(WRONG);
    }
    let number = |piece: &str| piece.trim_matches(WHITE).parse().ok().filter(|&n| n > 0 && n <= Seq::LAST.get());
    Ok(pieces().map(move |piece| number(piece).ok_or(WRONG)))
}

fn nack(f: &Fields<'_>) -> Result<Nack, Malformed> {
    let after = || f.after.map_or(Ok(Duration::ZERO), |raw| span(Some(raw), "after"));
    match &*name(f.code, "code")? {
        "retry" => Ok(Nack::Retry { after: after()? }),
        "busy" => Ok(Nack::Busy { after: after()? }),
        "reject" => Ok(Nack::Reject),
        _ => Err(Malformed::Member("code")),
    }
}

fn since(raw: &RawValue) -> Result<Since, Malformed> {
    const WRONG: Malformed = Malformed::Member("since");
    if raw.get().starts_with('"') {
        let oldest = text(raw, MAX_NAME).is_some_and(|text| text == "oldest");
        return oldest.then_some(Since::Oldest).ok_or(WRONG);
    }
    let at = inner(Some(raw), "since")?;
    position(&at).map(Since::After).map_err(|_| WRONG)
}

fn position(f: &Fields<'_>) -> Result<Position, Malformed> {
    Ok(Position { epoch: epoch(f)?, offset: number(f.offset, "offset")? })
}

fn epoch(f: &Fields<'_>) -> Result<u32, Malformed> {
    u32::try_from(number(f.epoch, "epoch")?).map_err(|_| Malformed::Member("epoch"))
}

fn payload<'a>(f: &Fields<'a>) -> Result<&'a str, Malformed> {
    f.data.map(RawValue::get).ok_or(Malformed::Member("data"))
}

/// How many messages more: no one takes more than a window, so what a `u16` cannot say makes no difference.
fn win(f: &Fields<'_>) -> Result<u16, Malformed> {
    Ok(u16::try_from(number(f.win, "win")?).unwrap_or(u16::MAX))
}

/// The frames of a batch, as they stand there.
struct Frames<'a>(Vec<&'a str>);

impl<'a> Deserialize<'a> for Frames<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FramesVisitor)
    }
}

struct FramesVisitor;

impl<'a> Visitor<'a> for FramesVisitor {
    type Value = Frames<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of at most {MAX_BATCH} frames")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut frames = Vec::new();
        while let Some(frame) = list.next_element::<&RawValue>()? {
            if frames.len() >= MAX_BATCH {
                return Err(serde::de::Error::invalid_length(frames.len(), &self));
            }
            frames.push(frame.get());
        }
        Ok(Frames(frames))
    }
}
