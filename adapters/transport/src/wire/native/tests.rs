use super::*;
use bowline::{Greeting, Origin, Report};

const WELCOME: &str = r#"{"type":"welcome","v":1,"sid":"s","token":"t1","resumed":false,"origin":"00000000c0de","epoch":8,"tx":{"next":1,"una":1},"win":64,"hb":20000,"dead":45000,"window":5000,"dedupe_ttl":3600000,"frame":1048576,"order":true}"#;

fn greeting(resume: bool) -> Greeting {
    Greeting { resume, ..Greeting::new(Origin::new(7, 1)) }
}

fn hear(wire: &mut Native, text: &str) -> Heard<Mail> {
    wire.read(&KeyedHash::new([7; 16]), text)
}

/// A client that is connected and welcomed.
fn welcomed() -> Native {
    let mut wire = Native::client("c");
    assert!(wire.hello(&greeting(true)).unwrap().contains(r#""resume":false"#), "there is no ticket yet");
    assert!(matches!(hear(&mut wire, WELCOME).head, Some(Head::Welcome { .. })));
    wire
}

fn event(wire: &mut Native, offset: u64) -> Heard<Mail> {
    let text = format!(r#"{{"type":"event","topic":"a","epoch":1,"offset":{offset},"kind":"k","data":{offset}}}"#);
    hear(wire, &text)
}

/// As the engine does it where there is room.
fn delivered(wire: &mut Native, offset: u64) -> bool {
    let heard = event(wire, offset);
    heard.message.inspect(|mail| wire.delivered(mail)).is_some()
}

fn asks(since: u64) -> Vec<String> {
    vec![format!(r#"{{"type":"subscribe","topic":"a","since":{{"epoch":1,"offset":{since}}}}}"#)]
}

#[test]
fn r9_the_ticket_is_the_last_welcomes_or_the_last_token() {
    let mut wire = welcomed();
    let hello = |wire: &mut Native| wire.hello(&greeting(true)).unwrap();
    assert!(hello(&mut wire).contains(r#""resume":true,"sid":"s","token":"t1""#));
    let _ = hear(&mut wire, WELCOME);
    let _ = hear(&mut wire, r#"{"type":"token","token":"t2"}"#);
    assert!(hello(&mut wire).contains(r#""token":"t2""#));
    assert_eq!(wire.headers(), [("authorization", "Bearer t2".into()), ("bowline-client", "c".into())]);
    assert!(!wire.hello(&greeting(false)).unwrap().contains("token"), "only where the session resumes");
    // A second welcome on one connection is none.
    let _ = hear(&mut wire, WELCOME);
    let other = WELCOME.replace("t1", "t9");
    assert_eq!(hear(&mut wire, &other), Heard::of(Head::Other));
    assert!(hello(&mut wire).contains(r#""token":"t1""#));
    // By HTTP there may be one beside it.
    assert_eq!(wire.carried(&other.into()).map(|heard| heard.len()), Some(1));
    assert!(hello(&mut wire).contains(r#""token":"t9""#));
    assert!(!format!("{wire:?}").contains("t9"), "logs are no place for a token");
}

/// Only its own welcome makes a connection ready, and one by HTTP takes nothing back.
#[test]
fn r9_a_welcome_by_http_is_none_of_the_connections() {
    for ready in [false, true] {
        let mut wire = Native::client("c");
        assert!(wire.subscribe("a", None).is_some() && wire.hello(&greeting(true)).is_some());
        if ready {
            let _ = hear(&mut wire, WELCOME);
        }
        let _ = wire.carried(&WELCOME.into());
        assert_eq!(wire.ready, ready);
        assert!(event(&mut wire, 2).message.is_some(), "and there is no room for it");
        assert_eq!(wire.room().is_empty(), !ready, "what is asked for leaves on a connection that is ready");
        let heard = hear(&mut wire, WELCOME);
        assert_eq!(matches!(heard.head, Some(Head::Welcome { .. })), !ready, "one welcome a connection");
        assert_eq!(heard.say.is_empty(), ready, "with it all filters are asked for");
    }
}

#[test]
fn h5_what_is_longer_than_the_hub_takes_is_refused_at_once() {
    let mut wire = welcomed();
    let data = Bytes::from(format!("\"{}\"", "x".repeat(5000)));
    assert!(wire.prepare("up", &data).is_ok());
    let _ = wire.hello(&greeting(true));
    let _ = hear(&mut wire, &WELCOME.replace("1048576", "4096"));
    assert_eq!(wire.prepare("up", &data).map(drop), Err(Refused::Session(bowline::Refusal::TooLarge)));
    assert!(wire.prepare("up", &Bytes::from_static(b"1")).is_ok());
}

#[test]
fn r2_somebody_elses_ticket_is_thrown_away() {
    let mut wire = welcomed();
    for (reason, resume) in [("auth", true), ("epoch", true), ("identity", false)] {
        let _ = hear(&mut wire, &format!(r#"{{"type":"refused","reason":"{reason}"}}"#));
        assert_eq!(wire.refusal, Refusal::parse(reason));
        assert_eq!(wire.hello(&greeting(true)).unwrap().contains(r#""resume":true"#), resume, "{reason}");
    }
    let _ = hear(&mut wire, WELCOME);
    assert_eq!(wire.refusal, None);
}

const SUBSCRIBED: &str = r#"{"type":"subscribed","topic":"a","ok":true}"#;

#[test]
fn u4_an_event_comes_once_and_in_order_and_a_hole_is_asked_for_once() {
    let mut wire = welcomed();
    assert!(wire.subscribe("a", None).is_some());
    let _ = hear(&mut wire, SUBSCRIBED);
    assert!(delivered(&mut wire, 1) && !delivered(&mut wire, 1) && delivered(&mut wire, 2));
    let heard = event(&mut wire, 5);
    assert_eq!((heard.say, heard.message), (asks(2), None));
    assert_eq!(event(&mut wire, 6), Heard::of(Head::Other), "it was asked for");
    let _ = hear(&mut wire, SUBSCRIBED);
    for offset in 3..=6 {
        assert!(delivered(&mut wire, offset) && !delivered(&mut wire, offset));
    }
    // What is lost is lost, whether the hub says so or leaves it out.
    let missed = hear(&mut wire, r#"{"type":"missed","topic":"a","epoch":1,"from":7,"to":9}"#);
    wire.delivered(&missed.message.unwrap());
    assert!(!delivered(&mut wire, 9) && delivered(&mut wire, 10));
    assert_eq!(event(&mut wire, 12).say, asks(10));
    let _ = hear(&mut wire, SUBSCRIBED);
    assert!(delivered(&mut wire, 12) && delivered(&mut wire, 13));
    // Another history begins where it begins.
    let text = r#"{"type":"event","topic":"a","epoch":2,"offset":1,"kind":"k","data":1}"#;
    let heard = hear(&mut wire, text);
    wire.delivered(&heard.message.unwrap());
    assert_eq!(hear(&mut wire, text), Heard::of(Head::Other));
}

#[test]
fn u4_a_gap_is_told_whole_and_until_somebody_was_told() {
    let mut wire = welcomed();
    assert!(wire.subscribe("a", None).is_some());
    assert!(delivered(&mut wire, 3));
    let missed = |wire: &mut Native, from: u64| {
        hear(wire, &format!(r#"{{"type":"missed","topic":"a","epoch":1,"from":{from},"to":9}}"#)).message
    };
    let whole = Mail::Missed { topic: "a".into(), from: Position { epoch: 1, offset: 4 }, to: 9 };
    // The hub has written 4 to a connection that broke, and forgets its oldest first: 4 is missed as well.
    assert_eq!(missed(&mut wire, 5).as_ref(), Some(&whole));
    assert_eq!(wire.room(), asks(3), "nobody could be told");
    assert_eq!(missed(&mut wire, 4).as_ref(), Some(&whole));
    wire.delivered(&whole);
    assert_eq!((missed(&mut wire, 4), wire.room()), (None, Vec::new()));
    assert!(delivered(&mut wire, 10));
}

#[test]
fn u4_what_could_not_be_delivered_is_asked_for_when_there_is_room() {
    let mut wire = welcomed();
    assert!(wire.subscribe("a", None).is_some());
    assert!(delivered(&mut wire, 1));
    assert!(event(&mut wire, 2).message.is_some(), "and there is no room for it");
    for offset in 3..1000 {
        assert_eq!(event(&mut wire, offset), Heard::of(Head::Other));
    }
    assert_eq!(wire.room(), asks(1));
    assert_eq!(wire.room(), Vec::<String>::new());
    assert_eq!(event(&mut wire, 1000), Heard::of(Head::Other), "in order");
    // Until it is answered it is asked for with every pong.
    let pong = r#"{"type":"pong","n":1,"cum":0,"rcv":0,"win":64,"una":1}"#;
    assert_eq!(hear(&mut wire, pong).say, asks(1));
    let _ = hear(&mut wire, SUBSCRIBED);
    assert_eq!(hear(&mut wire, pong).say, Vec::<String>::new());
    assert!(delivered(&mut wire, 2) && delivered(&mut wire, 3));
}

#[test]
fn u4_every_connection_asks_for_what_the_last_one_wanted() {
    let mut wire = welcomed();
    assert_eq!(wire.subscribe("a", None).unwrap(), r#"{"type":"subscribe","topic":"a"}"#);
    assert!(wire.subscribe("b.*", Some(Since::Oldest)).is_some());
    // From now on means from there on.
    let _ = hear(&mut wire, r#"{"type":"subscribed","topic":"a","ok":true,"epoch":1,"offset":4}"#);
    let heard = hear(&mut wire, r#"{"type":"event","topic":"b.7","epoch":1,"offset":9,"kind":"k","data":1}"#);
    wire.delivered(&heard.message.unwrap());
    assert!(wire.subscribe("c", None).is_some() && wire.unsubscribe("c").is_some());
    let _ = wire.hello(&greeting(true));
    let say = hear(&mut wire, WELCOME).say;
    let mut expected = asks(4);
    expected.push(r#"{"type":"subscribe","topic":"b.*","since":"oldest"}"#.into());
    expected.push(r#"{"type":"subscribe","topic":"b.7","since":{"epoch":1,"offset":9}}"#.into());
    expected.push(r#"{"type":"unsubscribe","topic":"c"}"#.into());
    assert_eq!(say, expected);
    // The same with every pong, until it is answered.
    let pong = r#"{"type":"pong","n":1,"cum":0,"rcv":0,"win":64,"una":1}"#;
    let _ = hear(&mut wire, r#"{"type":"subscribed","topic":"b.*","ok":true}"#);
    assert_eq!(hear(&mut wire, pong).say, [expected[0].clone(), expected[2].clone(), expected[3].clone()]);
    let _ = hear(&mut wire, r#"{"type":"subscribed","topic":"b.7","ok":true}"#);
    let _ = hear(&mut wire, r#"{"type":"unsubscribed","topic":"c","ok":true}"#);
    let denied = hear(&mut wire, r#"{"type":"subscribed","topic":"a","ok":false}"#);
    assert_eq!(denied.message, Some(Mail::Denied { topic: "a".into() }));
    assert_eq!(hear(&mut wire, pong).say, Vec::<String>::new());
}

#[test]
fn u4_the_end_of_a_wildcard_ends_what_was_followed_for_it() {
    let mut wire = welcomed();
    assert!(wire.subscribe("a", None).is_some() && wire.subscribe("b.*", None).is_some());
    for topic in ["a", "b.1", "b.2"] {
        let text = format!(r#"{{"type":"event","topic":"{topic}","epoch":1,"offset":1,"kind":"k","data":1}}"#);
        let heard = hear(&mut wire, &text);
        wire.delivered(&heard.message.unwrap());
    }
    let ends = |topic: &str| format!(r#"{{"type":"unsubscribe","topic":"{topic}"}}"#);
    assert_eq!(wire.unsubscribe("b.*"), Some(vec![ends("b.*"), ends("b.1"), ends("b.2")]));
    assert!(!delivered(&mut wire, 1), "that of the other filter is still known");
}

#[test]
fn filters_and_followed_topics_are_bounded() {
    let mut wire = welcomed();
    for n in 0..TOPICS {
        assert!(wire.subscribe(&format!("t{n}"), None).is_some());
    }
    assert!(wire.subscribe("more", None).is_none() && wire.subscribe("t0", Some(Since::Oldest)).is_some());
    for n in 0..2000 {
        let text = format!(r#"{{"type":"event","topic":"x{n}","epoch":1,"offset":1,"kind":"k","data":1}}"#);
        let heard = hear(&mut wire, &text);
        if n % 2 == 0 {
            wire.delivered(&heard.message.unwrap());
        }
    }
    assert!(wire.cursors.len() <= 2 * TOPICS && wire.behind.len() <= 2 * TOPICS);
    for n in 0..2000 {
        wire.unsubscribe(&format!("t{}", n % TOPICS));
        assert!(wire.subscribe(&format!("y{n}"), None).is_some() || n >= TOPICS);
        wire.unsubscribe(&format!("y{n}"));
    }
    assert!(wire.ending.len() <= ENDING);
}

#[test]
fn what_is_malformed_is_answered_and_an_error_is_not() {
    let mut wire = welcomed();
    let heard = hear(&mut wire, r#"{"type":"data","seq":0}"#);
    assert_eq!(heard.head, Some(Head::Malformed));
    assert_eq!(heard.say, [r#"{"type":"error","message":"`seq` is missing, of a wrong kind or out of range"}"#]);
    for frame in [r#"{"type":"error","message":7}"#, r#"{"type":"of later"}"#, r#"{"type":"batch","frames":[]}"#] {
        assert_eq!(hear(&mut wire, frame), Heard::of(Head::Other), "{frame}");
    }
}

#[test]
fn h3_an_answer_carries_frames_and_what_is_none_of_ours_is_no_answer() {
    let mut wire = welcomed();
    let batch = r#"{"type":"batch","frames":[{"type":"data","seq":2,"una":1,"kind":"k","data":[]},{"type":"data"},{"type":"ack","cum":3,"rcv":3,"win":64,"una":1}]}"#;
    let heard = wire.carried(&batch.into()).unwrap();
    assert_eq!(heard.len(), 2, "what is malformed is as good as not sent");
    assert_eq!(heard[0].head, Some(Head::Numbered { seq: Seq::from_number(2), una: Seq::FIRST }));
    assert!(matches!(heard[1].head, Some(Head::Marks { report, .. }) if report.cum() == Seq::from_number(3)));
    assert_eq!(wire.carried(&"<html>Welcome to our hotel</html>".into()), None);

    let fallback = Target::http("http://hub/bowline/1").unwrap();
    let report = Report::nothing(64);
    let poll = Question::Poll { report, una: Seq::FIRST, wait: core::time::Duration::from_secs(60) };
    let (target, body, read) = wire.ask(&fallback, poll).unwrap();
    assert_eq!((target.path(), read), ("/bowline/1/poll", native::FRAME_LIMIT + native::BATCH_ROOM));
    assert_eq!(Poll::decode(&body).unwrap().wait, native::MAX_WAIT);
    let (target, body, _) = wire.ask(&fallback, Question::Greet(greeting(true))).unwrap();
    assert_eq!(target.path(), "/bowline/1/hello");
    assert!(matches!(native::decode(&body), Ok(Frame::Hello(hello)) if hello.ticket.is_some()));
}

#[test]
fn a_size_is_never_less_than_the_frames() {
    let mut wire = welcomed();
    for kind in ["k", &"\u{1}".repeat(64), &"é".repeat(32)] {
        let note = wire.prepare(kind, &Bytes::from_static(b"[1]")).unwrap();
        let (seq, id) = (Seq::LAST, Origin::new(7, 1).message(Seq::LAST));
        let text = wire.write(bowline::Frame::Data { seq, id, una: seq, payload: &note }).unwrap();
        assert!(Native::size(&note) >= text.len(), "{text}");
    }
    assert!(wire.prepare("", &Bytes::from_static(b"1")).is_err());
    assert!(wire.prepare(&"k".repeat(65), &Bytes::from_static(b"1")).is_err());
}

#[test]
fn u5_what_is_said_to_everybody_has_no_place_and_is_no_copy() {
    let mut wire = welcomed();
    let text = r#"{"type":"event","topic":"*","epoch":0,"offset":0,"kind":"k","data":1}"#;
    for _ in 0..3 {
        let mail = hear(&mut wire, text).message.unwrap();
        wire.delivered(&mail);
    }
    // Not delivered for want of room: nothing could bring it again, so nothing is asked for.
    assert!(hear(&mut wire, text).message.is_some());
    assert_eq!(wire.room(), Vec::<String>::new());
    let _ = wire.hello(&greeting(true));
    assert_eq!(hear(&mut wire, WELCOME).say, Vec::<String>::new(), "nor on the next connection");
}

#[test]
fn u4_of_another_epoch_nothing_may_be_missed() {
    let mut wire = welcomed();
    assert!(delivered(&mut wire, 5));
    let missed = hear(&mut wire, r#"{"type":"missed","topic":"a","epoch":2,"from":1,"to":0}"#);
    let from = Position { epoch: 2, offset: 1 };
    assert_eq!(missed.message, Some(Mail::Missed { topic: "a".into(), from, to: 0 }));
    let _ =
        hear(&mut wire, r#"{"type":"event","topic":"a","epoch":2,"offset":1,"kind":"k","data":1}"#).message.unwrap();
}
