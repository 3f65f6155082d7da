//! The ledger as it is shown at the end.
//!
//! Decided here: its lines, its fields, and the sentence that says it all.

use super::super::Args;
use super::super::note::{Note, seconds};
use super::super::show::{Paint, Style};
use super::ledger::Judgement;
use super::world::Sums;
use core::time::Duration;
use serde_json::{Value, json};

/// So many offending predictions are listed for people; programs get all.
const LISTED: usize = 20;

/// Everything there is to say.
pub(super) struct Summary<'a> {
    /// What was asked for.
    pub(super) args: &'a Args,
    /// About the predictions.
    pub(super) judgement: Judgement,
    /// What the hubs have counted.
    pub(super) sums: Sums,
    /// How many there were.
    pub(super) hubs: u32,
    /// Updates published.
    pub(super) updates: u64,
    /// The busiest 100 ms of reconnection.
    pub(super) peak: usize,
    /// Connections that were authenticated.
    pub(super) connections: usize,
    /// Everything ended in time.
    pub(super) in_time: bool,
    /// Somebody asked to stop.
    pub(super) interrupted: bool,
    /// How long it ran.
    pub(super) ran: Duration,
}

impl Summary<'_> {
    /// Nothing was lost and nothing doubled, as far as is known.
    pub(super) fn kept(&self) -> bool {
        self.judgement.offences.is_empty() && self.judgement.updates_twice == 0 && self.in_time
    }

    /// The JSON line.
    pub(super) fn note(&self) -> Note {
        let Judgement { accepted, by_websocket, by_http, rejected, unfinished, handed, lost, doubled, again, .. } =
            self.judgement;
        let Judgement { p50, p99, updates, updates_twice, updates_p50, .. } = self.judgement;
        let Sums { duplicates, refused, lost: updates_lost, abandoned } = self.sums;
        let offences = self.judgement.offences.iter();
        let offences: Vec<Value> = offences.map(|(id, why)| json!({"prediction_id": id, "why": why})).collect();
        Note::new("ledger")
            .field("scene", "miners")
            .field("kept", self.kept())
            .field("interrupted", self.interrupted)
            .field("miners", self.args.miners())
            .field("seed", self.args.seed)
            .field("time_scale", self.args.time_scale.factor())
            .field("ran_seconds", seconds(self.ran))
            .field("accepted", accepted)
            .field("confirmed_websocket", by_websocket)
            .field("confirmed_http", by_http)
            .field("rejected", rejected)
            .field("unfinished", unfinished)
            .field("handed_out", handed)
            .field("lost", lost)
            .field("doubled", doubled)
            .field("maybe", again)
            .field("duplicates_dropped", duplicates)
            .field("hubs", self.hubs)
            .field("connections", self.connections)
            .field("connections_refused", refused)
            .field("reconnections_busiest_100_ms", self.peak)
            .field("abandoned_by_drain", abandoned)
            .field("updates", self.updates)
            .field("updates_arrived", updates)
            .field("updates_twice", updates_twice)
            .field("updates_dropped", updates_lost)
            .field("updates_p50_seconds", seconds(updates_p50))
            .field("p50_seconds", seconds(p50))
            .field("p99_seconds", seconds(p99))
            .field("closed_in_time", self.in_time)
            .field("offending", offences)
    }

    /// The lines.
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        let Judgement { accepted, by_websocket, by_http, rejected, unfinished, lost, doubled, again, .. } =
            self.judgement;
        let Judgement { p50, p99, updates, updates_p50, .. } = self.judgement;
        let row = |name: &str, count: &dyn core::fmt::Display, more: &str| {
            format!("  {name:<26}{:>7}  {more}", count.to_string()).trim_end().to_owned()
        };
        let bad = |name: &str, count: usize| {
            let paint = if count == 0 { Paint::Good } else { Paint::Bad };
            style.paint(paint, row(name, &count, ""))
        };
        let time = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let Args { seed, time_scale, .. } = self.args;
        let miners = self.args.miners();
        let Sums { duplicates, refused, lost: updates_lost, abandoned } = self.sums;
        let mut lines = vec![
            String::new(),
            format!("  {}", style.paint(Paint::Strong, "Ledger")),
            style.paint(Paint::Dim, format!("  {miners} miners, {} hubs, seed {seed}, timers {time_scale}", self.hubs)),
            String::new(),
            row("accepted", &accepted, "predictions"),
            row("confirmed by WebSocket", &by_websocket, ""),
            row("confirmed by HTTP", &by_http, ""),
            row("rejected", &rejected, "by the validator's application"),
            row("duplicates dropped", &duplicates, "copies the application never saw"),
            bad("lost", lost),
            bad("doubled", doubled),
            row("maybe", &again, "handed out again by a later hub that knew"),
            row("", &"", "nothing, and marked as perhaps seen before"),
        ];
        if unfinished > 0 {
            lines.push(row("unfinished", &unfinished, ""));
        }
        lines.extend([
            String::new(),
            row("connections", &self.connections, &format!("authenticated; {refused} told to come later")),
            row("reconnection peak", &self.peak, "in the busiest 100 ms"),
            row("abandoned by the drain", &abandoned, "messages for miners"),
            row("updates published", &self.updates, &format!("{updates} arrived, {updates_lost} lost to slow readers")),
            row("time to arrive", &time(updates_p50), "median"),
            row("time to confirmation", &time(p50), &format!("median; 99 % within {}", time(p99))),
            String::new(),
            self.sentence(style),
        ]);
        for (id, why) in self.judgement.offences.iter().take(LISTED) {
            lines.push(format!("    {id}: {why}"));
        }
        if self.judgement.offences.len() > LISTED {
            lines.push(format!("    and {} more", self.judgement.offences.len() - LISTED));
        }
        lines.push(String::new());
        lines
    }

    fn sentence(&self, style: Style) -> String {
        let Judgement { accepted, unfinished, again, updates_twice, .. } = self.judgement;
        let offences = self.judgement.offences.len();
        let (paint, words) = if offences > 0 {
            (Paint::Bad, format!("{offences} of {accepted} predictions did not come to their one right end:"))
        } else if updates_twice > 0 {
            (Paint::Bad, format!("Every prediction is accounted for, but {updates_twice} updates came twice."))
        } else if !self.in_time {
            (Paint::Bad, "Every prediction is accounted for, but something did not close in time.".into())
        } else if self.interrupted && unfinished > 0 {
            let words =
                format!("Stopped early: {unfinished} of {accepted} predictions were still under way, none doubled.");
            (Paint::Strong, words)
        } else if again > 0 {
            let words =
                format!("All {accepted} predictions came to their end; none was lost, {again} marked as maybe.");
            (Paint::Good, words)
        } else {
            (Paint::Good, format!("All {accepted} predictions came to their end, each handed out once."))
        };
        format!("  {}", style.paint(paint, words))
    }
}
