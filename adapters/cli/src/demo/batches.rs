//! The batches that are sent, and what the receiving application will do with each.
//!
//! Decided here: both, from the seed alone. Batches are recorded ones, grown to a hundred nonces, with a height of their
//! own. How the application behaves is drawn in groups, so that every run has batches that take too long and batches
//! that are handed back, wherever they fall.

use bowline::SplitMix64;
use bowline_smol::Kind;
use core::time::Duration;
use serde_json::{Value, json};

/// The recorded wire of Gonka's nodes.
const RECORDED: &str = include_str!("../../../../tests/vectors/gonka.jsonl");

/// The height of the first batch.
const FIRST: u64 = 1_000_000;

/// Nonces in a batch.
const NONCES: u64 = 100;

/// One batch in 25 takes more than the 3 s after which an original sends a copy by HTTP; the sender here waits (T7). It takes
/// less than the 4 s in which a request is answered: after those the answer is a 503, whose `Retry-After` counts in whole
/// seconds and would not scale.
const SLOW: u64 = 25;

/// One batch in so many is handed back once, if it came by WebSocket: by HTTP that would be a 503, too.
const BACK: u64 = 15;

/// One part in so many, the last, is neither: when nothing else is acknowledged any more, two of them in a row would
/// look like a WebSocket that does not answer.
const LAST: u64 = 20;

/// One batch: what is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    /// Its name in the ledger.
    pub(crate) height: u64,
    /// Generated or validated.
    pub(crate) kind: Kind,
    /// What lies on the wire.
    pub(crate) json: String,
}

/// What the application does with a batch, in Gonka's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Work {
    /// How long it takes.
    pub(crate) takes: Duration,
    /// It is handed back when it comes first, and by WebSocket.
    pub(crate) back: bool,
}

/// All batches of a run.
#[derive(Debug)]
pub(crate) struct Batches {
    seed: u64,
    total: u64,
    generated: Value,
    validated: Value,
}

impl Batches {
    /// So many batches of this seed.
    pub(crate) fn new(seed: u64, total: u64) -> Self {
        let [generated, validated] = ["generated", "validated"].map(recorded);
        Self { seed, total, generated, validated }
    }

    /// The batch of this number, counted from 0.
    pub(crate) fn batch(&self, number: u64) -> Batch {
        let height = FIRST + number;
        let mut rng = self.chance(number, 1);
        let validated = number % 3 == 2;
        let mut batch = if validated { &self.validated } else { &self.generated }.clone();
        let dist = grown(&batch["dist"], &mut rng);
        batch["block_height"] = height.into();
        batch["nonces"] = (0..NONCES).map(|n| 10 * (number * NONCES + n) + 3).collect();
        if validated {
            batch["received_dist"] = dist.clone();
        }
        batch["dist"] = dist;
        let kind = if validated { Kind::Validated } else { Kind::Generated };
        Batch { height, kind, json: batch.to_string() }
    }

    /// What the application does with the batch of this height.
    pub(crate) fn work(&self, height: u64) -> Work {
        let number = height.saturating_sub(FIRST);
        let mut rng = self.chance(number, 2);
        let last = number + self.total / LAST >= self.total;
        let chosen = |every: u64, salt| !last && number % every == self.chance(number / every, salt).up_to(every - 1);
        let slow = chosen(SLOW, 3);
        let takes = if slow { 3_300 + rng.up_to(300) } else { 10 + rng.up_to(50) };
        Work { takes: Duration::from_millis(takes), back: !slow && chosen(BACK, 4) }
    }

    fn chance(&self, number: u64, salt: u64) -> SplitMix64 {
        SplitMix64::for_identity(self.seed, number << 8 | salt)
    }
}

/// The height that a batch names.
pub(crate) fn height(json: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(json).ok()?["block_height"].as_u64()
}

/// The number of the batch of this height.
pub(crate) const fn number(height: u64) -> Option<u64> {
    height.checked_sub(FIRST)
}

fn recorded(kind: &str) -> Value {
    let rows = RECORDED.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut of_kind = rows.filter(|row| row["kind"] == kind && row["json"]["batch"].is_object());
    of_kind.next().map(|mut row| row["json"]["batch"].take()).unwrap_or_else(|| json!({}))
}

/// A hundred distances like the recorded ones.
fn grown(recorded: &Value, rng: &mut SplitMix64) -> Value {
    let seeds: Vec<f64> = recorded.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let near = |n: usize| {
        let like = seeds.get(n % seeds.len().max(1)).copied().unwrap_or(1.0);
        #[expect(clippy::cast_precision_loss, reason = "a draw below 2³², exact in 53 bits")]
        let factor = 0.5 + rng.up_to(u64::from(u32::MAX)) as f64 / f64::from(u32::MAX);
        like * factor
    };
    (0..NONCES as usize).map(near).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::wire::gonka;
    use std::collections::BTreeSet;

    #[test]
    fn batches_are_whole_distinct_and_the_same_for_a_seed() {
        let batches = Batches::new(7, 300);
        let mut heights = BTreeSet::new();
        for number in 0..300 {
            let batch = batches.batch(number);
            assert_eq!(gonka::decode_body(batch.kind, batch.json.as_bytes()), Ok(batch.json.as_str()));
            assert_eq!(height(batch.json.as_bytes()), Some(batch.height));
            assert!(heights.insert(batch.height));
            assert_eq!(batch, Batches::new(7, 300).batch(number));
            let value: Value = serde_json::from_str(&batch.json).unwrap();
            assert_eq!(value["nonces"].as_array().map(Vec::len), Some(100));
            assert_eq!(value["dist"].as_array().map(Vec::len), Some(100));
            assert_eq!(value["public_key"].as_str().map(str::len), Some(66), "the recorded one");
        }
    }

    #[test]
    fn every_seed_has_slow_batches_and_some_that_come_back() {
        for seed in 0..50 {
            let batches = Batches::new(seed, 240);
            let works: Vec<Work> = (0..240).map(|n| batches.work(batches.batch(n).height)).collect();
            let slow = works.iter().filter(|work| work.takes > Duration::from_secs(3)).count();
            let back = works.iter().filter(|work| work.back).count();
            assert!((8..=10).contains(&slow) && (10..=16).contains(&back), "{seed}: {slow} slow, {back} back");
        }
    }
}
