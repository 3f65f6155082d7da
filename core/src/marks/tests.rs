use super::*;
use crate::rng::SplitMix64;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// Whoever has completed a whole window takes another, though its sender has not yet said that it knows: with no
/// credit, and nothing to say, that one would be silent until the next ping.
#[test]
fn s10_what_is_completed_takes_no_credit() {
    let now = Instant::ZERO;
    let mut marks = Marks::new(true);
    marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
    for n in 1..=WINDOW {
        let seq = Seq::from_number(n);
        assert!(marks.arrived(now, seq));
        assert_eq!(marks.report(64).limit(), Seq::from_number(64), "what is not completed does");
    }
    for n in 1..=WINDOW {
        marks.completed(now, Seq::from_number(n), n == 5);
        assert_eq!(marks.report(64).limit(), Seq::from_number(64 + n));
    }
    // The next one says so itself.
    marks.advance(Instant::ZERO, Seq::from_number(65));
    assert_eq!(marks.look(Seq::from_number(65 + 63)), Came::Fresh);
}

/// There was no room for it, and then it came too soon: when its time comes, there is room.
#[test]
fn s16_what_is_kept_is_not_asked_for_as_something_without_room() {
    let now = Instant::ZERO;
    let mut marks = Marks::new(false);
    marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
    marks.refused(now, Seq::FIRST, true);
    marks.keep(now, Seq::FIRST);
    assert_eq!(marks.take_nack(), None);
    marks.given_back(now, Seq::FIRST);
    assert_eq!(marks.take_nack(), Some((Seq::FIRST, false)));
}

/// A sender's messages one by one, as a receiver without a window would keep them.
#[derive(Default)]
struct Model {
    order: bool,
    una: u64,
    first: u64,
    /// Every number that is here: completed, rejected.
    here: BTreeMap<u64, (bool, bool)>,
    /// At the application, or completed by it.
    handed: BTreeSet<u64>,
    /// Given back, and not here again.
    back: Vec<u64>,
    missed: u64,
}

impl Model {
    fn hand_over(&mut self, n: u64) {
        assert!(!self.handed.contains(&n), "{n} is handed over twice");
        if self.order && !self.back.contains(&n) {
            let recent = self.first.max(n.saturating_sub(200));
            let before = (recent..n).filter(|n| !self.handed.contains(n) && !self.back.contains(n));
            assert!(before.clone().all(|n| n < self.una && !self.here.contains_key(&n)), "{n} before its turn");
        }
        self.back.retain(|back| *back != n);
        self.handed.insert(n);
    }

    /// What never came, or was given back and did not come again.
    fn gone(&self) -> u64 {
        self.una - self.first - self.handed.range(..self.una).count() as u64
    }

    fn look(&self, n: u64) -> Came {
        match self.here.get(&n) {
            _ if n < self.una => Came::Done { rejected: false },
            _ if n >= self.una + WINDOW || n > Seq::LAST.get() => Came::Beyond,
            None => Came::Fresh,
            Some((false, _)) => Came::Copy,
            Some((true, rejected)) => Came::Done { rejected: *rejected },
        }
    }

    fn report(&self) -> Report {
        let map = |is: &dyn Fn(&(bool, bool)) -> bool| {
            let bits = self.here.range(self.una..).filter(|(_, state)| is(state)).map(|(n, _)| 1 << (n - self.una));
            bits.fold(0, |all: u64, bit: u64| all | bit)
        };
        let (arrived, done, rejected) = (map(&|_| true), map(&|state| state.0), map(&|state| state.1));
        Report { base: Seq::from_number(self.una), arrived, done, rejected, win: 0 }
    }
}

/// Any script against the model: every number is handed over exactly once, or is in a gap, and the report says what is so.
fn script(seed: u64, first: u64, order: bool) {
    let mut rng = SplitMix64::new(seed);
    let mut marks = Marks::new(order);
    let mut model = Model { order, una: first, first, ..Model::default() };
    let mut now = Instant::ZERO;
    marks.begin(Origin::new(7, 1), Seq::from_number(first), Seq::from_number(first));
    for step in 0..400 {
        now = now.after(Duration::from_millis(rng.up_to(9)));
        let far = if rng.up_to(3) == 0 { 70 } else { 8 };
        let n = model.una + rng.up_to(far);
        let seq = Seq::from_number(n);
        match rng.up_to(9) {
            0..=4 => {
                let came = marks.look(seq);
                assert_eq!(came, model.look(n), "seed {seed}, step {step}: {n}");
                if came == Came::Fresh {
                    model.here.insert(n, (false, false));
                    let again = model.back.contains(&n);
                    if marks.arrived(now, seq) {
                        model.hand_over(n);
                    } else {
                        assert!(order && !again, "seed {seed}: only what is ahead waits");
                    }
                    assert_eq!(marks.look(seq), Came::Copy);
                }
            }
            5 | 6 => {
                let open: Vec<u64> = model.handed.iter().copied().filter(|n| model.look(*n) == Came::Copy).collect();
                if let Some(n) = open.get(rng.up_to(open.len() as u64) as usize).copied() {
                    let seq = Seq::from_number(n);
                    if rng.up_to(4) == 0 {
                        marks.given_back(now, seq);
                        model.here.remove(&n);
                        model.handed.remove(&n);
                        model.back.push(n);
                        assert_eq!(marks.clone().take_nack().map(|(seq, _)| seq.get()), Some(n), "seed {seed}");
                        let _ = marks.take_nack();
                    } else {
                        let rejected = rng.up_to(3) == 0;
                        marks.completed(now, seq, rejected);
                        model.here.insert(n, (true, rejected));
                    }
                }
            }
            7 if rng.up_to(3) == 0 => {
                let far = if rng.up_to(20) == 0 { 1000 } else { 20 };
                let una = model.una + rng.up_to(far);
                model.una = una.min(Seq::LAST.get() + 1).max(model.una);
                marks.advance(Instant::ZERO, Seq::from_number(model.una));
            }
            7 => {
                // The sender passes what is completed.
                while model.here.get(&model.una).is_some_and(|(done, _)| *done) {
                    model.una += 1;
                }
                marks.advance(Instant::ZERO, Seq::from_number(model.una));
            }
            8 => marks.advance(Instant::ZERO, Seq::from_number(rng.up_to(model.una))),
            _ => marks.tick(now),
        }
        while let Some(step) = marks.step() {
            match step {
                Step::Turn(seq) => model.hand_over(seq.get()),
                Step::Gap { from, to, count } => {
                    let between = (from.get()..=to.get()).filter(|n| !model.handed.contains(n)).count() as u64;
                    assert!(from <= to && count <= between && to.get() < model.una, "seed {seed}: {step:?}");
                    model.missed += count;
                }
            }
        }
        assert_eq!(model.missed, model.gone(), "seed {seed}, step {step}: R5");
        let room = rng.up_to(70);
        let (told, want) = (marks.report(room as usize), model.report());
        assert_eq!(Report { win: 0, ..told }, want, "seed {seed}, step {step}");
        let missing = (told.rcv().get() + 1..=told.limit().get()).filter(|n| !model.here.contains_key(n)).count();
        // A sender that keeps to the credit has nothing here above it.
        assert!(missing as u64 <= room || told.top() > told.limit(), "S10: seed {seed}: {missing} for {room}");
        let shown = told.limit().get().max(told.top().get()).saturating_sub(told.cum().get());
        assert!(shown <= WINDOW, "seed {seed}: {told:?}");
        if marks.owes() && marks.is_due() {
            marks.told();
        }
    }
}

#[test]
fn s4_r5_every_number_is_handed_over_once_or_told_missing() {
    for seed in 0..100 {
        script(seed, 1, seed % 2 == 0);
        script(seed, Seq::LAST.get() - 200 - seed % 64, seed % 2 == 0);
    }
}

#[test]
fn s10_the_window_ends_at_its_edge() {
    for order in [true, false] {
        let mut marks = Marks::new(order);
        marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
        let (last, beyond) = (Seq::from_number(WINDOW), Seq::from_number(WINDOW + 1));
        assert_eq!((marks.look(last), marks.look(beyond)), (Came::Fresh, Came::Beyond));
        assert_eq!(marks.arrived(Instant::ZERO, last), !order);
        assert!(!marks.arrived(Instant::ZERO, beyond));
        assert_eq!(marks.report(64), Report { base: Seq::FIRST, arrived: 1 << 63, done: 0, rejected: 0, win: 64 });
        assert_eq!(marks.report(64).top(), last);
        // The whole window at once, and far beyond it.
        marks.advance(Instant::ZERO, beyond);
        let gap = Step::Gap { from: Seq::FIRST, to: Seq::from_number(WINDOW - 1), count: WINDOW - 1 };
        assert_eq!(marks.step(), Some(gap));
        assert_eq!(marks.step(), order.then_some(Step::Turn(last)));
        assert_eq!(marks.step(), None);
        marks.advance(Instant::ZERO, Seq::from_number(u64::MAX));
        assert!(matches!(marks.step(), Some(Step::Gap { from, .. }) if from == beyond));
        assert_eq!(marks.step(), None);
        let report = marks.report(usize::MAX);
        assert_eq!((report.arrived, report.base.get()), (0, Seq::LAST.get() + 1));
        let _ = (report.cum(), report.rcv(), report.limit(), report.top(), marks.look(Seq::LAST));
    }
}

/// A peer that says something of number 0, which nobody has.
#[test]
fn s1_nothing_begins_before_the_first() {
    let mut marks = Marks::new(true);
    marks.begin(Origin::new(7, 1), Seq::from_number(0), Seq::from_number(0));
    assert_eq!(marks.look(Seq::from_number(0)), Came::Done { rejected: false });
    assert!(marks.arrived(Instant::ZERO, Seq::FIRST));
    assert_eq!(marks.report(64).rcv(), Seq::FIRST);
}

/// A sender whose lowest has jumped sends what lies a window behind it, and nobody has polled between.
#[test]
fn s9_behind_a_gap_there_is_room_at_once() {
    let mut marks = Marks::new(true);
    marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
    marks.advance(Instant::ZERO, Seq::from_number(101));
    for n in [101, 164] {
        assert_eq!(marks.look(Seq::from_number(n)), Came::Fresh);
    }
    assert!(!marks.arrived(Instant::ZERO, Seq::from_number(101)), "the gap is told first");
    assert!(matches!(marks.step(), Some(Step::Gap { count: 100, .. })));
    assert_eq!(marks.step(), Some(Step::Turn(Seq::from_number(101))));
}

/// What the application gave back, and its sender gave up, is missing like what never came.
#[test]
fn r5_what_was_given_back_and_given_up_is_told() {
    for order in [true, false] {
        let mut marks = Marks::new(order);
        marks.begin(Origin::new(7, 1), Seq::FIRST, Seq::FIRST);
        for n in 1..=3 {
            assert!(marks.arrived(Instant::ZERO, Seq::from_number(n)));
        }
        marks.given_back(Instant::ZERO, Seq::from_number(2));
        marks.advance(Instant::ZERO, Seq::from_number(4));
        let two = Seq::from_number(2);
        assert_eq!(marks.step(), Some(Step::Gap { from: two, to: two, count: 1 }));
        assert_eq!(marks.step(), None);
    }
}
