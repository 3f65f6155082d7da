//! The ledger as it is shown at the end.
//!
//! Decided here: what must hold, the lines, the fields, and the sentence that says it all.

use super::super::Args;
use super::super::note::{Note, seconds};
use super::super::show::{Paint, Style};
use super::ledger::Judgement;
use super::wire::{Count, Totals, Traffic};
use super::world::Ended;
use super::{Both, Way};
use bowline::marks::WINDOW;
use core::time::Duration;
use serde_json::{Value, json};

/// So many offending messages are listed for people; programs get all.
const LISTED: usize = 20;

/// Everything there is to say.
pub(super) struct Summary<'a> {
    /// What was asked for.
    pub(super) args: &'a Args,
    /// About the messages of each direction.
    pub(super) judgement: Both<Judgement>,
    /// What crossed.
    pub(super) totals: Totals,
    /// About client and hub.
    pub(super) ended: Ended,
    /// The longest time without a WebSocket.
    pub(super) outage: Duration,
    /// Gaps that the sessions told of.
    pub(super) gaps: u64,
    /// Somebody asked to stop.
    pub(super) interrupted: bool,
    /// How long it ran.
    pub(super) ran: Duration,
}

/// What went again on WebSockets after the first.
#[derive(Clone, Copy, Default)]
struct Again {
    unanswered: u64,
    all: Count,
    /// After one cut.
    most: u64,
    needless: u64,
    beside: Count,
    repeated: u64,
}

impl Summary<'_> {
    fn again(&self, way: Way) -> Again {
        let mut again = Again::default();
        for crossing in &self.totals.crossings {
            let Traffic { unanswered, again: count, needless, beside, repeated, .. } = *crossing.traffic.of(way);
            again.unanswered += unanswered;
            again.all = again.all.plus(count);
            again.most = again.most.max(count.messages);
            again.needless += needless;
            again.beside = again.beside.plus(beside);
            again.repeated += repeated;
        }
        again
    }

    /// What went by HTTP after it had gone, or on a live WebSocket after it had gone by HTTP.
    fn copies(&self, way: Way) -> Count {
        self.totals.http_again.of(way).plus(self.again(way).beside)
    }

    /// Connections after the first, and how many of them went on with the session.
    fn resumed(&self) -> (usize, usize) {
        let later = self.totals.crossings.iter().skip(1);
        (later.clone().count(), later.filter(|crossing| crossing.resumed).count())
    }

    /// What does not hold, in words.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for way in Way::BOTH {
            let Judgement { accepted, doubled, marked, .. } = *self.judgement.of(way);
            let Again { most, needless, .. } = self.again(way);
            let name = way.name();
            let rules = [
                (doubled > 0, format!("{name}: {doubled} delivered again")),
                (marked > 0, format!("{name}: {marked} marked as perhaps seen, although nobody lost his memory")),
                (
                    most > WINDOW,
                    format!("{name}: {most} crossed again after one cut, more than the window of {WINDOW}"),
                ),
                (needless > 0, format!("{name}: {needless} crossed again that the receiver had said it has")),
                (
                    !self.interrupted && accepted != self.args.messages(),
                    format!("{name}: {accepted} accepted of {}", self.args.messages()),
                ),
            ];
            broken.extend(rules.into_iter().filter_map(|(broken, words)| broken.then_some(words)));
        }
        let (later, resumed) = self.resumed();
        let (client, hub) = (self.ended.client.stats, self.ended.hub);
        let rules = [
            (resumed < later, format!("{} connections began anew", later - resumed)),
            (self.gaps > 0, format!("{} gaps", self.gaps)),
            (
                client.violations + client.malformed + client.reused > 0,
                "the client found the hub's frames wrong".into(),
            ),
            (client.expired + client.abandoned + client.rejected > 0 && !self.interrupted, "given up".into()),
            (hub.limited > 0, format!("{} refused by a limit", hub.limited)),
            (!self.ended.in_time, "client or hub did not close in time".into()),
        ];
        broken.extend(rules.into_iter().filter_map(|(broken, words)| broken.then_some(words)));
        broken
    }

    fn offences(&self) -> impl Iterator<Item = &(Way, u64, String)> {
        self.judgement.iter().flat_map(|judgement| &judgement.offences)
    }

    /// Everything that was promised holds, as far as is known.
    pub(super) fn kept(&self) -> bool {
        self.offences().next().is_none() && self.broken().is_empty()
    }

    /// The JSON line.
    pub(super) fn note(&self) -> Note {
        let direction = |way| {
            let judgement = self.judgement.of(way);
            let Judgement { accepted, by_websocket, by_http, unfinished, delivered, lost, doubled, .. } = *judgement;
            let Judgement { disordered, altered, marked, p50, p99, .. } = *judgement;
            let Again { unanswered, all, most, needless, beside, repeated } = self.again(way);
            let (http, http_again) = (*self.totals.http.of(way), *self.totals.http_again.of(way));
            json!({
                "accepted": accepted,
                "delivered": delivered,
                "delivered_websocket": by_websocket,
                "delivered_http": by_http,
                "unfinished": unfinished,
                "lost": lost,
                "doubled": doubled,
                "out_of_order": disordered,
                "altered": altered,
                "maybe_dup": marked,
                "unanswered_at_cuts": unanswered,
                "again_messages": all.messages,
                "again_bytes": all.bytes,
                "again_most_after_one_cut": most,
                "needless": needless,
                "beside_messages": beside.messages,
                "beside_bytes": beside.bytes,
                "repeated": repeated,
                "crossed": self.totals.distinct.of(way),
                "http_messages": http.messages,
                "http_again_messages": http_again.messages,
                "http_again_bytes": http_again.bytes,
                "p50_seconds": seconds(p50),
                "p99_seconds": seconds(p99),
            })
        };
        let (later, resumed) = self.resumed();
        let (client, hub) = (self.ended.client.stats, self.ended.hub);
        let offences: Vec<Value> =
            self.offences().map(|(way, n, why)| json!({"way": way.name(), "n": n, "why": why})).collect();
        Note::new("ledger")
            .field("scene", "native")
            .field("kept", self.kept())
            .field("interrupted", self.interrupted)
            .field("seed", self.args.seed)
            .field("time_scale", self.args.time_scale.factor())
            .field("ran_seconds", seconds(self.ran))
            .field(Way::ToHub.name(), direction(Way::ToHub))
            .field(Way::ToClient.name(), direction(Way::ToClient))
            .field("connections", self.totals.crossings.len())
            .field("reconnections", later)
            .field("resumed", resumed)
            .field("connection_attempts", client.attempts)
            .field("duplicates_dropped", client.duplicates + hub.duplicates)
            .field("requests", client.posts)
            .field("hedges", client.hedges)
            .field("longest_outage_seconds", seconds(self.outage))
            .field("closed_in_time", self.ended.in_time)
            .field("broken", self.broken())
            .field("offending", offences)
    }

    /// The lines.
    pub(super) fn lines(&self, style: Style) -> Vec<String> {
        let both = |name: &str, value: &dyn Fn(Way) -> String, more: &str| {
            let (up, down) = (value(Way::ToHub), value(Way::ToClient));
            format!("  {name:<26}{up:>10}{down:>15}  {more}").trim_end().to_owned()
        };
        let number =
            |name: &str, value: &dyn Fn(Way) -> u64, more: &str| both(name, &|way| value(way).to_string(), more);
        let of = |value: &'static dyn Fn(&Judgement) -> u64| move |way: Way| value(self.judgement.of(way));
        let bad = |name: &str, value: &dyn Fn(Way) -> u64, more: &str| {
            let paint = if Way::BOTH.into_iter().all(|way| value(way) == 0) { Paint::Good } else { Paint::Bad };
            style.paint(paint, number(name, value, more))
        };
        let one =
            |name: &str, value: String, more: &str| format!("  {name:<26}{value:>10}  {more}").trim_end().to_owned();
        let time = |time: Duration| match time.as_secs_f64() {
            short if short < 0.1 => format!("{:.1} ms", short * 1000.0),
            long => format!("{long:.2} s"),
        };
        let took = |name: &str, value: &'static dyn Fn(&Judgement) -> Duration| {
            both(name, &|way| time(value(self.judgement.of(way))), "")
        };
        let Args { seed, time_scale, .. } = self.args;
        let (later, resumed) = self.resumed();
        let (client, hub) = (self.ended.client.stats, self.ended.hub);
        let mut lines = vec![
            String::new(),
            format!("  {}", style.paint(Paint::Strong, "Ledger")),
            style.paint(Paint::Dim, format!("  native, seed {seed}, timers {time_scale}")),
            String::new(),
            both("", &|way| if way == Way::ToHub { "to the hub".into() } else { "to the client".into() }, ""),
            number("accepted", &of(&|page| page.accepted), ""),
            number("delivered by WebSocket", &of(&|page| page.by_websocket), ""),
            number("delivered by HTTP", &of(&|page| page.by_http), ""),
            bad("lost", &of(&|page| page.lost), ""),
            bad("doubled", &of(&|page| page.doubled), ""),
            bad("out of order", &of(&|page| page.disordered), ""),
        ];
        if self.judgement.iter().any(|page| page.unfinished > 0) {
            lines.push(number("unfinished", &of(&|page| page.unfinished), ""));
        }
        lines.extend([
            String::new(),
            number("unanswered at cuts", &|way| self.again(way).unanswered, "messages"),
            number("crossed again after them", &|way| self.again(way).all.messages, "messages"),
            number("", &|way| self.again(way).all.bytes, "bytes"),
            number("most after one cut", &|way| self.again(way).most, &format!("the window is {WINDOW}")),
            bad("of these, not missing", &|way| self.again(way).needless, "the receiver had said so"),
            number("by the other path too", &|way| self.copies(way).messages, "unanswered in time"),
            number("", &|way| self.copies(way).bytes, "bytes"),
            took("time to completion", &|page| page.p50),
            took("  99 % within", &|page| page.p99),
            String::new(),
            one("copies dropped", (client.duplicates + hub.duplicates).to_string(), "the applications never saw them"),
            one("connections", self.totals.crossings.len().to_string(), &format!("in {} attempts", client.attempts)),
            one("reconnections resumed", resumed.to_string(), &format!("of {later}")),
            one("longest without WebSocket", time(self.outage), ""),
            String::new(),
            self.sentence(style),
        ]);
        lines.extend(self.broken().into_iter().map(|words| format!("    {words}")));
        let offences = self.offences().count();
        lines.extend(self.offences().take(LISTED).map(|(way, n, why)| format!("    {} {n}: {why}", way.name())));
        if offences > LISTED {
            lines.push(format!("    and {} more", offences - LISTED));
        }
        lines.push(String::new());
        lines
    }

    fn sentence(&self, style: Style) -> String {
        let sum = |value: fn(&Judgement) -> u64| self.judgement.iter().map(value).sum::<u64>();
        let (accepted, unfinished) = (sum(|page| page.accepted), sum(|page| page.unfinished));
        let (paint, words) = if !self.kept() {
            (Paint::Bad, format!("Of {accepted} messages not everything is as it should be:"))
        } else if self.interrupted && unfinished > 0 {
            let words =
                format!("Stopped early: {unfinished} of {accepted} messages were still under way, none doubled.");
            (Paint::Strong, words)
        } else {
            let words =
                format!("All {accepted} messages arrived, each once and in order; again went only what was missing.");
            (Paint::Good, words)
        };
        format!("  {}", style.paint(paint, words))
    }
}
