//! The codec of the native wire against `vectors/native.jsonl`, which other languages can check themselves by, and
//! against chance.

use core::time::Duration;
use std::borrow::Cow;

use bowline::wire::native::{
    Frame, Hello, MAX_AUTH, MAX_WORDS, Malformed, Poll, Position, Refusal, Since, Ticket, Welcome, check, decode,
};
use bowline::{Beat, Got, Greeting, Nack, Origin, Report, ResumeRefusal, Seq};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::Value;

const VECTORS: &str = include_str!("../vectors/native.jsonl");

/// A frame and what is to become of it.
struct Row {
    frame: String,
    note: String,
    /// Its type, if it is one.
    kind: String,
    /// Ours is spelt just so.
    exact: bool,
    /// What a receiver says of numbers: those that are completed, have arrived, are missing, are rejected; and the limit.
    marks: Value,
    /// It is the body of a poll.
    poll: bool,
    /// Why it is none.
    malformed: Option<String>,
}

fn rows() -> Vec<Row> {
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Row {
            frame: text("frame").unwrap(),
            note: text("note").unwrap(),
            kind: text("kind").unwrap_or_default(),
            exact: row["exact"] == true,
            marks: row["marks"].clone(),
            poll: row["poll"] == true,
            malformed: text("malformed"),
        }
    };
    VECTORS.lines().map(row).collect()
}

fn read(row: &Row) -> Result<Frame<'_>, Malformed> {
    if row.poll { Poll::decode(row.frame.as_bytes()).map(Frame::Poll) } else { decode(row.frame.as_bytes()) }
}

fn kind(frame: &Frame<'_>) -> String {
    match frame {
        Frame::Poll(_) => "poll".to_owned(),
        _ => serde_json::from_str::<Value>(&frame.encode()).unwrap()["type"].as_str().unwrap().to_owned(),
    }
}

#[test]
fn every_vector_is_read_as_it_says() {
    for row in rows() {
        let Row { frame, note, .. } = &row;
        let read = read(&row);
        if let Some(why) = &row.malformed {
            assert_eq!(read.map_err(|e| e.to_string()).as_ref(), Err(why), "{note}: {frame}");
            continue;
        }
        let read = read.unwrap_or_else(|e| panic!("{e} ({note}): {frame}"));
        assert_eq!(kind(&read), row.kind, "{note}: {frame}");
        let written = read.encode();
        assert_eq!(&written == frame, row.exact, "{note}: {frame} as {written}");
        if let (Frame::Marks { report, .. }, Value::Object(marks)) = (read, &row.marks) {
            let numbers = |name: &str| -> Vec<u64> {
                marks
                    .get(name)
                    .map_or(vec![], |list| list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect())
            };
            let says = |name: &str, is: (bool, bool, bool)| {
                for n in numbers(name) {
                    assert_eq!(report.of(Seq::from_number(n)), is, "{n} is {name}, {note}: {frame}");
                }
            };
            says("completed", (true, true, false));
            says("rejected", (true, true, true));
            says("arrived", (true, false, false));
            says("missing", (false, false, false));
            assert_eq!(report.limit().get(), marks["limit"].as_u64().unwrap(), "{note}: {frame}");
        }
    }
}

#[test]
fn every_frame_has_a_vector() {
    let rows = rows();
    let named = "hello welcome refused data ack ping pong nack subscribe unsubscribe subscribed unsubscribed event missed \
                 reconnect reauth token error batch poll";
    for kind in named.split_whitespace() {
        assert!(rows.iter().any(|row| row.kind == kind && row.exact), "no example of {kind}");
    }
    assert!(rows.iter().filter(|row| row.malformed.is_some()).count() > 60);
}

/// Cut off at any place or with any byte replaced: no panic, and what is still a frame is one again.
#[test]
fn no_frame_that_is_bent_panics() {
    for row in rows().iter().filter(|row| row.frame.len() < 600) {
        let bytes = row.frame.as_bytes();
        for at in 0..bytes.len() {
            assert!(decode(&bytes[..at]).is_err() || row.frame[at..].trim().is_empty(), "{}", row.frame);
            for replaced in [b'0', b'9', b'"', b'{', b'}', b',', b'-', b'e', b'n', 0, 0xff] {
                let mut bent = bytes.to_vec();
                bent[at] = replaced;
                reads_again(&bent);
            }
        }
    }
}

fn reads_again(bytes: &[u8]) {
    if let Ok(poll) = Poll::decode(bytes) {
        assert_eq!(Poll::decode(Frame::Poll(poll).encode().as_bytes()).map(meaning_of_poll), Ok(meaning_of_poll(poll)));
    }
    if let Ok(frame) = decode(bytes) {
        same(&frame);
    }
}

fn meaning_of_poll(poll: Poll) -> (Seq, Seq, Seq, Duration) {
    (poll.report.cum(), poll.report.limit(), poll.una, poll.wait)
}

/// Encoded and decoded, a frame is what it was; a report may have another base, and says the same of every number.
fn same(frame: &Frame<'_>) {
    let text = frame.encode();
    let again = decode(text.as_bytes()).unwrap_or_else(|e| panic!("{e}: {text}"));
    let (Frame::Marks { report, una, beat }, Frame::Marks { report: read, una: una_read, beat: beat_read }) =
        (frame, &again)
    else {
        assert_eq!(again, *frame, "{text}");
        return;
    };
    assert_eq!((una, beat, report.win), (una_read, beat_read, read.win), "{text}");
    let ends = (report.cum(), report.rcv(), report.limit());
    assert_eq!((read.cum(), read.rcv(), read.limit()), ends, "{text}");
    assert!(read.base >= report.base, "{text}");
    for n in report.base.get()..report.base.get() + 140 {
        let seq = Seq::from_number(n);
        assert_eq!(read.of(seq), report.of(seq), "{n} of {text}");
    }
}

fn text(most: usize) -> impl Strategy<Value = Cow<'static, str>> {
    let chars = vec(prop_oneof![Just('"'), Just('\\'), Just('\u{1}'), Just('é'), any::<char>()], 1..most / 4);
    chars.prop_map(|chars| Cow::Owned(chars.into_iter().collect()))
}

fn word() -> impl Strategy<Value = Cow<'static, str>> {
    "[!-~]{1,64}".prop_map(Cow::Owned)
}

fn seq() -> impl Strategy<Value = Seq> {
    prop_oneof![1..200_u64, 1..1_u64 << 48, Just((1 << 48) - 1)].prop_map(Seq::from_number)
}

fn span() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|millis| Duration::from_millis(millis.into()))
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..1_u64 << 48]
}

fn position() -> impl Strategy<Value = Position> {
    (any::<u32>(), number()).prop_map(|(epoch, offset)| Position { epoch, offset })
}

fn origin() -> impl Strategy<Value = Origin> {
    (any::<u64>(), any::<u32>()).prop_map(|(identity, epoch)| Origin::new(identity, epoch))
}

/// Any report a receiver can be in.
fn report() -> impl Strategy<Value = Report> {
    let map = || prop_oneof![any::<u64>(), any::<u32>().prop_map(u64::from), Just(u64::MAX), Just(0), Just(1 << 63)];
    let base = prop_oneof![1..200_u64, 1..(1_u64 << 48) - 64];
    (base, map(), map(), map(), any::<u16>()).prop_map(|(base, arrived, done, rejected, win)| {
        let done = arrived & done;
        Report { base: Seq::from_number(base), arrived, done, rejected: done & rejected, win }
    })
}

/// The same with the base that is read.
fn lowest(report: Report) -> Report {
    let rejected =
        if report.rejected == 0 { u64::MAX } else { report.base.plus(report.rejected.trailing_zeros().into()).get() };
    let base = Seq::from_number(rejected.min(report.cum().next().get()));
    let by = u32::try_from(base.since(report.base)).unwrap();
    let [arrived, done, rejected] =
        [report.arrived, report.done, report.rejected].map(|map| map.checked_shr(by).unwrap_or(0));
    Report { base, arrived, done, rejected, ..report }
}

fn greeting() -> impl Strategy<Value = Greeting> {
    let order = any::<bool>();
    (origin(), any::<bool>(), option::of((origin(), report())), seq(), seq(), any::<u16>(), span(), order).prop_map(
        |(origin, resume, rx, one, other, win, life, order)| {
            let rx = rx.map(|(of, report)| Got { of, report: lowest(Report { win, ..report }) });
            let (una, next) = (one.min(other), one.max(other));
            Greeting { origin, resume, rx, next, una, win, life, order }
        },
    )
}

fn ticket() -> impl Strategy<Value = Ticket<'static>> {
    (word(), word()).prop_map(|(sid, token)| Ticket { sid, token })
}

fn frame() -> impl Strategy<Value = Frame<'static>> {
    let data =
        || prop_oneof![Just("null"), Just("[1, 2]"), Just(r#"{"a":{"seq":1}}"#), Just("\"\\u0041\""), Just("-1e9")];
    let hello =
        (word(), ticket(), option::of(text(MAX_AUTH / 8)), greeting()).prop_map(|(cid, ticket, auth, greeting)| {
            Frame::Hello(Hello { cid, ticket: greeting.resume.then_some(ticket), auth, greeting })
        });
    let reason = option::of(proptest::sample::select(&ResumeRefusal::ALL[..]));
    let welcome = (ticket(), reason, greeting(), span(), span(), span(), 0..1_usize << 32).prop_map(
        |(ticket, reason, greeting, heartbeat, dead, window, frame)| {
            Frame::Welcome(Welcome { ticket, reason, greeting, heartbeat, dead, window, frame })
        },
    );
    let refusals = ResumeRefusal::ALL.map(Refusal::Resume).into_iter().chain([Refusal::Auth, Refusal::Horizon]);
    let refused = proptest::sample::select(refusals.collect::<Vec<_>>()).prop_map(|reason| Frame::Refused { reason });
    let message =
        (seq(), seq(), text(64), data()).prop_map(|(seq, una, kind, data)| Frame::Data { seq, una, kind, data });
    let beat = prop_oneof![Just(Beat::None), number().prop_map(Beat::Ping), number().prop_map(Beat::Pong)];
    let marks = (report(), seq(), beat).prop_map(|(report, una, beat)| Frame::Marks { report, una, beat });
    let verdict = prop_oneof![
        span().prop_map(|after| Nack::Retry { after }),
        span().prop_map(|after| Nack::Busy { after }),
        Just(Nack::Reject)
    ];
    let nack = (seq(), verdict, prop_oneof![Just("".into()), text(MAX_WORDS)]);
    let nack = nack.prop_map(|(seq, nack, reason)| Frame::Nack { seq, nack, reason });
    let since = option::of(prop_oneof![Just(Since::Oldest), position().prop_map(Since::After)]);
    let topics = (text(64), since, any::<bool>(), option::of(position()), 0..4);
    let topics = topics.prop_map(|(topic, since, ok, at, which)| match which {
        0 => Frame::Subscribe { topic, since },
        1 => Frame::Unsubscribe { topic },
        2 => Frame::Subscribed { topic, ok, at },
        _ => Frame::Unsubscribed { topic, ok },
    });
    let event = (text(64), position(), text(64), data());
    let event = event.prop_map(|(topic, at, kind, data)| Frame::Event { topic, at, kind, data });
    let missed = (text(64), position(), number());
    let missed = missed.prop_map(|(topic, from, to)| Frame::Missed { topic, to: to.max(from.offset), from });
    let others = prop_oneof![
        (span(), span()).prop_map(|(after, window)| Frame::Reconnect { after, window }),
        text(MAX_AUTH).prop_map(|auth| Frame::Reauth { auth }),
        word().prop_map(|token| Frame::Token { token }),
        text(MAX_WORDS).prop_map(|message| Frame::Error { message }),
        vec(data(), 0..5).prop_map(Frame::Batch),
    ];
    prop_oneof![hello, welcome, refused, message, marks, nack, topics, event, missed, others]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_is_read_as_it_was_written(frame in frame()) {
        same(&frame);
    }

    /// S3, S8, S10: the base does not cross, and is not missed.
    #[test]
    fn s3_a_report_says_the_same_of_every_number(report in report(), una in seq()) {
        same(&Frame::Marks { report, una, beat: Beat::None });
        same(&Frame::Marks { report: Report { done: report.arrived, ..report }, una, beat: Beat::Ping(1) });
    }

    #[test]
    fn bytes_that_were_changed_do_no_harm(
        frame in frame(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = frame.encode().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        reads_again(&bytes);
    }

    /// A foreign receiver may say its marks in any way that is true; what is taken contradicts neither itself nor them.
    #[test]
    fn marks_in_numbers_of_any_size_do_no_harm(
        (cum, rcv) in (number(), number()),
        (sack, rsack) in (any::<u64>(), any::<u64>()),
        rej in vec(number(), 0..66),
        near: bool,
    ) {
        let rcv = if near { cum.saturating_add(rcv % 64) } else { rcv };
        let rej: Vec<u64> = if near { rej.into_iter().map(|n| cum.saturating_sub(n % 64)).collect() } else { rej };
        let marks = format!(r#""cum":{cum},"sack":"{sack:x}","rcv":{rcv},"rsack":"{rsack:x}","rej":{rej:?}"#);
        let text = format!(r#"{{"type":"ack",{marks},"win":64,"una":1}}"#);
        if let Ok(frame) = decode(text.as_bytes()) {
            same(&frame);
            let Frame::Marks { report, .. } = frame else { panic!("{text}") };
            prop_assert_eq!((report.done & !report.arrived, report.rejected & !report.done), (0, 0));
            prop_assert!(report.cum().get() >= cum && report.rcv().get() >= rcv && report.top() <= Seq::LAST);
            prop_assert!(rej.iter().all(|&n| report.of(Seq::from_number(n)) == (true, true, true)), "{}", text);
        }
    }
}

#[test]
fn a_payload_is_checked_before_it_is_accepted() {
    for (json, is) in
        [("1", Some("1")), (" {\"a\": 1}\r\n", Some("{\"a\": 1}")), ("", None), ("1 2", None), ("{", None)]
    {
        assert_eq!(check(json).ok(), is, "{json:?}");
    }
}

#[test]
fn depth_costs_no_stack() {
    let deep = [&"[".repeat(400_000)[..], &"]".repeat(400_000)].concat();
    let frame = Frame::Data { seq: Seq::FIRST, una: Seq::FIRST, kind: "deep".into(), data: &deep };
    assert_eq!(decode(frame.encode().as_bytes()), Ok(frame.clone()));
    assert_eq!(check(&deep), Ok(&*deep));
}

/// I2: the header of a message's request.
#[test]
fn i2_a_message_has_its_name_by_http_too() {
    let id = Origin::new(0x9af, 3).message(Seq::from_number(17));
    assert_eq!(id.to_string(), "00000000-09af-8000-8003-000000000011");
}
