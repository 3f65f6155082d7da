//! Topics without a hub, against a model that keeps everything in maps: random scripts, and each op compared.

use super::*;
use crate::SplitMix64;
use crate::hub::table::Cell;
use crate::hub::{Grows, HubConfig, Inline};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

const NAMES: [&str; 7] = ["a", "a.a", "a.b", "b.a", "b.b", "a.b.a", "b.b.b"];
const FILTERS: [&str; 7] = ["*", "**", "a.*", "*.b", "a.**", "b.*.*", "c.**"];
const EPOCH: u32 = 5;

fn name(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::new(text).unwrap()
}

/// A subscription as the model has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    cursor: u64,
    astray: bool,
}

#[derive(Clone, Default)]
struct Client {
    /// Where the machine knows it.
    member: u32,
    connected: bool,
    named: BTreeSet<TopicName>,
    filters: BTreeSet<TopicFilter>,
    places: BTreeMap<TopicName, Place>,
}

impl Client {
    fn wants(&self, topic: &TopicName) -> bool {
        self.named.contains(topic) || self.filters.iter().any(|filter| filter.matches(topic))
    }
}

/// An item of the model's: of all topics in the order in which they came.
#[derive(Clone, Debug)]
struct Held {
    topic: TopicName,
    offset: u64,
    payload: u64,
    size: u32,
    forget: Instant,
}

/// What the storage and the settings allow.
#[derive(Clone, Copy)]
struct Limits {
    topics: usize,
    items: usize,
    subscriptions: usize,
    filters: usize,
    members: usize,
}

struct Rig<M: Memory<u64>> {
    topics: Topics<u64, M>,
    config: TopicsConfig,
    limits: Limits,
    now: Instant,
    rng: SplitMix64,
    peers: Vec<Key>,
    clients: Vec<Client>,
    /// The next offset of each topic there is, and of each there was.
    next: BTreeMap<TopicName, u64>,
    past: BTreeMap<TopicName, u64>,
    items: Vec<Held>,
    payload: u64,
    /// Who was told to be there, and how often it was told that somebody was not.
    told: BTreeSet<(usize, TopicName)>,
    gaps: usize,
    given: usize,
    forgotten: usize,
    full: usize,
}

impl<M: Memory<u64>> Rig<M> {
    fn new(seed: u64, config: TopicsConfig, limits: Limits) -> Self {
        let mut keys: Table<u8, Vec<Option<Cell<u8>>>> = Table::new(9, Vec::new());
        let peers: Vec<Key> = (0..5).map(|n| keys.insert(n, 0).unwrap()).collect();
        let client = Client { member: NOBODY, ..Client::default() };
        Self {
            topics: Topics::new(config, peers.len(), seed, EPOCH),
            config,
            limits,
            now: Instant::ZERO,
            rng: SplitMix64::new(seed),
            clients: peers.iter().map(|_| client.clone()).collect(),
            peers,
            next: BTreeMap::new(),
            past: BTreeMap::new(),
            items: Vec::new(),
            payload: 0,
            told: BTreeSet::new(),
            gaps: 0,
            given: 0,
            forgotten: 0,
            full: 0,
        }
    }

    fn pick(&mut self, below: usize) -> usize {
        usize::try_from(self.rng.up_to(below as u64 - 1)).unwrap()
    }

    fn first(&self, topic: &TopicName) -> u64 {
        self.items.iter().find(|item| item.topic == *topic).map_or(self.next[topic], |item| item.offset)
    }

    fn behind(&self, topic: &TopicName) -> usize {
        let behind = |place: &Place| place.astray || place.cursor < self.next[topic];
        self.clients.iter().filter(|client| client.places.get(topic).is_some_and(behind)).count()
    }

    fn subscribers(&self, topic: &TopicName) -> usize {
        self.clients.iter().filter(|client| client.places.contains_key(topic)).count()
    }

    fn subscribed(&self) -> usize {
        self.clients.iter().map(|client| client.places.len()).sum()
    }

    /// Whether a topic may be forgotten to make room.
    fn may_go(&self, topic: &TopicName) -> bool {
        let named = self.clients.iter().any(|client| client.named.contains(topic));
        let held = self.items.iter().any(|item| item.topic == *topic);
        self.subscribers(topic) == 0 || (!named && !held && self.behind(topic) == 0)
    }

    fn expire(&mut self) {
        let now = self.now;
        self.items.retain(|item| item.forget > now);
    }

    /// The topics there are now, as the machine says, against those there were: who came, who went, and whether it might.
    fn sync(&mut self) {
        let there: BTreeMap<TopicName, TopicHealth> = self.topics.all().map(|one| (one.name, one)).collect();
        assert!(there.len() <= self.limits.topics);
        for topic in self.next.keys().copied().collect::<Vec<_>>() {
            if !there.contains_key(&topic) {
                let held = self.items.iter().any(|item| item.topic == topic);
                assert!(self.subscribers(&topic) == 0 && !held, "{topic} is forgotten for nothing");
                self.forget(&topic);
            }
        }
        for (topic, health) in &there {
            let next = health.newest.offset + 1;
            let known = self.next.contains_key(topic);
            if !known {
                assert!(next >= self.past.get(topic).copied().unwrap_or(1), "{topic}: an offset twice");
                self.next.insert(*topic, next);
            }
            assert_eq!(self.next[topic], next, "{topic}");
            assert_eq!(health.newest.epoch, EPOCH);
        }
    }

    fn forget(&mut self, topic: &TopicName) {
        let next = self.next.remove(topic).unwrap();
        self.past.insert(*topic, next);
        self.items.retain(|item| item.topic != *topic);
        for client in &mut self.clients {
            client.places.remove(topic);
        }
        self.told.retain(|(_, told)| told != topic);
        self.forgotten += 1;
    }

    /// A topic began: everybody whose filter matches it and has not been refused a place has it from here on.
    fn begin(&mut self, topic: &TopicName, from: u64, unserved: &[usize]) {
        for (n, client) in self.clients.iter_mut().enumerate() {
            let wants = client.filters.iter().any(|filter| filter.matches(topic));
            if wants && !unserved.contains(&n) {
                client.places.insert(*topic, Place { cursor: from, astray: false });
            }
        }
        let total = self.subscribed();
        for n in unserved {
            let full = total + usize::try_from(self.leaving()).unwrap() >= self.limits.subscriptions;
            let share = self.clients[*n].places.len() >= self.config.per_session as usize;
            assert!(full || share, "there was a place for {n}");
            self.full += 1;
        }
    }

    fn leaving(&self) -> u32 {
        (0..self.topics.topics.span()).filter_map(|n| self.topics.topics.at(n)).map(|topic| topic.leaving).sum()
    }

    fn publish(&mut self) {
        let topic = name(NAMES[self.pick(NAMES.len())]);
        let size = u32::try_from(self.rng.up_to(12)).unwrap();
        self.payload += 1;
        self.expire();
        let was_there = self.next.contains_key(&topic);
        let could: BTreeSet<TopicName> = self.next.keys().filter(|topic| self.may_go(topic)).copied().collect();
        let there: BTreeSet<TopicName> = self.next.keys().copied().collect();
        let idlest = self.topics.topics.at(self.topics.idle.first).map(|topic| topic.name);
        assert!(idlest.is_none_or(|idlest| could.contains(&idlest)), "{idlest:?} would be forgotten for nothing");
        assert!(idlest.is_some() || could.is_empty() || self.leaving() > 0, "one of {could:?} could be forgotten");
        let (mut woken, mut unserved) = (Vec::new(), Vec::new());
        let sent = self.topics.publish(self.now, &topic, self.payload, size, |peer, lost| match lost {
            0 => woken.push(peer),
            _ => unserved.push(peer),
        });
        let unserved: Vec<usize> =
            unserved.iter().map(|key| self.peers.iter().position(|peer| peer == key).unwrap()).collect();
        let wanting = self.clients.iter().filter(|client| client.wants(&topic)).count();
        let no_place = !was_there && there.len() >= self.limits.topics && idlest.is_none();
        if size as usize > self.config.bytes || self.limits.items == 0 || no_place {
            let refused = if was_there { self.subscribers(&topic) } else { wanting };
            assert_eq!(sent, Sent { reached: 0, refused: u32::try_from(refused).unwrap(), dropped: 0 });
            self.full += 1;
            return;
        }
        // Now the same in the model: who goes for a new topic goes before anything else.
        if !was_there && there.len() >= self.limits.topics {
            self.forget(&idlest.expect("one may go"));
        }
        if !was_there {
            let one = self.topics.all().find(|one| one.name == topic).unwrap();
            self.next.insert(topic, one.newest.offset);
            assert!(one.newest.offset >= self.past.get(&topic).copied().unwrap_or(1), "{topic}: an offset twice");
            self.begin(&topic, one.newest.offset, &unserved);
        }
        let before = self.first(&topic);
        while self.items.iter().filter(|item| item.topic == topic).count() >= self.config.history as usize {
            let at = self.items.iter().position(|item| item.topic == topic).unwrap();
            self.items.remove(at);
        }
        let bytes = |items: &[Held]| items.iter().map(|item| item.size as usize).sum::<usize>();
        while bytes(&self.items) + size as usize > self.config.bytes || self.items.len() >= self.limits.items {
            self.items.remove(0);
        }
        let offset = self.next[&topic];
        let forget = self.now.after(self.config.age);
        self.items.push(Held { topic, offset, payload: self.payload, size, forget });
        self.next.insert(topic, offset + 1);
        let first = self.first(&topic);
        let connected: Vec<&Client> =
            self.clients.iter().filter(|client| client.connected && client.places.contains_key(&topic)).collect();
        let lost = |client: &&&Client| (before..first).any(|lost| lost >= client.places[&topic].cursor);
        assert_eq!(sent.reached as usize, connected.len());
        assert_eq!(sent.dropped as usize, connected.iter().filter(lost).count());
        assert_eq!(sent.refused as usize, unserved.len());
        assert_eq!(woken.len(), connected.len(), "who has something to get is woken, and nobody else");
        // What another topic lost last may have been all there was of it.
        self.sync();
    }

    fn subscribe(&mut self) {
        let n = self.pick(self.clients.len());
        let exact = self.rng.up_to(1) == 0;
        let what =
            if exact { filter(NAMES[self.pick(NAMES.len())]) } else { filter(FILTERS[self.pick(FILTERS.len())]) };
        let start = match self.rng.up_to(4) {
            0 | 1 => Start::Now,
            2 => Start::Oldest,
            _ => {
                let epoch = EPOCH - u32::from(self.rng.up_to(3) == 0);
                Start::After(Position { epoch, offset: self.rng.up_to(30) })
            }
        };
        let mut unserved = Vec::new();
        let (peer, connected) = (self.peers[n], self.clients[n].connected);
        let mut member = self.clients[n].member;
        let before: Vec<TopicName> = self.next.keys().copied().collect();
        let said = self.topics.subscribe(peer, connected, &mut member, &what, start, |peer| unserved.push(peer));
        self.clients[n].member = member;
        let unserved: Vec<usize> =
            unserved.iter().map(|key| self.peers.iter().position(|peer| peer == key).unwrap()).collect();
        let Ok(said) = said else {
            self.full += 1;
            self.begun(&before, &unserved);
            self.sync();
            return;
        };
        self.begun(&before, &unserved);
        match what.exact() {
            Some(topic) => {
                assert_eq!(said.added, self.clients[n].named.insert(topic));
                assert_eq!((said.topics, said.newest.unwrap().offset + 1), (1, self.next[&topic]));
                self.place(n, topic, start);
            }
            None => {
                assert_eq!(said.added, self.clients[n].filters.insert(what));
                let start = if start == Start::Now { start } else { Start::Oldest };
                let topics: Vec<TopicName> = self.next.keys().filter(|topic| what.matches(topic)).copied().collect();
                for topic in &topics {
                    // Without a new filter, those that found no place when they began may find none now.
                    let has = self.topics.subscriptions(member).any(|(name, _)| name == topic);
                    assert!(has || !said.added, "all or nothing");
                    if has {
                        self.place(n, *topic, start);
                    }
                }
            }
        }
        self.sync();
    }

    /// Topics that are there now and were not before began without an item.
    fn begun(&mut self, before: &[TopicName], unserved: &[usize]) {
        let there: Vec<TopicHealth> = self.topics.all().collect();
        for topic in before {
            if !there.iter().any(|one| one.name == *topic) {
                assert!(self.may_go(topic), "{topic} is forgotten for nothing");
                self.forget(topic);
            }
        }
        for one in there {
            if !self.next.contains_key(&one.name) {
                let next = one.newest.offset + 1;
                assert!(next >= self.past.get(&one.name).copied().unwrap_or(1), "{}: an offset twice", one.name);
                self.next.insert(one.name, next);
                self.begin(&one.name, next, unserved);
            }
        }
    }

    fn place(&mut self, n: usize, topic: TopicName, start: Start) {
        let (first, next) = (self.first(&topic), self.next[&topic]);
        let known = self.clients[n].places.get(&topic).copied();
        let place = match start {
            Start::Now => known.unwrap_or(Place { cursor: next, astray: false }),
            Start::Oldest => Place { cursor: first, astray: false },
            Start::After(Position { epoch: EPOCH, offset }) if offset < next => {
                Place { cursor: offset + 1, astray: false }
            }
            Start::After(_) => Place { cursor: first, astray: true },
        };
        self.clients[n].places.insert(topic, place);
    }

    fn unsubscribe(&mut self) {
        let n = self.pick(self.clients.len());
        let client = &mut self.clients[n];
        let mut all: Vec<TopicFilter> = client.named.iter().map(|name| (*name).into()).collect();
        all.extend(&client.filters);
        all.push(filter("a.b"));
        let what = all[usize::try_from(self.rng.up_to(all.len() as u64 - 1)).unwrap()];
        let was = match what.exact() {
            Some(topic) => client.named.remove(&topic),
            None => client.filters.remove(&what),
        };
        assert_eq!(self.topics.unsubscribe(&mut client.member, &what), was);
        let unwanted: Vec<TopicName> =
            client.places.keys().filter(|topic| what.matches(topic) && !client.wants(topic)).copied().collect();
        for topic in unwanted {
            client.places.remove(&topic);
        }
        self.sync();
    }

    fn leave(&mut self) {
        let n = self.pick(self.clients.len());
        let client = &mut self.clients[n];
        self.topics.leave(&mut client.member);
        assert_eq!(client.member, NOBODY);
        *client = Client { member: NOBODY, ..Client::default() };
        self.sync();
    }

    fn connect(&mut self) {
        let n = self.pick(self.clients.len());
        let client = &mut self.clients[n];
        client.connected = !client.connected;
        self.topics.connected(client.member, client.connected);
    }

    /// Takes up to so many things for a session.
    fn take(&mut self, n: usize, most: usize) {
        for _ in 0..most {
            let Some(due) = self.topics.next(self.clients[n].member) else { return };
            let (Due::Item { topic, .. } | Due::Gap { topic, .. }) = due;
            let topic = *self.topics.name(topic).unwrap();
            let first = self.first(&topic);
            let place = self.clients[n].places.get_mut(&topic).expect("it is subscribed");
            match due {
                Due::Item { item, offset, .. } => {
                    assert_eq!((place.cursor, place.astray), (offset, false), "{topic}: in order, or a gap first");
                    let held = self.items.iter().find(|held| held.topic == topic && held.offset == offset);
                    assert_eq!(self.topics.payload(item), held.map(|held| &held.payload), "{topic} {offset}");
                    place.cursor += 1;
                    self.given += 1;
                }
                Due::Gap { from, to, .. } => {
                    assert_eq!(from, (!place.astray).then_some(place.cursor));
                    assert_eq!(to + 1, first, "{topic}: nothing is missed that is held");
                    assert!(place.astray || place.cursor <= to, "{topic}: an empty gap");
                    *place = Place { cursor: first, astray: false };
                    self.gaps += 1;
                }
            }
        }
    }

    fn presence(&mut self) {
        while let Some(Presence { peer, topic, present, .. }) = self.topics.next_presence() {
            let n = self.peers.iter().position(|one| *one == peer).unwrap();
            let changed = if present { self.told.insert((n, topic)) } else { self.told.remove(&(n, topic)) };
            assert!(changed, "{n} {topic} {present}: told twice");
            self.sync();
        }
        let all: BTreeSet<(usize, TopicName)> = self
            .clients
            .iter()
            .enumerate()
            .flat_map(|(n, client)| client.places.keys().map(move |topic| (n, *topic)))
            .collect();
        assert!(!self.config.presence || self.told == all, "what was told is what is");
    }

    fn check(&self) {
        for (n, client) in self.clients.iter().enumerate() {
            let places: BTreeMap<TopicName, u64> =
                self.topics.subscriptions(client.member).map(|(name, at)| (*name, at.offset + 1)).collect();
            let model: BTreeMap<TopicName, u64> =
                client.places.iter().map(|(name, place)| (*name, place.cursor)).collect();
            assert_eq!(places, model, "client {n}");
            let filters: BTreeSet<TopicFilter> = self.topics.filters(client.member).copied().collect();
            assert_eq!(filters, client.filters, "client {n}");
            let waits = client.places.iter().any(|(name, place)| place.astray || place.cursor < self.next[name]);
            assert_eq!(self.topics.waits_for(client.member), waits, "client {n}");
            assert_eq!(client.member == NOBODY, client.places.is_empty() && client.filters.is_empty());
        }
        for topic in self.topics.all() {
            assert_eq!(topic.subscribers as usize, self.subscribers(&topic.name));
            assert_eq!(topic.behind as usize, self.behind(&topic.name));
            assert_eq!(topic.newest.offset + 1 - u64::from(topic.held), self.first(&topic.name));
        }
        let held: Vec<(u64, u32)> = self.items.iter().map(|item| (item.payload, item.size)).collect();
        let mut machine = Vec::new();
        let mut at = self.topics.oldest.first;
        while let Some(item) = self.topics.items.at(at) {
            machine.push((item.payload, item.size));
            at = item.of_all.after;
        }
        assert_eq!(machine, held);
        assert_eq!(self.topics.items.len(), held.len());
        assert_eq!(self.topics.bytes, held.iter().map(|(_, size)| u64::from(*size)).sum::<u64>());
        assert_eq!(self.topics.earliest().map(|(at, _)| at), self.items.first().map(|item| item.forget));
        let leaving = usize::try_from(self.leaving()).unwrap();
        assert_eq!(self.topics.subscriptions.len(), self.subscribed() + leaving);
        assert!(self.subscribed() + leaving <= self.limits.subscriptions);
        let filters: usize = self.clients.iter().map(|client| client.filters.len()).sum();
        assert_eq!(self.topics.wildcards.len(), filters);
        assert!(filters <= self.limits.filters && self.topics.members.len() <= self.limits.members);
    }

    fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.up_to(23) {
                0..=8 => self.publish(),
                9..=11 => self.subscribe(),
                12 => self.unsubscribe(),
                13 => self.connect(),
                14 if self.rng.up_to(3) == 0 => self.leave(),
                15 => {
                    self.now = self.now.after(Duration::from_millis(self.rng.up_to(700)));
                    self.topics.tick(self.now);
                    self.expire();
                    self.sync();
                }
                16 => self.presence(),
                _ => {
                    let n = self.pick(self.clients.len());
                    let most = self.pick(4) + 1;
                    if self.clients[n].connected {
                        self.take(n, most);
                    }
                }
            }
            self.check();
        }
        // Everybody takes everything, and goes.
        for n in 0..self.clients.len() {
            self.take(n, usize::MAX);
            assert!(!self.topics.waits_for(self.clients[n].member));
        }
        self.check();
        for client in &mut self.clients {
            self.topics.leave(&mut client.member);
            *client = Client { member: NOBODY, ..Client::default() };
        }
        self.presence();
        self.now = self.now.after(self.config.age);
        self.topics.tick(self.now);
        let left = &self.topics;
        assert_eq!(
            (left.topics.len(), left.items.len(), left.subscriptions.len(), left.wildcards.len(), left.members.len()),
            (0, 0, 0, 0, 0),
            "nothing is left over"
        );
    }
}

fn config(seed: u64) -> TopicsConfig {
    TopicsConfig {
        topics: [100, 100, 4, 2][(seed % 4) as usize],
        subscriptions: [100, 12][(seed / 4 % 2) as usize],
        per_session: [100, 3][(seed / 8 % 2) as usize],
        filters: 9,
        filters_per_session: 3,
        history: [3, 1, 16][(seed % 3) as usize],
        bytes: [1000, 40, 10][(seed / 2 % 3) as usize],
        age: Duration::from_secs(2),
        presence: seed / 16 % 2 == 1,
    }
}

#[test]
fn u4_each_offset_comes_once_in_order_or_in_a_gap() {
    let (mut gaps, mut given, mut forgotten, mut full) = (0, 0, 0, 0);
    for seed in 0..96 {
        let config = config(seed);
        let limits = Limits {
            topics: config.topics,
            items: usize::MAX,
            subscriptions: config.subscriptions,
            filters: config.filters,
            members: 5,
        };
        let mut rig: Rig<Grows> = Rig::new(seed, config, limits);
        rig.run(500);
        gaps += rig.gaps;
        given += rig.given;
        forgotten += rig.forgotten;
        full += rig.full;
    }
    assert!(gaps > 500 && given > 5000 && forgotten > 500 && full > 500, "{gaps} {given} {forgotten} {full}");
}

#[test]
fn u4_fixed_memory_keeps_the_same_promises() {
    for seed in 0..48 {
        let limits = Limits { topics: 4, items: 5, subscriptions: 6, filters: 6, members: 5 };
        let mut rig: Rig<Inline<5, 1, 1, 1, 1, 4, 5, 6>> = Rig::new(seed, config(seed & !3), limits);
        rig.limits.subscriptions = rig.limits.subscriptions.min(rig.config.subscriptions);
        rig.run(400);
        assert!(rig.given > 0 && rig.full > 0);
    }
    // No places at all: everything is refused, and nothing happens.
    let mut none: Topics<u64, Inline<1>> = Topics::new(HubConfig::DEFAULT.topics, 1, 1, EPOCH);
    let mut member = NOBODY;
    let mut keys: Table<u8, Vec<Option<Cell<u8>>>> = Table::new(1, Vec::new());
    let peer = keys.insert(1, 1).unwrap();
    let said = none.subscribe(peer, true, &mut member, &filter("**"), Start::Now, |_| {});
    assert_eq!((said, member), (Err(TopicsFull::Subscriptions), NOBODY));
    assert_eq!(none.publish(Instant::ZERO, &name("a"), 1, 1, |_, _| {}), Sent::default());
}
