//! Topics at the hub's surface: ten thousand subscribers, peers whose connections break, and fixed memory.
//! (What the machine does alone is held against a model in `core/src/hub/topics/tests.rs`.)

use bowline::hub::{
    ConnId, Grows, Hub, HubConfig, HubEvent, HubOutput, Identity, Inline, Memory, Position, Rate, Sent, SessionId,
    Start, Subscribed, TopicFilter, TopicName, TopicsConfig, TopicsFull, Verdict,
};
use bowline::{Instant, Origin, Reason, SplitMix64};
use bowline_tests::sim::{ms, s, seeds};
use std::collections::{BTreeMap, BTreeSet};

fn config(sessions: usize, topics: TopicsConfig) -> HubConfig {
    let mut config = HubConfig { topics, ..HubConfig::DEFAULT };
    (config.sessions, config.connections, config.pending, config.addresses) =
        (sessions, 2 * sessions, 2 * sessions, 2 * sessions);
    (config.handshakes, config.per_identity.handshakes) = (Rate::UNLIMITED, Rate::UNLIMITED);
    config.per_address.handshakes = Rate::UNLIMITED;
    config
}

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

/// Peer `n` connects, from an address of its own.
fn arrive<M: Memory<u64>>(hub: &mut Hub<u64, M>, now: Instant, n: usize) -> (ConnId, SessionId) {
    let identity = Identity::from_bits(u128::try_from(n).unwrap() + 1);
    let conn = hub.connect(now, n as u64).unwrap();
    assert!(hub.hello(now, 0, conn, identity, None));
    assert!(hub.verified(now, 0, conn, Verdict::Accept { http: false }));
    (conn, hub.session_of(conn).unwrap())
}

/// Ten thousand sessions: each is subscribed to three topics by name, every hundredth to a hundred topics by a filter, which
/// may be the same ones. A tenth is away for a while.
#[test]
fn u4_ten_thousand_subscribers_of_a_thousand_topics_get_exactly_their_items() {
    const SESSIONS: usize = 10_000;
    const ITEMS: u64 = 5;
    let names: Vec<TopicName> = (0..1000).map(|n| name(&format!("t.{}.{}", n / 100, n % 100))).collect();
    let mut rng = SplitMix64::new(4);
    let mut now = Instant::ZERO;
    let checked = config(SESSIONS, TopicsConfig::DEFAULT).check().unwrap();
    let mut hub: Hub<u64, Grows> = Hub::new(checked, 4, Origin::new(7, 1), now);
    let mut conns = Vec::new();
    let mut wanted: BTreeMap<SessionId, BTreeSet<TopicName>> = BTreeMap::new();
    let mut who = BTreeMap::new();
    for n in 0..SESSIONS {
        let (conn, session) = arrive(&mut hub, now, n);
        let mut topics = BTreeSet::new();
        for _ in 0..3 {
            let topic = names[usize::try_from(rng.up_to(999)).unwrap()];
            hub.subscribe(now, session, &topic.into(), Start::Now).unwrap();
            topics.insert(topic);
        }
        if n % 100 == 0 {
            let which = filter(&format!("t.{}.*", n / 100 % 10));
            // Those topics that nobody has named yet will come.
            hub.subscribe(now, session, &which, Start::Now).unwrap();
            topics.extend(names.iter().filter(|name| which.matches(name)));
        }
        wanted.insert(session, topics);
        who.insert(session, n);
        conns.push(conn);
    }
    let mut got: BTreeMap<SessionId, BTreeMap<TopicName, Vec<u64>>> = BTreeMap::new();
    let mut take = |hub: &mut Hub<u64, Grows>| {
        while let Some(output) = hub.poll() {
            match output {
                HubOutput::Topic { session, topic, payload, .. } => {
                    got.entry(session).or_default().entry(*topic).or_default().push(*payload);
                }
                HubOutput::Gap { session, topic, .. } => panic!("U4: {session:?} missed something of {topic}"),
                HubOutput::Event(HubEvent::Lost { session, .. }) => panic!("U6: {session:?} lost something"),
                _ => {}
            }
        }
    };
    take(&mut hub);
    for round in 1..=ITEMS {
        now = now.after(ms(100));
        if round == 3 {
            for conn in conns.iter().step_by(10) {
                hub.disconnected(now, *conn, Reason::Closed(1006));
            }
            take(&mut hub);
        }
        if round == ITEMS {
            for n in (0..SESSIONS).step_by(10) {
                conns[n] = arrive(&mut hub, now, n).0;
            }
        }
        for topic in &names {
            let sent = hub.publish_topic(now, topic, round, 8);
            assert_eq!((sent.refused, sent.dropped), (0, 0));
            assert!(round == 3 || round == 4 || sent.reached as usize == hub.subscribers(topic));
            if rng.up_to(9) == 0 {
                take(&mut hub);
            }
        }
        take(&mut hub);
    }
    assert_eq!(got.len(), SESSIONS);
    let all: Vec<u64> = (1..=ITEMS).collect();
    for (session, topics) in &wanted {
        let got = &got[session];
        assert!(got.keys().eq(topics), "{}: what it wants, and nothing else", who[session]);
        assert!(got.values().all(|items| *items == all), "{}: each once, in order: {got:?}", who[session]);
    }
    let copies = wanted.values().map(|topics| topics.len() as u64).sum::<u64>() * ITEMS;
    assert_eq!((hub.stats().topic_copies, hub.stats().gaps), (copies, 0));
    assert!(hub.topics().all(|topic| topic.held == 5 && topic.behind == 0 && topic.newest.offset == ITEMS));
}

/// A peer that says when it comes back what it has: what was written to the connection that broke may not have come.
#[derive(Default)]
struct Peer {
    conn: Option<ConnId>,
    session: Option<SessionId>,
    /// Of each topic it wants, the last that it has or knows it missed.
    has: BTreeMap<TopicName, Option<Position>>,
    /// On its way to it.
    wire: Vec<(TopicName, What)>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Item(Position, u64),
    Gap(Option<u64>, u64),
}

struct Net {
    hub: Hub<u64, Grows>,
    now: Instant,
    rng: SplitMix64,
    peers: Vec<Peer>,
    /// What was published, by topic and offset.
    published: BTreeMap<(TopicName, u64), u64>,
    came: usize,
    gaps: usize,
}

impl Net {
    /// Everything the hub says. A welcome is answered by what the peer has, before anything else is asked.
    fn drain(&mut self) {
        loop {
            let Some(output) = self.hub.poll() else {
                assert!(self.hub.deadline().is_none_or(|at| at > self.hub.now()), "rule 6");
                return;
            };
            let (session, topic, what) = match output {
                HubOutput::Welcome { session, .. } => {
                    let peer = self.peers.iter_mut().find(|peer| peer.session == Some(session)).unwrap();
                    for (topic, has) in &peer.has {
                        let start = has.map_or(Start::Now, Start::After);
                        let subscribed = self.hub.subscribe(self.now, session, &(*topic).into(), start);
                        assert!(!subscribed.unwrap().added, "U4: it is subscribed for as long as its session lives");
                    }
                    continue;
                }
                HubOutput::Topic { session, topic, position, payload, .. } => {
                    (session, *topic, What::Item(position, *payload))
                }
                HubOutput::Gap { session, topic, from, to, .. } => (session, *topic, What::Gap(from, to)),
                _ => continue,
            };
            let peer = self.peers.iter_mut().find(|peer| peer.session == Some(session)).unwrap();
            assert!(peer.conn.is_some(), "nothing goes to whoever is away");
            peer.wire.push((topic, what));
        }
    }

    /// The first `most` things on a peer's wire arrive.
    fn arrive(&mut self, n: usize, most: usize) {
        let peer = &mut self.peers[n];
        let most = most.min(peer.wire.len());
        for (topic, what) in peer.wire.drain(..most) {
            let Some(has) = peer.has.get_mut(&topic) else { continue };
            match what {
                What::Item(position, payload) => {
                    let before = has.replace(position);
                    assert!(
                        before.is_none_or(|before| before.offset + 1 == position.offset),
                        "U4: {topic} {before:?}, then {position:?}"
                    );
                    assert_eq!(self.published[&(topic, position.offset)], payload);
                    self.came += 1;
                }
                What::Gap(from, to) => {
                    let position = has.expect("whoever has nothing misses nothing");
                    assert_eq!(from, Some(position.offset + 1), "U4: {topic}: the gap begins where it is");
                    assert!(to > position.offset);
                    *has = Some(Position { offset: to, ..position });
                    self.gaps += 1;
                }
            }
        }
    }
}

#[test]
fn u4_a_peer_that_says_what_it_has_gets_the_rest_or_the_gap_whatever_broke() {
    let names: Vec<TopicName> = ["a.a", "a.b", "b"].map(name).to_vec();
    let (mut came, mut gaps) = (0, 0);
    for seed in seeds(40) {
        let topics = TopicsConfig { history: 4, age: s(20), presence: seed % 2 == 1, ..TopicsConfig::DEFAULT };
        let hub = Hub::new(config(6, topics).check().unwrap(), seed, Origin::new(7, 3), Instant::ZERO);
        let peers = (0..6).map(|_| Peer::default()).collect();
        let mut net = Net {
            hub,
            now: Instant::ZERO,
            rng: SplitMix64::new(seed),
            peers,
            published: BTreeMap::new(),
            came: 0,
            gaps: 0,
        };
        for step in 0..800 {
            net.now = net.now.after(ms(net.rng.up_to(40)));
            let n = usize::try_from(net.rng.up_to(5)).unwrap();
            let topic = names[usize::try_from(net.rng.up_to(2)).unwrap()];
            let (now, conn) = (net.now, net.peers[n].conn);
            match (net.rng.up_to(15), conn, net.peers[n].session) {
                (0..=5, ..) => {
                    net.hub.publish_topic(now, &topic, step, 1);
                    if let Some(about) = net.hub.topics().find(|about| about.name == topic) {
                        net.published.insert((topic, about.newest.offset), step);
                    }
                }
                (6..=7, None, _) => {
                    let (conn, session) = arrive(&mut net.hub, now, n);
                    (net.peers[n].conn, net.peers[n].session) = (Some(conn), Some(session));
                }
                (8, Some(conn), _) => {
                    // Some of what was written arrives, the rest never does.
                    let most = usize::try_from(net.rng.up_to(8)).unwrap();
                    net.arrive(n, most);
                    net.peers[n].wire.clear();
                    net.peers[n].conn = None;
                    net.hub.disconnected(now, conn, Reason::Closed(1006));
                }
                (9..=10, Some(_), Some(session)) if !net.peers[n].has.contains_key(&topic) => {
                    let said = net.hub.subscribe(now, session, &topic.into(), Start::Now).unwrap();
                    assert!(said.added);
                    net.peers[n].has.insert(topic, said.newest);
                }
                (11, Some(_), Some(session)) if net.rng.up_to(3) == 0 => {
                    let was = net.peers[n].has.remove(&topic).is_some();
                    assert_eq!(net.hub.unsubscribe(now, session, &topic.into()), was);
                    net.peers[n].wire.retain(|(of, _)| *of != topic);
                }
                (12, Some(conn), _) => {
                    let yes = net.rng.up_to(1) == 0;
                    net.hub.writable(now, conn, yes);
                }
                (13.., Some(_), _) => net.arrive(n, 3),
                _ => net.hub.tick(now),
            }
            if net.rng.up_to(2) > 0 {
                net.drain();
            }
        }
        // All are back and read: everybody has everything that was published while it was subscribed, or was told.
        for n in 0..6 {
            match net.peers[n].conn {
                Some(conn) => net.hub.writable(net.now, conn, true),
                None => {
                    let (conn, session) = arrive(&mut net.hub, net.now, n);
                    (net.peers[n].conn, net.peers[n].session) = (Some(conn), Some(session));
                }
            }
        }
        net.drain();
        for n in 0..6 {
            net.arrive(n, usize::MAX);
            for (topic, has) in &net.peers[n].has {
                let newest = net.hub.topics().find(|about| about.name == *topic).unwrap().newest;
                assert_eq!(*has, Some(newest), "U4: peer {n}, {topic}, seed {seed}");
            }
        }
        came += net.came;
        gaps += net.gaps;
    }
    assert!(came > 2000 && gaps > 50, "the script does something: {came} items, {gaps} gaps");
}

#[test]
fn u4_two_hubs_that_start_in_one_second_do_not_take_each_others_positions_for_theirs() {
    let news = name("news");
    // The origin's epoch is the second of the start; a name may be the same, and so may a seed that somebody has set.
    let of = |seed, identity, epoch| {
        let checked = config(4, TopicsConfig::DEFAULT).check().unwrap();
        let mut hub: Hub<u64, Grows> = Hub::new(checked, seed, Origin::new(identity, epoch), Instant::ZERO);
        let (conn, session) = arrive(&mut hub, Instant::ZERO, 0);
        for n in 1..=9 {
            hub.publish_topic(Instant::ZERO, &news, n, 1);
        }
        (hub, conn, session)
    };
    let epoch = |hub: &Hub<u64, Grows>| hub.topics().next().unwrap().newest.epoch;
    let (first, ..) = of(1, 7, 100);
    assert_eq!(epoch(&of(1, 7, 100).0), epoch(&first), "G8");
    let before = Position { epoch: epoch(&first), offset: 5 };
    for (seed, identity, second) in [(2, 7, 100), (1, 8, 100), (1, 7, 101), (0, 7, 101)] {
        let (mut hub, conn, session) = of(seed, identity, second);
        hub.subscribe(Instant::ZERO, session, &news.into(), Start::After(before)).unwrap();
        let (mut gaps, mut items) = (Vec::new(), Vec::new());
        while let Some(output) = hub.poll() {
            match output {
                HubOutput::Gap { conn: to, from: None, to: last, .. } if to == conn => gaps.push(last),
                HubOutput::Topic { payload, .. } => items.push(*payload),
                _ => {}
            }
        }
        assert_eq!((gaps, items), (vec![0], (1..=9).collect()), "of hub {seed} {identity} {second}");
    }
}

#[test]
fn u4_a_hub_in_fixed_memory_has_topics_if_it_is_given_places_for_them() {
    let checked = config(2, TopicsConfig::DEFAULT).check().unwrap();
    let mut hub: Hub<u64, Inline<2, 1, 1, 1, 1, 2, 3, 3>> = Hub::new(checked, 1, Origin::new(7, 1), Instant::ZERO);
    let now = Instant::ZERO;
    let ((_, one), (_, two)) = (arrive(&mut hub, now, 1), arrive(&mut hub, now, 2));
    let start = Start::Now;
    hub.subscribe(now, one, &name("a").into(), start).unwrap();
    hub.subscribe(now, one, &name("b").into(), start).unwrap();
    assert_eq!(hub.subscribe(now, two, &name("c").into(), start), Err(TopicsFull::Topics));
    assert_eq!(hub.subscribe(now, two, &filter("*"), start), Err(TopicsFull::Subscriptions), "one is left, not two");
    let newest = hub.topics().next().map(|topic| topic.newest);
    assert_eq!(newest.unwrap().offset, 0);
    assert_eq!(hub.subscribe(now, two, &name("a").into(), start), Ok(Subscribed { added: true, topics: 1, newest }));
    assert_eq!(hub.publish_topic(now, &name("c"), 0, 1), Sent::default(), "no place, and nobody who wants it");
    for n in 1..=4 {
        let sent = hub.publish_topic(now, &name("a"), n, 1);
        assert_eq!(sent, Sent { reached: 2, refused: 0, dropped: if n == 4 { 2 } else { 0 } });
    }
    let mut came = Vec::new();
    while let Some(output) = hub.poll() {
        match output {
            HubOutput::Topic { session, payload, .. } if session == two => came.push(*payload),
            HubOutput::Gap { session, from, to, .. } if session == two => assert_eq!((from, to), (Some(1), 1)),
            _ => {}
        }
    }
    assert_eq!(came, [2, 3, 4], "three places");
    assert_eq!(hub.subscriptions(two).map(|(name, _)| *name).collect::<Vec<_>>(), [name("a")]);
}
