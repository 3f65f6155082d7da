//! A hub in fixed memory, at random: every input there is, and after each the promises that can be seen from outside.

use super::Payload;
use bowline::hub::{
    Heard, Hub, HubConfig, HubEvent, HubOutput, Identity, Inline, Publish, Slow, Stamp, Start, TopicFilter, TopicName,
    Verdict,
};
use bowline::{
    Arrival, Event, Head, HttpOutcome, Instant, MessageId, Origin, Policy, PostId, Reason, RequestId, Seq, SplitMix64,
    hub::ConnId, hub::SessionId,
};
use core::hint::black_box;
use core::time::Duration;

type Small = Hub<Payload, Inline<2, 2, 2, 2, 2, 2, 3, 2>>;

/// What the last outputs named, of each kind one.
struct Seen {
    conn: Option<ConnId>,
    session: Option<SessionId>,
    post: PostId,
    ends: u64,
}

/// Two sessions' worth of memory, six identities, every policy.
// Not inlined, or all walks would be on the stack at once: a Cortex-M3 of 64 KiB has not so much.
#[inline(never)]
pub(crate) fn walk() -> Result<(), usize> {
    for slow in [Slow::DropNewest, Slow::DropOldest, Slow::Conflate, Slow::Disconnect] {
        let mut config = HubConfig::DEFAULT;
        config.bulk.slow = slow;
        config.bulk.most = 2;
        config.session.route.http = true;
        let Ok(config) = config.check() else { return Err(line!() as usize) };
        let mut hub = Small::new(config, 7, Origin::new(1, 1), Instant::ZERO);
        let mut rng = SplitMix64::new(black_box(5));
        let mut now = Instant::ZERO;
        let first = PostId { seq: Seq::FIRST, attempt: 1 };
        let mut seen = Seen { conn: None, session: None, post: first, ends: 0 };
        let mut accepted = 0_u64;
        for step in 0..black_box(1500_u32) {
            now = now.after(Duration::from_millis(rng.up_to(400)));
            accepted += u64::from(input(&mut hub, &mut rng, now, step, &mut seen));
            drain(&mut hub, &mut seen);
            let health = hub.health();
            if hub.deadline().is_some_and(|at| at <= hub.now())
                || health.connections + health.suspended != health.sessions
                || health.active > health.connections
            {
                return Err(line!() as usize);
            }
        }
        hub.drain(now, Duration::from_secs(1), Duration::from_secs(1));
        for _ in 0..black_box(200_u32) {
            now = now.after(Duration::from_millis(100));
            hub.tick(now);
            drain(&mut hub, &mut seen);
        }
        // Whatever was accepted has ended, once.
        if accepted == 0 || seen.ends != accepted || hub.health().sessions != 0 || hub.health().backlog != 0 {
            return Err(line!() as usize);
        }
    }
    Ok(())
}

pub(crate) const SIZE: usize = size_of::<Small>();

fn drain(hub: &mut Small, seen: &mut Seen) {
    while let Some(output) = hub.poll() {
        match output {
            HubOutput::Verify { conn, .. } => seen.conn = Some(conn),
            HubOutput::Welcome { conn, session, .. } => {
                seen.conn = Some(conn);
                seen.session = Some(session);
            }
            HubOutput::Post { session, post, .. } => {
                seen.session = Some(session);
                seen.post = post;
            }
            HubOutput::Event(HubEvent::Session { event: Event::Settled { .. }, .. }) => seen.ends += 1,
            HubOutput::Close { .. }
            | HubOutput::Drop { .. }
            | HubOutput::Frame { .. }
            | HubOutput::Broadcast { .. }
            | HubOutput::Carry { .. }
            | HubOutput::Topic { .. }
            | HubOutput::Gap { .. }
            | HubOutput::Respond { .. }
            | HubOutput::Event(_) => {}
        }
    }
}

/// One input of any kind; whether a message was accepted by it.
fn input(hub: &mut Small, rng: &mut SplitMix64, now: Instant, step: u32, seen: &mut Seen) -> bool {
    let small = rng.up_to(5);
    let identity = Identity::from_bits(u128::from(small));
    let wall = i64::try_from(now.as_micros()).unwrap_or(0);
    let stamp = Some(Stamp { nonce: rng.up_to(50), issued: wall });
    let id = Some(MessageId::from_bits(u128::from(rng.up_to(30))));
    match (rng.up_to(18), seen.conn, seen.session) {
        (0 | 1, ..) => {
            if let Ok(conn) = hub.connect(now, small) {
                seen.conn = Some(conn);
                hub.hello(now, wall, conn, identity, stamp);
            }
        }
        (2..=4, Some(conn), _) => {
            let verdict = match small {
                0 => Verdict::Refuse(bowline::hub::CloseReason::Unknown),
                1 => Verdict::Later(Duration::from_secs(1)),
                _ => Verdict::Accept { http: small > 3 },
            };
            hub.verified(now, wall, conn, verdict);
        }
        (5 | 6, Some(conn), _) => {
            let heard = hub.received(now, wall, conn, Head::Data { id, key: None }, 10, stamp);
            if let Heard::Arrival(session, Arrival::Deliver { delivery, .. }) = heard {
                hub.complete(now, session, delivery, bowline::Verdict::Done);
                hub.release(session, 10);
            }
        }
        (7, Some(conn), _) => {
            let head = if small == 0 { Head::Malformed } else { Head::Pong };
            let _ = hub.received(now, wall, conn, head, 2, None);
        }
        (8, Some(conn), _) => hub.writable(now, conn, small > 2),
        (9, Some(conn), _) => hub.disconnected(now, conn, Reason::Closed(1006)),
        (10, ..) => {
            let request = RequestId(u64::from(step));
            if let Ok((session, Arrival::Deliver { delivery, .. })) =
                hub.request(now, wall, identity, request, id, None, 10, stamp)
            {
                hub.complete(now, session, delivery, bowline::Verdict::Done);
                hub.release(session, 10);
            }
        }
        (11 | 12, _, Some(session)) => return hub.send(now, session, [7; 16], 16, Policy::DEFAULT).is_ok(),
        (13, ..) => {
            let how = Publish { key: Some(small), snapshot: small == 0 };
            hub.publish(now, [8; 16], 16, how, |_, _| rng.up_to(3) > 0);
        }
        (14, _, Some(session)) => hub.posted(now, session, seen.post, HttpOutcome::status(200)),
        (15, _, Some(session)) if small == 0 => {
            hub.dismiss(now, session);
        }
        (16 | 17, ..) => topics(hub, now, small, step, seen),
        _ => {
            hub.expect(now, Some(3));
        }
    }
    false
}

/// Two places for topics, four for items, three for subscriptions.
fn topics(hub: &mut Small, now: Instant, small: u64, step: u32, seen: &Seen) {
    let [one, all] = ["a.b", "a.*"].map(TopicFilter::new);
    let name = TopicName::new(match step % 3 {
        0 => "a.b",
        1 => "a.c",
        _ => "b",
    });
    if let (Ok(one), Ok(all), Ok(name)) = (one, all, name) {
        match (small, seen.session) {
            (0, Some(session)) => {
                hub.unsubscribe(now, session, &all);
            }
            (1, Some(session)) => {
                let _ = hub.subscribe(now, session, &one, Start::Oldest);
            }
            (2, Some(session)) => {
                let _ = hub.subscribe(now, session, &all, Start::Now);
            }
            _ => {
                hub.publish_topic(now, &name, [9; 16], 16);
            }
        }
    }
}
