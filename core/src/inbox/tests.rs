use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: u64 = 3600;
const FULL: Answer = Answer::Busy { after: SOON };
const AGAIN: Answer = Answer::Again { after: SOON };

type Box3 = InlineInbox<3>;

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn inbox(config: InboxConfig) -> Box3 {
    Inbox::new(config, 42, Instant::ZERO, Fixed::new())
}

#[expect(clippy::unnecessary_wraps, reason = "reads as the argument it stands for")]
const fn id(n: u128) -> Option<MessageId> {
    Some(MessageId::from_bits(n))
}

#[expect(clippy::unnecessary_wraps, reason = "reads as the argument it stands for")]
const fn key(n: u128) -> Option<ContentKey> {
    Some(ContentKey::from_bits(n))
}

fn delivered(arrival: Arrival) -> DeliveryId {
    let Arrival::Deliver { delivery, maybe_dup: false } = arrival else { panic!("{arrival:?}") };
    delivery
}

fn acks(inbox: &mut Box3) -> Vec<u128> {
    core::iter::from_fn(|| inbox.take_ack()).map(MessageId::bits).collect()
}

fn answers(inbox: &mut Box3) -> Vec<(u64, Answer)> {
    core::iter::from_fn(|| inbox.take_answer()).map(|(request, answer)| (request.0, answer)).collect()
}

/// A message came by a frame at 0 and was completed at 1.
fn after(verdict: Verdict, on_reject: OnReject) -> Box3 {
    let mut inbox = inbox(InboxConfig { on_reject, ..InboxConfig::DEFAULT });
    let delivery = delivered(inbox.on_frame(at(0), id(1), key(10)));
    assert!(inbox.complete(at(1), delivery, verdict));
    inbox
}

/// What the sums, the wake-up time, the lists and the index must be, computed the slow way.
fn check<S: Store<Seen>>(inbox: &Inbox<S>) {
    let places = inbox.places.as_ref();
    let seen = || places.iter().map(|place| &place.inbound).filter(|inbound| inbound.stage != Stage::Vacant);
    assert_eq!(inbox.held(), seen().filter(|inbound| inbound.is_held()).count(), "held");
    let behind = seen().filter(|inbound| inbound.lists()[0] == Some(List::Behind)).count();
    assert_eq!(inbox.index.behind, behind, "behind");
    assert_eq!(inbox.index.untold, seen().filter(|inbound| inbound.untold).count(), "untold");
    let limits = seen().filter(|inbound| inbound.lists()[0] == Some(List::Waiting)).map(Inbound::waits_until);
    assert_eq!(inbox.index.wake.at(), limits.min(), "the earliest limit");
    let ids: Vec<_> = seen().flat_map(Inbound::ids).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id names one message");
    // Each message is found by each of its names, and is in the list that it says.
    let listed: BTreeMap<u32, &Inbound> = inbox.index.messages(places).collect();
    assert_eq!(listed.len(), seen().count(), "in one list each");
    for (at, place) in places.iter().enumerate() {
        let at = u32::try_from(at).unwrap();
        for list in place.inbound.lists().into_iter().flatten() {
            assert!(inbox.index.iter(places, list).any(|(other, _)| other == at), "{at} is not in {list:?}");
        }
        for name in place.inbound.names().into_iter().flatten() {
            let found = inbox.index.find(places, name, |inbound| !inbound.stray);
            assert_eq!(found.map(|(at, _)| at), Some(at), "an index that loses messages");
        }
    }
    let forgotten: Vec<_> = inbox.index.iter(places, List::Completed).map(|(_, inbound)| inbound.forget()).collect();
    assert!(forgotten.is_sorted(), "what is forgotten first comes first");
    let mut called = BTreeMap::new();
    let given_back = |seen: &&Inbound| seen.rests_until().is_some();
    for seen in seen().filter(|seen| inbox.config.dedup == DedupBy::IdAndContent && !given_back(seen)) {
        called.entry(seen.key()).or_insert_with(Vec::new).push((seen.delivery, seen.is_held(), seen.behind));
    }
    for (name, mut one) in called.into_iter().filter(|(name, _)| name.is_some()) {
        one.sort_unstable();
        let mut undecided = false;
        for (delivery, held, behind) in one {
            assert_eq!(behind, undecided, "I6: {name:?} {delivery:?}");
            undecided |= held;
        }
    }
}

#[test]
fn i4_a_known_content_is_the_same_message_by_whichever_path_and_under_whichever_id() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_frame(at(0), id(1), key(10)));
    assert_eq!(inbox.on_request(at(1), RequestId(1), None, key(10)), Arrival::Duplicate, "by HTTP, without an id");
    assert_eq!(inbox.on_frame(at(2), id(2), key(10)), Arrival::Duplicate, "a new id for the second try");
    assert!(inbox.complete(at(3), delivery, Verdict::Done));
    assert_eq!(acks(&mut inbox), [1, 2], "whichever the peer still waits for");
    assert_eq!(answers(&mut inbox), [(1, Answer::Done)]);
    assert_eq!(inbox.on_request(at(4), RequestId(2), None, key(10)), Arrival::Answer(Answer::Done));
    check(&inbox);
}

#[test]
fn i4_two_equal_messages_of_an_undeclared_type_are_two() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let first = delivered(inbox.on_frame(at(0), id(1), None));
    let second = delivered(inbox.on_frame(at(0), id(2), None));
    let third = delivered(inbox.on_frame(at(0), None, None));
    assert_eq!(BTreeSet::from([first, second, third]).len(), 3);
}

#[test]
fn i4_a_peer_that_draws_a_new_id_for_every_try_is_answered_to_the_first_and_the_last() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    for n in 2..=9 {
        assert_eq!(inbox.on_frame(at(2), id(n), key(10)), Arrival::Duplicate);
        check(&inbox);
    }
    assert_eq!(acks(&mut inbox), [1, 9]);
    assert_eq!(inbox.on_request(at(3), RequestId(1), id(10), key(10)), Arrival::Answer(Answer::Done));
    assert!(acks(&mut inbox).is_empty(), "a request is answered by its answer");
    check(&inbox);
}

#[test]
fn i5_an_id_with_another_payload_is_neither_delivered_nor_acknowledged() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    assert_eq!(acks(&mut inbox), [1]);
    assert_eq!(inbox.on_frame(at(2), id(1), key(11)), Arrival::Reused);
    assert_eq!(inbox.on_request(at(2), RequestId(1), id(1), key(11)), Arrival::Answer(Answer::Reused));
    assert_eq!(Answer::Reused.status(), 422);
    assert!(acks(&mut inbox).is_empty() && answers(&mut inbox).is_empty());
    assert_eq!(inbox.on_frame(at(2), id(2), key(10)), Arrival::Duplicate);
    assert_eq!(inbox.on_frame(at(2), id(2), key(11)), Arrival::Reused, "its other names are bound too");
    check(&inbox);
}

#[test]
fn i5_an_id_of_one_message_with_the_content_of_another_is_reuse_too() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let _ = delivered(inbox.on_frame(at(0), id(1), key(10)));
    let _ = delivered(inbox.on_frame(at(0), id(2), key(20)));
    assert_eq!(inbox.on_frame(at(0), id(2), key(10)), Arrival::Reused);
    check(&inbox);
}

#[test]
fn i5_where_ids_alone_count_equal_contents_are_two_messages_and_another_content_is_reuse() {
    let mut inbox = inbox(InboxConfig { dedup: DedupBy::Id, ..InboxConfig::DEFAULT });
    let first = delivered(inbox.on_frame(at(0), id(1), key(10)));
    let _ = delivered(inbox.on_request(at(0), RequestId(1), id(2), key(10)));
    assert_eq!(inbox.on_frame(at(0), id(1), key(10)), Arrival::Duplicate);
    assert_eq!(inbox.on_frame(at(0), id(1), key(11)), Arrival::Reused);
    assert!(inbox.complete(at(1), first, Verdict::Done));
    assert_eq!(inbox.on_request(at(1), RequestId(2), id(1), key(11)), Arrival::Answer(Answer::Reused));
    assert_eq!(acks(&mut inbox), [1]);
    check(&inbox);
}

const BOTH: InboxConfig = InboxConfig { dedup: DedupBy::IdAndContent, ..InboxConfig::DEFAULT };

/// Under which id the message is known that its sender calls `n` and that says `content`.
fn known(n: u128, content: u128) -> u128 {
    DedupBy::IdAndContent.known_as(MessageId::from_bits(n), key(content)).bits()
}

#[test]
fn i6_an_id_that_is_used_again_names_another_message_and_both_are_delivered_and_acknowledged() {
    let mut inbox = inbox(BOTH);
    let first = delivered(inbox.on_frame(at(0), id(1), key(10)));
    let second = delivered(inbox.on_frame(at(0), id(1), key(20)));
    assert_ne!(first, second);
    assert_eq!(inbox.on_frame(at(0), id(1), key(10)), Arrival::Duplicate, "the same content is a copy");
    assert_eq!(inbox.on_request(at(0), RequestId(1), id(1), key(20)), Arrival::Duplicate, "by either path");
    let third = delivered(inbox.on_frame(at(0), id(2), key(10)));
    for delivery in [third, first, second] {
        assert!(inbox.complete(at(1), delivery, Verdict::Done));
        check(&inbox);
    }
    assert_eq!(acks(&mut inbox), [known(1, 10), known(1, 20), known(2, 10)], "in the order in which they came");
    assert_eq!(answers(&mut inbox), [(1, Answer::Done)]);
    assert_eq!(inbox.on_frame(at(2), id(1), key(20)), Arrival::Duplicate);
    assert_eq!(acks(&mut inbox), [known(1, 20)], "a copy is answered for what it says");
}

#[test]
fn i6_an_acknowledgement_waits_until_what_came_before_under_its_id_is_decided() {
    for verdict in [Verdict::Done, Verdict::Reject, Verdict::Retry { after: SECOND }] {
        let mut inbox = inbox(BOTH);
        let [a, b, c] = [10, 20, 30].map(|content| delivered(inbox.on_frame(at(0), id(1), key(content))));
        assert!(inbox.complete(at(1), b, Verdict::Done) && acks(&mut inbox).is_empty());
        assert_eq!(inbox.on_frame(at(1), id(1), key(20)), Arrival::Duplicate);
        assert!(acks(&mut inbox).is_empty(), "nor by a copy");
        let request = inbox.on_request(at(1), RequestId(1), id(1), key(20));
        assert_eq!(request, Arrival::Answer(Answer::Done), "an answer needs no order: it is nobody else's");
        check(&inbox);
        assert!(inbox.complete(at(2), a, verdict));
        let first = (!matches!(verdict, Verdict::Retry { .. })).then(|| known(1, 10));
        assert_eq!(acks(&mut inbox), first.into_iter().chain([known(1, 20)]).collect::<Vec<_>>());
        assert!(inbox.complete(at(3), c, Verdict::Done));
        assert_eq!(acks(&mut inbox), [known(1, 30)]);
        check(&inbox);
    }
}

#[test]
fn i6_one_that_is_given_back_while_it_waits_lets_nobody_overtake() {
    let mut inbox = inbox(BOTH);
    let [a, b, c] = [10, 20, 30].map(|content| delivered(inbox.on_frame(at(0), id(1), key(content))));
    assert!(inbox.complete(at(1), b, Verdict::Retry { after: SECOND }));
    assert!(inbox.complete(at(1), c, Verdict::Done) && acks(&mut inbox).is_empty());
    check(&inbox);
    let again = delivered(inbox.on_frame(at(2), id(1), key(20)));
    assert!(inbox.complete(at(2), again, Verdict::Done) && acks(&mut inbox).is_empty(), "it came last");
    assert!(inbox.complete(at(3), a, Verdict::Done));
    assert_eq!(acks(&mut inbox), [known(1, 10), known(1, 30), known(1, 20)]);
    check(&inbox);
}

#[test]
fn i6_what_waits_behind_another_is_not_forgotten() {
    let mut inbox = inbox(BOTH);
    let [a, b] = [10, 20].map(|content| delivered(inbox.on_frame(at(0), id(1), key(content))));
    assert!(inbox.complete(at(0), b, Verdict::Done));
    let other = delivered(inbox.on_frame(at(0), id(2), key(10)));
    assert!(inbox.complete(at(1), other, Verdict::Done));
    assert_eq!(acks(&mut inbox), [known(2, 10)]);
    assert!(matches!(inbox.on_request(at(1), RequestId(1), id(3), key(10)), Arrival::Deliver { .. }));
    assert_eq!(inbox.horizon_short(), 1, "the place of the other");
    assert_eq!(inbox.on_request(at(1), RequestId(2), id(4), key(10)), Arrival::Answer(FULL));
    assert!(inbox.complete(at(2), a, Verdict::Done));
    assert_eq!(acks(&mut inbox), [known(1, 10), known(1, 20)]);
    check(&inbox);
}

/// Only what would be behind an undecided one finds no room: of the others there is no more than before.
#[test]
fn i6_no_more_wait_behind_one_than_may_be_at_the_application() {
    let mut inbox: InlineInbox<16> = Inbox::new(InboxConfig { held: 4, ..BOTH }, 42, Instant::ZERO, Fixed::new());
    let first = delivered(inbox.on_frame(at(0), id(1), key(1)));
    for content in 2..5 {
        let later = delivered(inbox.on_frame(at(0), id(1), key(content)));
        assert!(inbox.complete(at(0), later, Verdict::Done));
    }
    assert_eq!(inbox.on_frame(at(0), id(1), key(5)), Arrival::Full);
    assert_eq!(inbox.on_request(at(0), RequestId(1), id(1), key(5)), Arrival::Answer(FULL));
    for n in 2..100 {
        // In the end the oldest of them are forgotten.
        let arrival = inbox.on_frame(at(0), id(n << 32), key(1));
        let Arrival::Deliver { delivery: other, .. } = arrival else { panic!("{arrival:?}") };
        assert!(inbox.complete(at(0), other, Verdict::Done));
        assert_eq!(inbox.take_ack(), Some(MessageId::from_bits(known(n << 32, 1))));
    }
    check(&inbox);
    assert!(inbox.complete(at(1), first, Verdict::Done));
    let told: Vec<_> = core::iter::from_fn(|| inbox.take_ack()).map(MessageId::bits).collect();
    assert_eq!(told, [1, 2, 3, 4].map(|content| known(1, content)));
    assert!(matches!(inbox.on_frame(at(1), id(1), key(5)), Arrival::Deliver { .. }));
    check(&inbox);
}

#[test]
fn s3_arrival_is_not_acknowledged_completion_is() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_frame(at(0), id(1), None));
    assert!(!inbox.owes() && inbox.held() == 1);
    assert_eq!(inbox.on_frame(at(1), id(1), None), Arrival::Duplicate);
    assert!(!inbox.owes(), "nor is a copy while it is at work");
    assert!(inbox.complete(at(2), delivery, Verdict::Done));
    assert!(inbox.owes() && inbox.held() == 0);
    assert_eq!(acks(&mut inbox), [1]);
    assert!(!inbox.complete(at(3), delivery, Verdict::Done), "once");
    assert!(!inbox.complete(at(3), delivery.next(), Verdict::Done), "and only what was delivered");
    check(&inbox);
}

#[test]
fn s5_an_acknowledgement_is_due_at_once_and_once() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    assert_eq!(inbox.on_frame(at(1), id(1), key(10)), Arrival::Duplicate);
    assert_eq!(acks(&mut inbox), [1], "completion and copy before the drain: one word for both");
    assert_eq!(inbox.earliest(), None, "nothing is delayed");
}

#[test]
fn s6_a_duplicate_is_always_acknowledged_again_and_never_delivered() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    for second in 1..100 {
        assert_eq!(acks(&mut inbox), [1]);
        assert_eq!(inbox.on_frame(at(second), id(1), key(10)), Arrival::Duplicate);
    }
}

#[test]
fn s6_a_message_that_came_by_request_is_acknowledged_when_its_frame_comes() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    assert!(inbox.complete(at(1), delivery, Verdict::Done));
    assert_eq!(answers(&mut inbox), [(1, Answer::Done)]);
    assert!(acks(&mut inbox).is_empty(), "nobody awaits one on the connection");
    assert_eq!(inbox.on_frame(at(2), id(1), None), Arrival::Duplicate);
    assert_eq!(acks(&mut inbox), [1]);
    check(&inbox);
}

#[test]
fn s8_retry_is_silence_and_the_next_copy_is_delivered_again() {
    let mut inbox = after(Verdict::Retry { after: 5 * SECOND }, OnReject::Acknowledge);
    assert!(!inbox.owes() && inbox.held() == 0);
    assert_eq!(inbox.earliest(), None, "a plain peer is not asked for it");
    let again = delivered(inbox.on_frame(at(6), id(1), key(10)));
    assert!(inbox.complete(at(7), again, Verdict::Done));
    assert_eq!(acks(&mut inbox), [1]);
    check(&inbox);
}

/// Each under its own time, by whichever path and under whichever name its copies come.
#[test]
fn s16_what_was_given_back_is_not_handed_over_again_before_its_own_time() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for (n, after) in [(1, 60), (2, 5)] {
        let delivery = delivered(inbox.on_frame(at(0), id(n), key(10 * n)));
        assert!(inbox.complete(at(0), delivery, Verdict::Retry { after: after * SECOND }));
    }
    let again = |seconds| Arrival::Answer(Answer::Again { after: seconds * SECOND });
    for second in 0..5_u32 {
        let now = at(second.into());
        assert_eq!(inbox.on_frame(now, id(1), key(10)), Arrival::Duplicate, "silence");
        assert_eq!(inbox.on_request(now, RequestId(1), id(1), None), again(60 - second));
        assert_eq!(inbox.on_request(now, RequestId(2), None, key(20)), again(5 - second), "without its id");
        assert_eq!(inbox.on_request(now, RequestId(3), id(3), key(20)), again(5 - second), "under another one");
        check(&inbox);
    }
    assert!(acks(&mut inbox).is_empty() && answers(&mut inbox).is_empty());
    let second = delivered(inbox.on_request(at(5), RequestId(4), id(2), key(20)));
    assert_eq!(inbox.on_request(at(5), RequestId(5), id(1), key(10)), again(55), "the other one waits on");
    assert!(inbox.complete(at(5), second, Verdict::Done));
    let _ = delivered(inbox.on_frame(at(60), id(1), key(10)));
    check(&inbox);
}

/// One without an id cannot be asked for.
#[test]
fn s16_what_has_no_id_keeps_nothing_from_being_asked_for() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    inbox.set_numbered();
    for (name, key) in [(None, key(10)), (id(2), None)] {
        let delivery = delivered(inbox.on_frame(at(0), name, key));
        assert!(inbox.complete(at(0), delivery, Verdict::Retry { after: 5 * SECOND }));
    }
    assert_eq!((inbox.earliest(), inbox.take_returned(at(4))), (Some((at(5), Wake::Memory)), None));
    assert_eq!(inbox.take_returned(at(5)), id(2));
    assert_eq!(inbox.earliest(), None);
    check(&inbox);
}

/// A second, so that nobody is asked in a loop.
#[test]
fn s16_zero_is_a_second_on_every_path() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    assert!(inbox.complete(at(0), delivery, Verdict::Retry { after: Duration::ZERO }));
    assert_eq!(answers(&mut inbox), [(1, Answer::Again { after: SECOND })]);
    assert_eq!(inbox.on_frame(at(0), id(1), None), Arrival::Duplicate);
    let _ = delivered(inbox.on_frame(at(1), id(1), None));
}

/// Before what is completed is forgotten, what was given back is delivered a little sooner.
#[test]
fn s16_what_was_given_back_leaves_its_place_before_what_is_completed() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    assert_eq!(acks(&mut inbox), [1]);
    for n in 2..5 {
        let delivery = delivered(inbox.on_frame(at(2), id(n), None));
        assert!(inbox.complete(at(2), delivery, Verdict::Retry { after: 60 * SECOND }));
        check(&inbox);
    }
    assert_eq!(inbox.horizon_short(), 0);
    assert_eq!(inbox.on_frame(at(3), id(1), key(10)), Arrival::Duplicate, "it is remembered");
    assert_eq!(inbox.on_frame(at(3), id(4), None), Arrival::Duplicate, "so is the last one given back");
    let _ = delivered(inbox.on_frame(at(3), id(2), None));
}

#[test]
fn s8_retry_tells_a_waiting_request_when_to_come_again() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    assert!(inbox.complete(at(1), delivery, Verdict::Retry { after: 5 * SECOND }));
    let again = delivered(inbox.on_request(at(6), RequestId(2), id(1), None));
    assert_eq!(answers(&mut inbox), [(1, Answer::Again { after: 5 * SECOND })], "the first answer is not lost");
    assert!(inbox.complete(at(6), again, Verdict::Done));
    assert_eq!(answers(&mut inbox), [(2, Answer::Done)]);
    check(&inbox);
}

#[test]
fn l13_a_result_that_was_known_just_before_the_close_is_told_when_it_is_asked_for() {
    for closed_first in [false, true] {
        let mut inbox = inbox(InboxConfig::DEFAULT);
        let delivery = delivered(inbox.on_request(at(0), RequestId(1), None, key(1)));
        inbox.tick(at(4));
        assert_eq!(answers(&mut inbox), [(1, AGAIN)]);
        if closed_first {
            inbox.close();
        }
        assert!(inbox.complete(at(4), delivery, Verdict::Done));
        assert_eq!(inbox.owes(), closed_first, "an open inbox waits for nobody");
        inbox.close();
        check(&inbox);
        assert!(inbox.owes());
        assert_eq!(inbox.on_request(at(5), RequestId(2), None, key(1)), Arrival::Answer(Answer::Done));
        assert!(!inbox.owes());
        check(&inbox);
    }
}

#[test]
fn l13_nobody_is_waited_for_who_was_told_or_has_an_acknowledgement_due() {
    // It was told to come again, came, waits, and is answered.
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), key(1)));
    inbox.tick(at(4));
    assert_eq!(answers(&mut inbox), [(1, AGAIN)]);
    assert_eq!(inbox.on_request(at(5), RequestId(2), id(1), key(1)), Arrival::Duplicate);
    assert!(inbox.complete(at(6), delivery, Verdict::Done));
    inbox.close();
    assert_eq!(answers(&mut inbox), [(2, Answer::Done)]);
    assert!(!inbox.owes());
    check(&inbox);
    // It asked by a request, then came by a frame, and its acknowledgement is taken.
    let mut inbox = self::inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), key(1)));
    inbox.tick(at(4));
    assert_eq!(answers(&mut inbox), [(1, AGAIN)]);
    assert_eq!(inbox.on_frame(at(5), id(1), key(1)), Arrival::Duplicate);
    assert!(inbox.complete(at(6), delivery, Verdict::Done));
    inbox.close();
    assert!(inbox.owes());
    assert_eq!(acks(&mut inbox), [1]);
    assert!(!inbox.owes());
    check(&inbox);
    // What was given back has no result.
    let mut inbox = self::inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), key(1)));
    assert!(inbox.request_gone(RequestId(1)));
    assert!(inbox.complete(at(1), delivery, Verdict::Retry { after: SECOND }));
    inbox.close();
    assert!(!inbox.owes());
    check(&inbox);
}

#[test]
fn s8_reject_is_acknowledged_to_a_plain_peer_and_told_here() {
    let mut inbox = after(Verdict::Reject, OnReject::Acknowledge);
    assert_eq!(acks(&mut inbox), [1]);
    assert_eq!(inbox.take_rejected_but_acked(), Some(DeliveryId::from_number(1)));
    assert_eq!(inbox.take_rejected_but_acked(), None);
    assert_eq!(inbox.on_frame(at(2), id(1), key(10)), Arrival::Duplicate);
    assert_eq!(acks(&mut inbox), [1], "again, for ever");
    assert_eq!(inbox.on_request(at(2), RequestId(1), None, key(10)), Arrival::Answer(Answer::Done));
    assert_eq!(inbox.take_rejected_but_acked(), None, "told once");
    check(&inbox);
}

#[test]
fn s8_reject_by_silence_is_422_to_a_request_and_nothing_on_the_connection() {
    let mut inbox = after(Verdict::Reject, OnReject::Silence);
    assert!(!inbox.owes());
    assert_eq!(inbox.take_rejected_but_acked(), None);
    assert_eq!(inbox.on_frame(at(2), id(1), key(10)), Arrival::Duplicate, "but never delivered again");
    assert!(!inbox.owes());
    assert_eq!(inbox.on_request(at(2), RequestId(1), None, key(10)), Arrival::Answer(Answer::Rejected));
    check(&inbox);
}

#[test]
fn s9_plain_order_is_arrival_and_completion_in_any_order() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let deliveries = [5, 3, 4].map(|n| delivered(inbox.on_frame(at(0), id(n), None)));
    for delivery in deliveries.into_iter().rev() {
        assert!(inbox.complete(at(1), delivery, Verdict::Done));
        assert_eq!(acks(&mut inbox).len(), 1, "one that is done does not wait for another");
    }
}

#[test]
fn s11_b_the_place_of_a_completed_message_is_reused_when_its_horizon_is_over() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for n in 0..3 {
        let delivery = delivered(inbox.on_frame(at(n), id(u128::from(n)), None));
        assert!(inbox.complete(at(n), delivery, Verdict::Done));
    }
    let _ = acks(&mut inbox);
    assert_eq!(inbox.on_frame(at(HOUR - 1), id(0), None), Arrival::Duplicate);
    let _ = acks(&mut inbox);
    let _ = delivered(inbox.on_frame(at(HOUR), id(100), None));
    assert_eq!(inbox.horizon_short(), 0, "its time was over");
    let late = inbox.on_frame(at(HOUR + 9), id(0), None);
    assert!(matches!(late, Arrival::Deliver { .. }), "beyond the horizon nothing is promised");
}

#[test]
fn s11_b_what_is_at_the_application_is_never_forgotten() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for n in 0..3 {
        let _ = delivered(inbox.on_frame(at(0), id(n), None));
    }
    assert_eq!(inbox.on_frame(at(9 * HOUR), id(9), None), Arrival::Full);
    assert_eq!(inbox.on_request(at(9 * HOUR), RequestId(1), id(9), None), Arrival::Answer(FULL));
    assert_eq!(inbox.on_frame(at(9 * HOUR), id(0), None), Arrival::Duplicate);
    check(&inbox);
}

#[test]
fn s12_forgotten_before_its_time_is_counted_and_what_comes_meanwhile_is_marked() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for n in 0..3 {
        let delivery = delivered(inbox.on_frame(at(n), id(u128::from(n)), None));
        assert!(inbox.complete(at(n), delivery, Verdict::Done));
    }
    let _ = acks(&mut inbox);
    let fresh = inbox.on_frame(at(10), id(3), None);
    assert!(matches!(fresh, Arrival::Deliver { maybe_dup: true, .. }), "{fresh:?}");
    assert_eq!(inbox.horizon_short(), 1);
    assert_eq!(inbox.on_frame(at(11), id(1), None), Arrival::Duplicate, "the oldest went, not the others");
    let forgotten = inbox.on_frame(at(11), id(0), None);
    assert!(matches!(forgotten, Arrival::Deliver { maybe_dup: true, .. }), "{forgotten:?}");
    check(&inbox);
}

#[test]
fn s12_after_a_loss_everything_within_the_first_horizon_is_marked() {
    let mut inbox = inbox(InboxConfig { after_loss: true, ..InboxConfig::DEFAULT });
    let early = inbox.on_frame(at(HOUR - 1), id(1), None);
    assert!(matches!(early, Arrival::Deliver { maybe_dup: true, .. }));
    let _ = delivered(inbox.on_frame(at(HOUR), id(2), None));
}

#[test]
fn s12_what_has_neither_id_nor_key_displaces_no_memory() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    assert_eq!(acks(&mut inbox), [1]);
    for second in 2..100 {
        let delivery = delivered(inbox.on_frame(at(second), None, None));
        assert!(inbox.complete(at(second), delivery, if second % 2 == 0 { Verdict::Done } else { Verdict::Reject }));
        while inbox.take_rejected_but_acked().is_some() {}
        check(&inbox);
    }
    assert_eq!(inbox.horizon_short(), 0, "there is nothing to remember of them");
    assert_eq!(inbox.on_frame(at(100), id(1), key(10)), Arrival::Duplicate);
}

#[test]
fn s2_no_more_than_held_are_at_the_application() {
    let mut inbox = inbox(InboxConfig { held: 1, ..InboxConfig::DEFAULT });
    let delivery = delivered(inbox.on_frame(at(0), id(1), None));
    assert_eq!(inbox.on_frame(at(0), id(2), None), Arrival::Full);
    assert_eq!(inbox.on_frame(at(0), id(1), None), Arrival::Duplicate, "full or not");
    assert!(inbox.complete(at(0), delivery, Verdict::Done));
    let _ = delivered(inbox.on_frame(at(0), id(2), None));
    check(&inbox);
}

#[test]
fn s2_the_smaller_of_storage_and_configuration_counts() {
    let mut inbox = inbox(InboxConfig { bytes: Seen::BYTES, ..InboxConfig::DEFAULT });
    let _ = delivered(inbox.on_frame(at(0), id(1), None));
    assert_eq!(inbox.on_frame(at(0), id(2), None), Arrival::Full);
}

#[test]
fn s2_acknowledgements_owed_to_a_connection_that_is_gone_do_not_keep_requests_out() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for n in 0..3 {
        let delivery = delivered(inbox.on_frame(at(0), id(n), None));
        assert!(inbox.complete(at(0), delivery, Verdict::Done));
    }
    // Nobody takes them. Another frame can wait until somebody does; a request comes because nobody will.
    assert_eq!(inbox.on_frame(at(1), id(8), None), Arrival::Full);
    let arrival = inbox.on_request(at(1), RequestId(1), id(9), None);
    assert!(matches!(arrival, Arrival::Deliver { maybe_dup: true, .. }), "{arrival:?}");
    assert_eq!(inbox.horizon_short(), 1);
    check(&inbox);
    assert_eq!(acks(&mut inbox), [1, 2]);
}

#[test]
fn h2_a_request_for_what_is_at_work_waits_and_gets_the_result() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_frame(at(0), id(1), None));
    assert_eq!(inbox.on_request(at(1), RequestId(7), id(1), None), Arrival::Duplicate);
    assert_eq!(inbox.earliest(), Some((at(5), Wake::Memory)), "four seconds");
    assert!(answers(&mut inbox).is_empty());
    assert!(inbox.complete(at(2), delivery, Verdict::Done));
    assert_eq!(answers(&mut inbox), [(7, Answer::Done)]);
    check(&inbox);
}

#[test]
fn h2_after_four_seconds_it_is_told_to_come_again_and_may_wait_again() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    inbox.tick(at(3));
    assert!(answers(&mut inbox).is_empty());
    inbox.tick(at(4));
    assert_eq!(inbox.earliest(), None, "a deadline that passed is over");
    assert_eq!(answers(&mut inbox), [(1, AGAIN)]);
    assert_eq!((FULL.status(), FULL.after()), (503, Some(SOON)));
    assert_eq!((AGAIN.status(), AGAIN.after()), (409, Some(SOON)));
    assert_eq!(inbox.on_request(at(5), RequestId(2), id(1), None), Arrival::Duplicate);
    assert!(inbox.complete(at(6), delivery, Verdict::Done));
    assert_eq!(answers(&mut inbox), [(2, Answer::Done)], "the one that waits, not the one that left");
    check(&inbox);
}

#[test]
fn h2_one_request_waits_for_one_message() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    assert_eq!(inbox.on_request(at(1), RequestId(2), id(1), None), Arrival::Answer(AGAIN));
    assert!(inbox.complete(at(2), delivery, Verdict::Done));
    assert_eq!(answers(&mut inbox), [(1, Answer::Done)]);
}

#[test]
fn h2_several_wait_for_several_each_with_its_own_limit() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    for n in 0..3 {
        let _ = delivered(inbox.on_request(at(n), RequestId(n), id(u128::from(n)), None));
    }
    for n in 0..3 {
        assert_eq!(inbox.earliest(), Some((at(n + 4), Wake::Memory)));
        inbox.tick(at(n + 4));
        assert_eq!(answers(&mut inbox), [(n, AGAIN)]);
        check(&inbox);
    }
}

#[test]
fn h2_a_request_that_was_given_up_is_not_answered_and_its_message_stays() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    assert!(inbox.request_gone(RequestId(1)));
    assert!(!inbox.request_gone(RequestId(1)));
    assert!(inbox.complete(at(1), delivery, Verdict::Done));
    assert!(answers(&mut inbox).is_empty());
    assert_eq!(inbox.on_request(at(2), RequestId(2), id(1), None), Arrival::Answer(Answer::Done));
    let other = delivered(inbox.on_request(at(3), RequestId(3), id(2), None));
    assert!(inbox.complete(at(3), other, Verdict::Done));
    assert!(inbox.request_gone(RequestId(3)), "answered, but not yet taken");
    check(&inbox);
    assert!(answers(&mut inbox).is_empty());
}

#[test]
fn h2_at_the_end_everybody_who_waits_is_told() {
    let mut inbox = inbox(InboxConfig::DEFAULT);
    let delivery = delivered(inbox.on_request(at(0), RequestId(1), id(1), None));
    inbox.release_waiters();
    check(&inbox);
    assert_eq!(answers(&mut inbox), [(1, AGAIN)]);
    assert_eq!(inbox.earliest(), None, "nothing is left to wake for");
    assert!(inbox.complete(at(1), delivery, Verdict::Done), "the application may still finish");
}

#[test]
fn s6_closed_to_what_is_new_but_not_to_copies() {
    let mut inbox = after(Verdict::Done, OnReject::Acknowledge);
    assert_eq!(acks(&mut inbox), [1]);
    inbox.close();
    assert_eq!(inbox.on_frame(at(2), id(2), key(20)), Arrival::Full);
    assert_eq!(inbox.on_request(at(2), RequestId(1), id(2), key(20)), Arrival::Answer(FULL));
    assert_eq!(inbox.on_frame(at(2), id(1), key(10)), Arrival::Duplicate);
    assert_eq!(acks(&mut inbox), [1]);
}

/// Words of a hash that anybody can compute, FNV of 64-bit words: ids whose hashes are all the same.
fn colliding(n: u64) -> MessageId {
    const PRIME: u64 = 0x0100_0000_01b3;
    let unkeyed = |(high, low): (u64, u64)| {
        [high, low].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| (hash ^ word).wrapping_mul(PRIME))
    };
    let low = unkeyed((n, 0)).wrapping_mul(PRIME_INVERSE) ^ 7;
    let id = MessageId::from_bits(u128::from(n) << 64 | u128::from(low));
    assert_eq!(unkeyed(id.halves()), 7_u64.wrapping_mul(PRIME), "as every other");
    id
}

/// `PRIME · PRIME_INVERSE = 1` among 64-bit numbers.
const PRIME_INVERSE: u64 = 0xce96_5057_aff6_957b;

/// Remembers `count` messages, each completed and acknowledged. The mean number of names that a look-up looks at, of
/// one that finds and of one that does not, and the largest of both.
fn probes(inbox: &mut Inbox<Vec<Seen>>, count: u64, id: impl Fn(u64) -> MessageId) -> (f64, f64, u64) {
    for n in 0..count {
        let before = inbox.index.probes.get();
        let delivery = delivered(inbox.on_frame(at(0), Some(id(n)), None));
        assert!(inbox.complete(at(0), delivery, Verdict::Done));
        assert_eq!(inbox.take_ack(), Some(id(n)));
        assert!(inbox.index.probes.get() - before < 100, "message {n} is slow");
    }
    let mut most = 0;
    let mut mean = |ids: core::ops::Range<u64>, known: bool| {
        let before = inbox.index.probes.get();
        for n in ids {
            let one = inbox.index.probes.get();
            assert_eq!(inbox.remembers(id(n)), known);
            most = most.max(inbox.index.probes.get() - one);
        }
        (inbox.index.probes.get() - before) as f64 / count as f64
    };
    let (found, missed) = (mean(0..count, true), mean(count..2 * count, false));
    (found, missed, most)
}

fn growing(seed: u64, bytes: usize) -> Inbox<Vec<Seen>> {
    Inbox::new(InboxConfig { bytes, ..InboxConfig::DEFAULT }, seed, Instant::ZERO, Vec::new())
}

#[test]
fn s14_a_look_up_costs_the_same_however_much_is_remembered() {
    for count in [128, 1024, 65_536] {
        let places = usize::try_from(count).unwrap();
        let (found, missed, most) = probes(&mut growing(7, places * Seen::BYTES), count, |n| {
            MessageId::from_bits(u128::from(crate::SplitMix64::new(n).next_u64()))
        });
        assert!((1.7..2.3).contains(&found) && (0.7..1.3).contains(&missed), "{count}: {found} {missed}");
        assert!(most <= 12, "{count}: {most}");
    }
}

#[test]
fn s14_ids_that_an_attacker_chose_are_found_as_fast_as_others() {
    let count = 65_536;
    let places = usize::try_from(count).unwrap();
    let (found, missed, most) = probes(&mut growing(1, places * Seen::BYTES), count, colliding);
    assert!(found < 2.1 && missed < 1.1 && most <= 12, "{found} {missed} {most}");
}

#[test]
fn s14_ids_that_share_a_place_under_one_seed_do_not_under_another() {
    // An attacker knows the program, but not the seed, and tries it out with a seed of his own.
    let mut known = growing(1, 1024 * Seen::BYTES);
    let _ = probes(&mut known, 1024, |n| MessageId::from_bits(u128::from(n)));
    let id = |n: u64| MessageId::from_bits(u128::from(n) << 64);
    let chosen = |n: &u64| {
        let before = known.index.probes.get();
        assert!(!known.remembers(id(*n)));
        known.index.probes.get() - before == 5
    };
    let chosen: Vec<u64> = (1..).filter(chosen).take(512).collect();
    let longest = |seed| {
        let mut inbox = growing(seed, 1024 * Seen::BYTES);
        for n in &chosen {
            let delivery = delivered(inbox.on_frame(at(0), Some(id(*n)), None));
            assert!(inbox.complete(at(0), delivery, Verdict::Done));
            let _ = inbox.take_ack();
        }
        let cost = |n: &u64| {
            let before = inbox.index.probes.get();
            assert!(inbox.remembers(id(*n)));
            inbox.index.probes.get() - before
        };
        chosen.iter().map(cost).max()
    };
    let (under_his, under_ours) = (longest(1), longest(2));
    assert!(under_his > Some(60), "he has found what is slow: {under_his:?}");
    assert!(under_ours < Some(12), "{under_ours:?}");
}

#[test]
fn s14_a_place_is_found_at_once_however_much_waits_to_be_acknowledged() {
    // Nobody takes the acknowledgements of 10,000 messages: the socket is full, or there is none.
    let mut inbox = growing(1, 10_000 * Seen::BYTES);
    for n in 0..10_000 {
        let delivery = delivered(inbox.on_frame(at(0), id(n), None));
        assert!(inbox.complete(at(0), delivery, Verdict::Done));
    }
    let looked = inbox.index.steps.get();
    for n in 0..50 {
        assert_eq!(inbox.on_frame(at(1), id(20_000), None), Arrival::Full);
        let delivery = inbox.on_request(at(1), RequestId(n), id(30_000 + u128::from(n)), None);
        assert!(matches!(delivery, Arrival::Deliver { .. }), "{delivery:?}");
    }
    // Sixteen for the frame, seventeen for the request.
    let looked = inbox.index.steps.get() - looked;
    assert!(looked < 50 * 40, "{looked}");
    assert_eq!(inbox.on_frame(at(1), id(0), None), Arrival::Full, "the oldest made place");
    assert_eq!(inbox.on_frame(at(1), id(50), None), Arrival::Duplicate);
}

#[test]
fn s14_no_input_costs_more_because_much_is_remembered() {
    // Every kind of input, beside 100 and beside 50,000 remembered messages.
    let cost = |remembered: u64| {
        let mut inbox = growing(3, 60_000 * Seen::BYTES);
        let _ = probes(&mut inbox, remembered, |n| MessageId::from_bits(u128::from(n)));
        let before = inbox.index.probes.get();
        for n in 0..1000_u64 {
            let known = u128::from(n % remembered);
            assert_eq!(inbox.on_frame(at(1), id(known), None), Arrival::Duplicate);
            assert_eq!(inbox.take_ack(), id(known));
            let fresh = id(u128::from(n) + (1 << 64));
            let delivery = delivered(inbox.on_request(at(1), RequestId(n), fresh, key(u128::from(n))));
            inbox.tick(at(1));
            assert_eq!(inbox.on_frame(at(1), fresh, None), Arrival::Duplicate);
            match n % 3 {
                0 => assert!(inbox.request_gone(RequestId(n))),
                1 => assert!(inbox.complete(at(1), delivery, Verdict::Retry { after: SECOND })),
                _ => assert!(inbox.complete(at(1), delivery, Verdict::Reject)),
            }
            let _ = (inbox.take_answer(), inbox.take_rejected_but_acked(), inbox.take_ack());
            let _ = inbox.complete(at(1), delivery, Verdict::Done);
            let _ = inbox.take_ack();
        }
        inbox.index.probes.get() - before
    };
    let (few, many) = (cost(100), cost(50_000));
    assert!(many < few + few / 2, "{few} names beside few, {many} beside many");
}

#[test]
fn s14_equal_memories_are_equal_whatever_their_history() {
    fn hash(inbox: &impl Hash) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        inbox.hash(&mut hasher);
        hasher.finish()
    }
    /// Takes four that nobody remembers, completes them in this order, takes two others.
    fn lived<S: Store<Seen>>(seed: u64, storage: S, given_back: [usize; 4]) -> Inbox<S> {
        let mut inbox = Inbox::new(InboxConfig::DEFAULT, seed, Instant::ZERO, storage);
        let four = [1, 2, 3, 4].map(|_| delivered(inbox.on_frame(at(0), None, None)));
        for which in given_back {
            assert!(inbox.complete(at(1), four[which], Verdict::Done));
        }
        let fifth = delivered(inbox.on_frame(at(2), id(5), key(5)));
        let _ = delivered(inbox.on_request(at(2), RequestId(4), id(6), None));
        assert!(inbox.complete(at(3), fifth, Verdict::Done));
        inbox
    }
    let (one, other) = (lived(1, Vec::new(), [0, 1, 2, 3]), lived(2, Vec::new(), [3, 1, 0, 2]));
    assert_ne!(one.places, other.places, "they lie in other places, or nothing is shown");
    assert_eq!(one, other);
    assert_eq!(hash(&one), hash(&other));
    let fixed = lived(3, Fixed::<Seen, 4>::new(), [2, 3, 1, 0]);
    assert_eq!(hash(&one), hash(&fixed), "fixed or growing");
    let mut later = one.clone();
    assert_eq!(later.take_ack(), id(5));
    assert_ne!(one, later);
    assert_ne!(hash(&one), hash(&later));
}

#[test]
fn s15_the_memory_grows_to_its_bytes_and_no_further() {
    let bytes = 100 * 1024;
    let mut inbox = growing(5, bytes);
    assert_eq!(inbox.places.capacity(), 0, "nothing is taken before it is needed");
    let most = u128::try_from(bytes / Seen::BYTES).unwrap();
    for n in 0..most {
        let delivery = delivered(inbox.on_frame(at(0), id(n), key(n)));
        assert!(inbox.complete(at(0), delivery, Verdict::Done));
        assert_eq!(inbox.take_ack(), id(n));
    }
    assert_eq!(inbox.horizon_short(), 0);
    let memory = inbox.places.capacity() * size_of::<Seen>();
    assert!(memory <= bytes && memory + Seen::BYTES > bytes, "{memory}");
    let beyond = inbox.on_frame(at(1), id(most), key(most));
    assert!(matches!(beyond, Arrival::Deliver { maybe_dup: true, .. }), "{beyond:?}");
    assert_eq!((inbox.horizon_short(), inbox.places.capacity() * size_of::<Seen>()), (1, memory));
    assert!(!inbox.remembers(MessageId::from_bits(0)) && inbox.remembers(MessageId::from_bits(1)), "the oldest went");
    check(&inbox);
}

#[test]
fn s15_a_validation_phase_fits() {
    let config = crate::GONKA_API_NODE.inbox;
    let mut inbox = Inbox::new(config, 5, Instant::ZERO, Vec::new());
    // Fourteen batches a second for an hour, each under an id and a content of its own.
    for n in 0..50_000 {
        let now = at(u64::try_from(n).unwrap() / 14);
        let delivery = delivered(inbox.on_frame(now, id(n), key(n)));
        assert!(inbox.complete(now, delivery, Verdict::Done));
        assert_eq!(inbox.take_ack(), id(n));
    }
    assert_eq!(inbox.horizon_short(), 0);
    assert!(inbox.places.capacity() * size_of::<Seen>() <= config.bytes);
    assert_eq!(inbox.on_request(at(HOUR - 1), RequestId(1), None, key(0)), Arrival::Answer(Answer::Done));
}

#[derive(Clone, Debug)]
enum Do {
    Frame { message: u128, alias: u128 },
    Request { message: u128, named: bool },
    Complete { which: usize, verdict: u8 },
    Gone(u64),
    Wait(u64),
    Acks,
    Drain,
}

fn step() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (0..6_u128, 0..3_u128).prop_map(|(message, alias)| Do::Frame { message, alias }),
        4 => (0..6_u128, any::<bool>()).prop_map(|(message, named)| Do::Request { message, named }),
        5 => (0..6_usize, 0..4_u8).prop_map(|(which, verdict)| Do::Complete { which, verdict }),
        1 => (0..40_u64).prop_map(Do::Gone),
        2 => prop_oneof![1..6_u64, 1000..4000_u64].prop_map(Do::Wait),
        2 => Just(Do::Acks),
        3 => Just(Do::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// I6: nobody overtakes under one id, and nothing is delivered twice, whatever comes in whatever order.
    #[test]
    fn i6_acknowledgements_of_one_id_leave_in_the_order_of_arrival(steps in proptest::collection::vec(step(), 1..100)) {
        let mut inbox = inbox(BOTH);
        let (mut now, mut requests) = (0, 0);
        let mut open = BTreeMap::new();
        let mut came = BTreeMap::new();
        for step in steps {
            let arrived = match step {
                Do::Frame { message, alias } => {
                    Some((known(alias, message), inbox.on_frame(at(now), id(alias), key(message))))
                }
                Do::Request { message, .. } => {
                    requests += 1;
                    Some((known(0, message), inbox.on_request(at(now), RequestId(requests), id(0), key(message))))
                }
                Do::Complete { which, verdict } => {
                    if let Some(delivery) = open.keys().nth(which).copied() {
                        let verdict = if verdict == 0 { Verdict::Retry { after: SECOND } } else { Verdict::Done };
                        prop_assert!(inbox.complete(at(now), delivery, verdict));
                        open.remove(&delivery);
                    }
                    None
                }
                Do::Wait(seconds) => {
                    now += seconds;
                    inbox.tick(at(now));
                    None
                }
                Do::Acks => {
                    let order: Vec<DeliveryId> = acks(&mut inbox).iter().map(|ack| came[ack]).collect();
                    prop_assert!(order.is_sorted(), "{:?}", order);
                    None
                }
                Do::Drain => {
                    let _ = answers(&mut inbox);
                    None
                }
                Do::Gone(_) => None,
            };
            if let Some((name, Arrival::Deliver { delivery, .. })) = arrived {
                prop_assert!(open.values().all(|open| *open != name), "twice at the application");
                open.insert(delivery, name);
                came.insert(name, delivery);
            }
            check(&inbox);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// G2, G3, G4, H2: whatever comes, in whatever order.
    #[test]
    fn g2_no_second_delivery_within_the_horizon_without_a_mark(steps in proptest::collection::vec(step(), 1..100)) {
        let mut inbox = inbox(InboxConfig { held: 2, ..InboxConfig::DEFAULT });
        let mut now = 0;
        let mut open: BTreeMap<DeliveryId, u128> = BTreeMap::new();
        let mut done: BTreeMap<u128, u64> = BTreeMap::new();
        let mut given_back: BTreeMap<u128, u64> = BTreeMap::new();
        let mut waiting = BTreeMap::new();
        let mut requests = 0;
        for step in steps {
            let arrived = match step {
                Do::Frame { message, alias } => {
                    Some((message, inbox.on_frame(at(now), id(message * 10 + alias), key(message))))
                }
                Do::Request { message, named } => {
                    requests += 1;
                    let name = if named { id(message * 10) } else { None };
                    let arrival = inbox.on_request(at(now), RequestId(requests), name, key(message));
                    if matches!(arrival, Arrival::Deliver { .. } | Arrival::Duplicate) {
                        waiting.insert(requests, now);
                    }
                    Some((message, arrival))
                }
                Do::Complete { which, verdict } => {
                    if let Some((delivery, message)) = open.iter().nth(which).map(|(d, m)| (*d, *m)) {
                        open.remove(&delivery);
                        let verdict = match verdict {
                            0 => Verdict::Retry { after: 3 * SECOND },
                            1 => Verdict::Reject,
                            _ => Verdict::Done,
                        };
                        if verdict == (Verdict::Retry { after: 3 * SECOND }) {
                            given_back.insert(message, now);
                        }
                        prop_assert!(inbox.complete(at(now), delivery, verdict));
                        prop_assert!(!inbox.complete(at(now), delivery, verdict));
                        if !matches!(verdict, Verdict::Retry { .. }) {
                            done.insert(message, now);
                        }
                    }
                    None
                }
                Do::Gone(request) => {
                    prop_assert_eq!(inbox.request_gone(RequestId(request)), waiting.remove(&request).is_some());
                    None
                }
                Do::Wait(seconds) => {
                    now += seconds;
                    inbox.tick(at(now));
                    prop_assert!(inbox.earliest().is_none_or(|(when, _)| when > at(now)));
                    None
                }
                Do::Acks => {
                    for ack in acks(&mut inbox) {
                        prop_assert!(done.contains_key(&(ack / 10)), "G3: acknowledged before it was done");
                    }
                    None
                }
                Do::Drain => {
                    for (request, answer) in answers(&mut inbox) {
                        let since = waiting.remove(&request);
                        prop_assert!(since.is_some(), "an answer nobody waits for");
                        prop_assert!(matches!(answer, Answer::Done | Answer::Again { .. }), "another answer");
                    }
                    while inbox.take_rejected_but_acked().is_some() {}
                    for (request, since) in &waiting {
                        prop_assert!(now < since + 4, "H2: {} waits since {} at {}", request, since, now);
                    }
                    None
                }
            };
            if let Some((message, Arrival::Deliver { delivery, maybe_dup })) = arrived {
                prop_assert!(!open.values().any(|held| *held == message), "delivered while it is at the application");
                let forgotten = done.get(&message).is_none_or(|when| when + HOUR <= now);
                prop_assert!(forgotten || maybe_dup, "G2: {} again at {}", message, now);
                // Of three places two may be held, and then the third is needed.
                let rests = given_back.get(&message).is_some_and(|when| now < when + 3);
                prop_assert!(!rests || given_back.len() + done.len() > 1, "S16: {} again at {}", message, now);
                prop_assert!(open.insert(delivery, message).is_none());
            }
            check(&inbox);
            prop_assert_eq!(inbox.held(), open.len());
            prop_assert!(inbox.held() <= 2);
        }
    }
}
