//! The ledger as it is shown at the end.
//!
//! Decided here: its lines, its fields, and the sentence that says it all.

use super::Args;
use super::ledger::Judgement;
use super::note::{Note, seconds};
use super::show::{Paint, Style};
use super::world::Ended;
use core::time::Duration;
use serde_json::{Value, json};

/// So many offending batches are listed for people; programs get all.
const LISTED: usize = 20;

/// Everything there is to say.
#[derive(Debug)]
pub(crate) struct Summary<'a> {
    /// What was asked for.
    pub(crate) args: &'a Args,
    /// About the batches.
    pub(crate) judgement: Judgement,
    /// About the nodes.
    pub(crate) ended: Ended,
    /// Connections that came about.
    pub(crate) connections: u64,
    /// The longest time without one.
    pub(crate) outage: Duration,
    /// Somebody asked to stop.
    pub(crate) interrupted: bool,
}

impl Summary<'_> {
    /// Nothing was lost and nothing done twice, as far as is known.
    pub(crate) fn kept(&self) -> bool {
        self.judgement.offences.is_empty() && self.ended.in_time
    }

    /// The JSON line.
    pub(crate) fn note(&self) -> Note {
        let Judgement {
            accepted, by_websocket, by_http, unfinished, lost, twice, maybe_dup, returned, p50, p99, ..
        } = self.judgement;
        let (ml, api) = (self.ended.ml_node.stats, self.ended.api_node.stats);
        let offences = self.judgement.offences.iter();
        let offences: Vec<Value> = offences.map(|(height, why)| json!({"block_height": height, "why": why})).collect();
        Note::new("ledger")
            .field("kept", self.kept())
            .field("interrupted", self.interrupted)
            .field("adapter", self.args.adapter().name())
            .field("seed", self.args.seed)
            .field("time_scale", self.args.time_scale.factor())
            .field("accepted", accepted)
            .field("delivered_websocket", by_websocket)
            .field("delivered_http", by_http)
            .field("duplicates_dropped", api.duplicates)
            .field("lost", lost)
            .field("delivered_twice", twice)
            .field("maybe_dup", maybe_dup)
            .field("unfinished", unfinished)
            .field("handed_back", returned)
            .field("frames", ml.frames)
            .field("requests", ml.posts)
            .field("hedges", ml.hedges)
            .field("connections", self.connections)
            .field("connection_attempts", api.attempts)
            .field("longest_outage_seconds", seconds(self.outage))
            .field("p50_seconds", seconds(p50))
            .field("p99_seconds", seconds(p99))
            .field("violations", ml.violations + api.violations)
            .field("malformed", ml.malformed + api.malformed)
            .field("ids_reused", ml.reused + api.reused)
            .field("closed_in_time", self.ended.in_time)
            .field("offending", offences)
    }

    /// The lines.
    pub(crate) fn lines(&self, style: Style) -> Vec<String> {
        let Judgement {
            accepted, by_websocket, by_http, unfinished, lost, twice, maybe_dup, returned, p50, p99, ..
        } = self.judgement;
        let (ml, api) = (self.ended.ml_node.stats, self.ended.api_node.stats);
        let row =
            |name: &str, count: String, more: &str| format!("  {name:<26}{count:>7}  {more}").trim_end().to_owned();
        let number = |name: &str, count: u64, more: &str| row(name, count.to_string(), more);
        let size = |name: &str, count: usize, more: &str| row(name, count.to_string(), more);
        let time = |name: &str, time: Duration, more: &str| row(name, format!("{:.2} s", time.as_secs_f64()), more);
        let bad = |name: &str, count: usize| {
            let paint = if count == 0 { Paint::Good } else { Paint::Bad };
            style.paint(paint, size(name, count, ""))
        };
        let Args { seed, time_scale, .. } = self.args;
        let adapter = self.args.adapter();
        let mut lines = vec![
            String::new(),
            format!("  {}", style.paint(Paint::Strong, "Ledger")),
            style.paint(Paint::Dim, format!("  {}, seed {seed}, timers {time_scale} of Gonka's", adapter.name())),
            String::new(),
            size("accepted", accepted, ""),
            size("delivered by WebSocket", by_websocket, ""),
            size("delivered by HTTP", by_http, ""),
            number("duplicates dropped", api.duplicates, "copies the application never saw"),
            bad("lost", lost),
            bad("delivered twice", twice),
        ];
        if unfinished > 0 {
            lines.push(size("unfinished", unfinished, ""));
        }
        if maybe_dup > 0 {
            lines.push(size("marked as perhaps seen", maybe_dup, ""));
        }
        lines.extend([
            String::new(),
            number(
                "attempts to deliver",
                ml.frames + ml.posts,
                &format!("{} frames, {} requests", ml.frames, ml.posts),
            ),
            size("handed back once", returned, "by the application, which had them again"),
            number("connections", self.connections, &format!("in {} attempts", api.attempts)),
            time("longest without WebSocket", self.outage, ""),
            time("time to completion", p50, &format!("median; 99 % within {:.2} s", p99.as_secs_f64())),
            String::new(),
            self.sentence(style),
        ]);
        for (height, why) in self.judgement.offences.iter().take(LISTED) {
            lines.push(format!("    block_height {height}: {why}"));
        }
        if self.judgement.offences.len() > LISTED {
            lines.push(format!("    and {} more", self.judgement.offences.len() - LISTED));
        }
        lines.push(String::new());
        lines
    }

    fn sentence(&self, style: Style) -> String {
        let Judgement { accepted, unfinished, .. } = self.judgement;
        let offences = self.judgement.offences.len();
        let (paint, words) = if offences > 0 {
            (Paint::Bad, format!("{offences} of {accepted} batches did not come to their one right end:"))
        } else if !self.ended.in_time {
            (Paint::Bad, "Every batch is accounted for, but a node did not close in time.".into())
        } else if self.interrupted && unfinished > 0 {
            let words =
                format!("Stopped early: {unfinished} of {accepted} batches were still under way, none was done twice.");
            (Paint::Strong, words)
        } else {
            let words = format!("All {accepted} accepted batches arrived, and each was processed exactly once.");
            (Paint::Good, words)
        };
        format!("  {}", style.paint(paint, words))
    }
}
