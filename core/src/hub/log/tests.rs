use super::*;
use crate::SplitMix64;
use std::collections::{BTreeSet, VecDeque};
use std::vec;
use std::vec::Vec;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Instant {
    Instant::from_micros(seconds * 1_000_000)
}

fn log(config: LogConfig, places: usize) -> Log<u64, Vec<Option<Entry<u64>>>> {
    Log::new(config, vec![None; places])
}

#[test]
fn u5_the_log_holds_what_a_deque_with_the_same_limits_holds() {
    struct Held {
        number: u64,
        size: u64,
        key: Option<u64>,
        until: Instant,
    }
    let mut rng = SplitMix64::new(5);
    for round in 0..60 {
        let config = LogConfig {
            messages: rng.up_to(12) as usize,
            bytes: rng.up_to(400) as usize,
            age: Duration::from_secs(rng.up_to(20)),
        };
        let places = if round < 5 { 0 } else { rng.up_to(12) as usize };
        let mut log = log(config, places);
        // A vector grows to the limit.
        let most = config.messages;
        let mut model: VecDeque<Held> = VecDeque::new();
        let mut now = at(0);
        for number in 1..400 {
            now = now.after(Duration::from_millis(rng.up_to(1500)));
            model.retain(|held| held.until > now);
            if rng.up_to(4) == 0 {
                log.tick(now);
                assert!(log.earliest().is_none_or(|(due, _)| due > now));
            }
            let (size, key) = (rng.up_to(200), (rng.up_to(1) == 0).then(|| rng.up_to(3)));
            let superseded =
                key.and_then(|key| model.iter().rev().find(|held| held.key == Some(key)).map(|held| held.number));
            assert_eq!(log.publish(now, number * 10, size as u32, key), Published { number, superseded });
            model.push_back(Held { number, size, key, until: now.after(config.age) });
            while model.len() > most
                || (model.len() > 1 && model.iter().map(|held| held.size).sum::<u64>() > config.bytes as u64)
            {
                model.pop_front();
            }
            assert_eq!(log.next(), number + 1);
            assert_eq!(log.first(), model.front().map_or(number + 1, |held| held.number));
            for asked in number.saturating_sub(15)..number + 3 {
                let held = model.iter().find(|held| held.number == asked);
                assert_eq!(log.get(asked).copied(), held.map(|held| held.number * 10));
                assert_eq!(log.size(asked).map(u64::from), held.map(|held| held.size));
            }
            assert_eq!(log.earliest(), model.front().map(|held| (held.until, Wake::Memory)));
        }
    }
}

#[test]
fn u6_the_oldest_goes_by_count_by_bytes_and_by_age() {
    let mut by_count = log(LogConfig::DEFAULT, 1000);
    for n in 0..300 {
        by_count.publish(at(0), n, 1, None);
    }
    assert_eq!((by_count.first(), by_count.next()), (45, 301), "256, whatever the storage");
    by_count.tick(at(30));
    assert_eq!((by_count.first(), by_count.get(300), by_count.earliest()), (301, None, None));

    let mut by_bytes = log(LogConfig { bytes: 100, age: 9 * SECOND, ..LogConfig::DEFAULT }, 8);
    for size in [40, 40, 40] {
        by_bytes.publish(at(0), 0, size, None);
    }
    assert_eq!(by_bytes.first(), 2);
    by_bytes.publish(at(1), 0, 5000, None);
    assert_eq!((by_bytes.first(), by_bytes.size(4)), (4, Some(5000)), "one larger than all is held alone");
    by_bytes.publish(at(2), 0, 1, None);
    assert_eq!((by_bytes.first(), by_bytes.earliest()), (5, Some((at(11), Wake::Memory))));
}

#[test]
fn u6_the_newest_with_the_same_key_is_superseded_even_if_it_just_went_for_room() {
    let mut log = log(LogConfig::DEFAULT, 2);
    assert_eq!(log.publish(at(0), 0, 1, Some(7)).superseded, None);
    assert_eq!(log.publish(at(0), 0, 1, None).superseded, None);
    assert_eq!(log.publish(at(0), 0, 1, Some(7)).superseded, Some(1), "making room is no reason to tell of a loss");
    assert_eq!(log.publish(at(0), 0, 1, Some(7)).superseded, Some(3));
    assert_eq!(log.publish(at(30), 0, 1, Some(7)).superseded, None, "too old");
}

/// A set of numbers: what `Pending` must be equal to.
#[derive(Default)]
struct Model(BTreeSet<u64>);

impl Model {
    fn lose(&mut self, first: u64) -> u32 {
        let kept = self.0.split_off(&first);
        let lost = self.0.len() as u32;
        self.0 = kept;
        lost
    }
}

#[test]
fn u5_marks_are_a_set_of_numbers_however_late_they_are_touched() {
    let mut lost_at_last = 0;
    for seed in 0..300 {
        let mut rng = SplitMix64::new(seed);
        // Also next to a multiple of the span, and from numbers where nothing may wrap.
        let mut next = [1, 250, 256, 257, 70_000, u64::MAX - 3_000_000][rng.up_to(5) as usize] + rng.up_to(3);
        let mut pending = Pending::new(next);
        let mut model = Model::default();
        let (mut first, width) = (next, 1 + rng.up_to(255));
        for _ in 0..500 {
            match rng.up_to(9) {
                0..=4 => {
                    let number = next;
                    next += 1;
                    first = first.max(next.saturating_sub(width));
                    model.0.insert(number);
                    assert_eq!(pending.add(number, first), model.lose(first), "seed {seed}");
                }
                // Published, and not for this connection; now and then very many.
                5 => {
                    let far = [3, 300, 10_000][rng.up_to(2) as usize];
                    next += rng.up_to(far);
                    first = first.max(next.saturating_sub(width));
                }
                6 => {
                    let number = next.saturating_sub(rng.up_to(600));
                    assert_eq!(pending.remove(number), model.0.remove(&number));
                }
                7 => {
                    let lost = model.lose(first);
                    assert_eq!(pending.pop(first), (model.0.pop_first(), lost), "seed {seed}");
                }
                8 => {
                    let lost = pending.lose(first);
                    lost_at_last += lost;
                    assert_eq!(lost, model.lose(first));
                }
                _ if rng.up_to(20) == 0 => assert_eq!(pending.clear() as usize, core::mem::take(&mut model.0).len()),
                // An older one once more, as for a connection that resumes.
                _ => {
                    let number = first + rng.up_to(next - first);
                    if number < next {
                        model.0.insert(number);
                        assert_eq!(pending.add(number, first), model.lose(first));
                    }
                }
            }
            assert_eq!(pending.len() as usize, model.0.len());
            assert_eq!(pending.is_empty(), model.0.is_empty());
        }
        let lost = model.lose(first);
        assert_eq!(pending.lose(first), lost);
        while let (Some(number), lost) = pending.pop(first) {
            assert_eq!((Some(number), lost), (model.0.pop_first(), 0));
        }
        assert!(model.0.is_empty());
    }
    assert!(lost_at_last > 100, "late connections did lose");
}

#[test]
fn u5_a_connection_untouched_for_ten_thousand_messages_mistakes_none() {
    for late in [1, 255, 256, 257, 10_000] {
        let mut pending = Pending::new(1);
        for number in 1..=256 {
            assert_eq!(pending.add(number, 1), 0);
        }
        let number = 256 + late;
        let mut untold = pending.clone();
        // A log that holds 256: 1 to `late` are gone, and all 256 at most.
        assert_eq!(u64::from(pending.add(number, number - 255)), late.min(256));
        // The same if the log's first is not told.
        assert_eq!(u64::from(untold.add(number, 0)), late.min(256));
        assert_eq!(pending, untold);
        for expected in (number - 255).min(257)..=256 {
            assert_eq!(pending.pop(number - 255).0, (expected > late).then_some(expected).or(Some(number)));
        }
    }
    let mut pending = Pending::new(1000);
    assert_eq!(pending.add(3, 0), 1, "so old that it cannot be marked");
    assert_eq!(pending.add(1000, 1001), 1, "already forgotten");
    assert!(!pending.remove(1000 + SPAN) && !pending.remove(1000) && pending.is_empty());
    assert_eq!(core::mem::size_of::<Pending>(), 40);
}

#[test]
fn u6_every_number_added_is_popped_conflated_or_lost_and_in_order() {
    let mut rng = SplitMix64::new(6);
    for _ in 0..30 {
        let mut log =
            log(LogConfig { bytes: 4000, age: 5 * SECOND, ..LogConfig::DEFAULT }, 1 + rng.up_to(299) as usize);
        // How many of a thousand chances to write each one takes.
        let speeds = [0, 30, 300, 1000];
        let mut connections = speeds.map(|_| (Pending::new(log.next()), 0_u64, [0_u64; 4]));
        let mut now = at(0);
        for _ in 0..2000 {
            now = now.after(Duration::from_millis(rng.up_to(40)));
            let key = (rng.up_to(3) == 0).then(|| rng.up_to(5));
            let published = log.publish(now, log.next(), rng.up_to(60) as u32, key);
            for ((pending, last, [added, popped, conflated, lost]), speed) in connections.iter_mut().zip(speeds) {
                if !published.number.is_multiple_of(3) {
                    if published.superseded.is_some_and(|old| pending.remove(old)) {
                        *conflated += 1;
                    }
                    *added += 1;
                    *lost += u64::from(pending.add(published.number, log.first()));
                }
                if rng.up_to(999) < speed {
                    let (number, gone) = pending.pop(log.first());
                    *lost += u64::from(gone);
                    if let Some(number) = number {
                        assert_eq!(log.get(number), Some(&number), "what is popped is held");
                        assert!(number > *last);
                        (*last, *popped) = (number, *popped + 1);
                    }
                }
                assert_eq!(*added, *popped + *conflated + *lost + u64::from(pending.len()));
            }
        }
        let [slow, .., fast] = &connections;
        assert_eq!((slow.2[1], fast.2[3]), (0, 0), "the slow one got nothing, and the fast one lost nothing by it");
        assert!(slow.2[3] > 500);
    }
}
