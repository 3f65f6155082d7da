//! Breadth first: every situation once, the shortest way to it remembered.
//!
//! ```text
//!  layer n ── every move ──▶ situations ── new? ──▶ layer n + 1
//!                                 └──▶ fair: nothing goes wrong from here: does everything end, and after how long?
//! ```

use super::check::{Broken, broken};
use super::machine::Machines;
use super::moves::Move;
use super::relative::digest;
use super::setup::Setup;
use super::state::{MESSAGES, State};
use super::world::World;
use core::fmt;

/// More moves than these without time passing are a hot loop.
const MOST_AT_ONCE: u32 = 200;

/// In milliseconds: how exactly the time to the end is kept.
const UNIT: u32 = 100;

/// A script that does not end is shown so far.
const MOST_LINES: usize = 40;

/// What an exploration came to.
#[derive(Debug)]
pub struct Report {
    /// The name of the exploration.
    pub name: &'static str,
    /// Nothing is left to visit.
    pub whole: bool,
    /// Moves tried.
    pub transitions: u64,
    /// Situations of the world.
    pub states: usize,
    /// Situations of one session.
    pub sessions: usize,
    /// Steps that a session took.
    pub steps: usize,
    /// Length of the longest of the shortest ways.
    pub depth: usize,
    /// How often each kind of move was tried.
    pub kinds: [u64; Move::KINDS],
    /// The longest time from any situation until everything has ended, in milliseconds.
    pub longest: u32,
    /// The first promise that was broken, and the shortest way to it.
    pub broken: Option<(Broken, Vec<String>)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, transitions, states, sessions, steps, depth, longest, .. } = self;
        let end = if self.whole { "to its end" } else { "cut off" };
        writeln!(
            f,
            "{name}: {transitions} transitions, {states} situations of the world, {sessions} of a session ({steps} \
             steps), {depth} moves deep, {end}; everything ends after {} s at most",
            longest / 1000
        )?;
        if let Some((broken, script)) = &self.broken {
            writeln!(f, "broken: {broken}")?;
            for line in script {
                writeln!(f, "  | {line}")?;
            }
        }
        Ok(())
    }
}

/// Explores up to `most` transitions.
#[must_use]
pub fn explore(setup: &Setup, most: u64) -> Report {
    let mut search = Search {
        setup,
        machines: Machines::default(),
        visited: Table::default(),
        ends: Table::default(),
        ways: Vec::new(),
        path: Vec::new(),
        kinds: [0; Move::KINDS],
        longest: 0,
    };
    let (whole, transitions, depth, found) = search.run(most);
    let broken = found.map(|(broken, at, then)| (broken, search.script(at, &then)));
    Report {
        name: setup.name,
        whole,
        transitions,
        states: search.ways.len(),
        sessions: search.machines.situations(),
        steps: search.machines.taken(),
        depth,
        kinds: search.kinds,
        longest: search.longest,
        broken,
    }
}

struct Search<'a> {
    setup: &'a Setup,
    machines: Machines,
    visited: Table<0>,
    /// Situations in which nothing goes wrong any more, and the time from there until everything has ended.
    ends: Table<0xffff>,
    /// For each situation the one before it, and the move between.
    ways: Vec<(u32, Move)>,
    /// The way to the situation that is looked at; the next one shares most of it.
    path: Vec<(u32, State)>,
    kinds: [u64; Move::KINDS],
    longest: u32,
}

/// What was broken, where, and by which moves from there.
type Found = (Broken, u32, Vec<Move>);

impl Search<'_> {
    fn run(&mut self, most: u64) -> (bool, u64, usize, Option<Found>) {
        let (mut transitions, mut depth) = (0, 0);
        let first = match World::begin(self.setup, &mut self.machines) {
            Ok(world) => world.state,
            Err(broken) => return (false, 0, 0, Some((broken, 0, Vec::new()))),
        };
        self.visited.insert(digest(&first), 0);
        self.ways.push((0, Move::Pass));
        self.path.push((0, first));
        let mut moves = Vec::new();
        let mut at = 0;
        // In the order in which they were found: that is breadth first.
        while (at as usize) < self.ways.len() {
            let state = self.reach(at);
            depth = depth.max(self.path.len() - 1);
            let world = World { setup: self.setup, machines: &mut self.machines, state };
            // A side whose peer has closed dials and posts for ever.
            if !(state.closing.contains(&true) && world.is_settled()) {
                world.moves(&mut moves);
                for what in moves.iter().copied() {
                    if transitions == most {
                        return (false, transitions, depth, None);
                    }
                    transitions += 1;
                    self.kinds[what.kind()] += 1;
                    let mut world = World { setup: self.setup, machines: &mut self.machines, state };
                    if let Err(broken) = world.apply(what) {
                        return (false, transitions, depth, Some((broken, at, vec![what])));
                    }
                    let state = world.state;
                    if self.visited.insert(digest(&state), 0).is_some() {
                        continue;
                    }
                    let number = u32::try_from(self.ways.len()).expect("fewer than 2^32 situations");
                    self.ways.push((at, what));
                    if let Err((broken, fair)) = self.ends(state) {
                        return (false, transitions, depth, Some((broken, number, fair)));
                    }
                }
            }
            at += 1;
        }
        (true, transitions, depth, None)
    }

    /// A situation by its number. Only ways are kept: the situations themselves would take the memory of a large machine.
    fn reach(&mut self, at: u32) -> State {
        let mut rest = Vec::new();
        let mut here = at;
        let shared = loop {
            if let Some(shared) = self.path.iter().rposition(|(number, _)| *number == here) {
                break shared;
            }
            rest.push(here);
            here = self.ways[here as usize].0;
        };
        self.path.truncate(shared + 1);
        let mut state = self.path[shared].1;
        for number in rest.into_iter().rev() {
            let mut world = World { setup: self.setup, machines: &mut self.machines, state };
            world.apply(self.ways[number as usize].1).expect("it was applied before");
            state = world.state;
            self.path.push((number, state));
        }
        state
    }

    /// Nothing goes wrong from here on: everything ends. Otherwise: what is broken, and what happened until then.
    fn ends(&mut self, state: State) -> Result<(), (Broken, Vec<Move>)> {
        let mut state = state.fair();
        let (mut way, mut script, mut moves) = (Vec::new(), Vec::new(), Vec::new());
        let (mut time, mut at_once, mut asked) = (0, 0, [false; MESSAGES]);
        let rest = loop {
            let digest = digest(&state);
            if let Some(rest) = self.ends.get(digest) {
                break u32::from(rest) * UNIT;
            }
            way.push((digest, time));
            let mut world = World { setup: self.setup, machines: &mut self.machines, state };
            if world.is_settled() {
                break 0;
            }
            world.moves(&mut moves);
            let Some(what) = moves.first().copied() else {
                return Err((
                    broken("ends", "nothing will happen any more, and something is not settled".into()),
                    script,
                ));
            };
            if what == Move::Pass {
                time += world.deadline().expect("somebody waits");
                at_once = 0;
                asked = [false; MESSAGES];
            }
            at_once += 1;
            script.push(what);
            if at_once > MOST_AT_ONCE {
                return Err((broken("no hot loop", format!("{MOST_AT_ONCE} moves and no time passes")), script));
            }
            if let Some(message) = world.asks(what)
                && core::mem::replace(&mut asked[message], true)
            {
                return Err((broken("no hot loop", format!("message {message} is posted twice at one time")), script));
            }
            if time > self.setup.bound * 1000 {
                let what = format!("nothing goes wrong for {} s, and something is not settled", self.setup.bound);
                return Err((broken("ends", what), script));
            }
            world.apply(what).map_err(|broken| (broken, script.clone()))?;
            state = world.state;
        };
        let whole = time + rest;
        self.longest = self.longest.max(whole);
        for (digest, at) in way {
            self.ends.insert(digest, u16::try_from((whole - at).div_ceil(UNIT)).expect("a bound below an hour"));
        }
        Ok(())
    }

    /// The shortest way to a situation in words, and what happens from there.
    fn script(&mut self, at: u32, then: &[Move]) -> Vec<String> {
        let mut moves = Vec::new();
        let mut here = at;
        while here != 0 {
            let (before, what) = self.ways[here as usize];
            moves.push(what);
            here = before;
        }
        moves.reverse();
        let way = moves.len();
        moves.extend(then);
        let mut world = World::begin(self.setup, &mut self.machines).expect("it began before");
        let (mut script, mut time) = (Vec::new(), 0);
        for (at, what) in moves.into_iter().enumerate() {
            if at == way && then.len() != 1 {
                world.state = world.state.fair();
                script.push("from here on nothing goes wrong:".into());
            }
            if script.len() > way + MOST_LINES {
                script.push("…".into());
                break;
            }
            script.push(format!("{:>4} s  {}", time / 1000, world.words(what)));
            if what == Move::Pass {
                time += world.deadline().unwrap_or_default();
            }
            let _ = world.apply(what);
        }
        script
    }
}

/// A map from hashes to numbers below `VALUE`, which take the place of as many bits of the hash; open addressing, the hashes
/// are their own.
#[derive(Default)]
struct Table<const VALUE: u128> {
    slots: Vec<u128>,
    len: usize,
}

impl<const VALUE: u128> Table<VALUE> {
    /// The value that was there before; otherwise this one is.
    fn insert(&mut self, digest: u128, value: u16) -> Option<u16> {
        if self.len * 4 >= self.slots.len() * 3 {
            let old = core::mem::take(&mut self.slots);
            self.slots = vec![0; (old.len() * 2).max(1 << 10)];
            for slot in old.into_iter().filter(|slot| *slot != 0) {
                let at = self.find(slot);
                self.slots[at] = slot;
            }
        }
        let at = self.find(digest);
        if self.slots[at] != 0 {
            return Some((self.slots[at] & VALUE) as u16);
        }
        self.slots[at] = (digest & !VALUE) | u128::from(value);
        self.len += 1;
        None
    }

    fn get(&self, digest: u128) -> Option<u16> {
        let slot = *self.slots.get(self.find(digest))?;
        (slot != 0).then_some((slot & VALUE) as u16)
    }

    /// The place of a hash, or the empty one where it belongs.
    fn find(&self, digest: u128) -> usize {
        if self.slots.is_empty() {
            return 0;
        }
        let mask = self.slots.len() - 1;
        let mut at = (digest >> 64) as usize & mask;
        while self.slots[at] != 0 && (self.slots[at] ^ digest) & !VALUE != 0 {
            at = (at + 1) & mask;
        }
        at
    }
}
