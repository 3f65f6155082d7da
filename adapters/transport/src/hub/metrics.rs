//! What is counted, as JSON and in the text format of Prometheus.

use super::Hub;
use bowline::Instant;
use bowline::hub::{Health, HubStats, Why};
use core::fmt::Write as _;
use core::time::Duration;

/// The upper ends of the histogram's buckets, in milliseconds.
const BUCKETS: [u32; 10] = [1, 5, 10, 25, 100, 250, 1_000, 2_500, 10_000, 60_000];

/// What the hub's adapter counts beside the machine; the numbers only grow.
///
/// ```
/// assert_eq!(bowline_transport::hub::Counters::default().malformed, 0);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Text and binary frames that came in.
    pub frames_in: u64,
    /// Text frames that were written.
    pub frames_out: u64,
    /// Frames that were no envelope of their sender's, or not fresh.
    pub malformed: u64,
    /// Messages the application has confirmed.
    pub confirmed: u64,
    /// … rejected, or that made their handler panic.
    pub rejected: u64,
    /// … given back.
    pub given_back: u64,
    /// Connections and requests refused, in the order of [`Why::ALL`].
    pub refused: [u64; Why::ALL.len()],
    buckets: [u64; BUCKETS.len()],
    took: Duration,
    errors: Minutes,
}

/// Of this minute and the one before, how many: what the last sixty seconds are reckoned from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Minutes {
    minute: u64,
    count: u64,
    before: u64,
}

impl Minutes {
    const LONG: u64 = 60_000_000;

    /// As it is in this minute.
    const fn at(self, now: Instant) -> Self {
        let minute = now.as_micros() / Self::LONG;
        let before = match minute.saturating_sub(self.minute) {
            0 => return self,
            1 => self.count,
            _ => 0,
        };
        Self { minute, count: 0, before }
    }

    const fn add(&mut self, now: Instant) {
        *self = self.at(now);
        self.count = self.count.saturating_add(1);
    }

    /// In the last sixty seconds, as if those of the minute before were spread evenly over it.
    const fn rate(self, now: Instant) -> u64 {
        let Self { count, before, .. } = self.at(now);
        let left = Self::LONG - now.as_micros() % Self::LONG;
        count.saturating_add(before.saturating_mul(left) / Self::LONG)
    }
}

impl Counters {
    pub(super) fn refuse(&mut self, why: Why) {
        let known = Why::ALL.iter().position(|known| *known == why);
        if let Some(count) = known.and_then(|known| self.refused.get_mut(known)) {
            *count = count.saturating_add(1);
        }
    }

    /// All of them, whatever the reason.
    fn refused(&self) -> u64 {
        self.refused.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// A frame was not what it should be.
    pub(super) const fn misunderstood(&mut self, now: Instant) {
        self.malformed = self.malformed.saturating_add(1);
        self.errors.add(now);
    }

    /// A message has ended at the application.
    pub(super) fn handled(&mut self, now: Instant, success: Option<bool>, took: Duration) {
        if success == Some(false) {
            self.errors.add(now);
        }
        let counter = match success {
            Some(true) => &mut self.confirmed,
            Some(false) => &mut self.rejected,
            None => &mut self.given_back,
        };
        *counter = counter.saturating_add(1);
        self.took = self.took.saturating_add(took);
        let ends = BUCKETS.iter().map(|end| Duration::from_millis(u64::from(*end)));
        for (count, _) in self.buckets.iter_mut().zip(ends).filter(|(_, end)| took <= *end) {
            *count = count.saturating_add(1);
        }
    }
}

/// Seconds of a duration, as a decimal.
fn seconds(span: Duration) -> f64 {
    span.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

pub(super) fn text(health: &Health, stats: &HubStats, counters: &Counters) -> String {
    let mut out = String::with_capacity(4096);
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(&str, String)]| {
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP bowline_{name} {help}\n# TYPE bowline_{name} {kind}");
        for (labels, value) in rows {
            let _ = writeln!(out, "bowline_{name}{labels} {value}");
        }
    };
    let n = |value: usize| value.to_string();
    family(
        "connections",
        "gauge",
        "Connections by state.",
        &[
            (r#"{state="authenticated"}"#, n(health.connections)),
            (r#"{state="pending"}"#, n(health.pending)),
            (r#"{state="closing"}"#, n(health.closing)),
        ],
    );
    family("active_connections", "gauge", "Authenticated and lately heard from.", &[("", n(health.active))]);
    family("sessions", "gauge", "Identities known, connected or not.", &[("", n(health.sessions))]);
    family("backlog", "gauge", "Messages accepted for miners and not ended.", &[("", n(health.backlog))]);
    family("held", "gauge", "Messages at the application.", &[("", n(health.held))]);
    family(
        "fleet_http",
        "gauge",
        "1 while absent miners are served by HTTP.",
        &[("", u8::from(health.fleet_http).to_string())],
    );
    family(
        "frames_total",
        "counter",
        "Frames by direction.",
        &[
            (r#"{direction="in"}"#, counters.frames_in.to_string()),
            (r#"{direction="out"}"#, counters.frames_out.to_string()),
        ],
    );
    let by_websocket = stats.delivered.saturating_sub(stats.delivered_http);
    family(
        "messages_in_total",
        "counter",
        "Messages handed to the application, by path.",
        &[(r#"{path="websocket"}"#, by_websocket.to_string()), (r#"{path="http"}"#, stats.delivered_http.to_string())],
    );
    family(
        "messages_out_total",
        "counter",
        "Messages for single miners that have ended.",
        &[
            (r#"{result="websocket"}"#, stats.settled_websocket.to_string()),
            (r#"{result="http"}"#, stats.settled_http.to_string()),
            (r#"{result="failed"}"#, stats.failed.to_string()),
        ],
    );
    family(
        "broadcast_copies_total",
        "counter",
        "Copies of broadcasts, by what became of them.",
        &[
            (r#"{result="written"}"#, stats.broadcast_copies.to_string()),
            (r#"{result="lost"}"#, stats.lost.to_string()),
            (r#"{result="conflated"}"#, stats.conflated.to_string()),
        ],
    );
    family("broadcasts_total", "counter", "Broadcasts published.", &[("", stats.broadcasts.to_string())]);
    family(
        "duplicates_total",
        "counter",
        "Copies that were not handed over again.",
        &[("", stats.duplicates.to_string())],
    );
    family(
        "malformed_total",
        "counter",
        "Frames that were not what they should be.",
        &[("", counters.malformed.to_string())],
    );
    family(
        "replays_total",
        "counter",
        "Frames and requests refused for time or nonce.",
        &[("", stats.replays.to_string())],
    );
    family("limited_total", "counter", "Frames and requests over a limit.", &[("", stats.limited.to_string())]);
    family("admitted_total", "counter", "Connections authenticated.", &[("", stats.admitted.to_string())]);
    family(
        "replaced_total",
        "counter",
        "Connections replaced by another of their identity.",
        &[("", stats.replaced.to_string())],
    );
    let refused: Vec<_> = Why::ALL.iter().zip(counters.refused).filter(|(_, count)| *count > 0).collect();
    let labels: Vec<_> = refused.iter().map(|(why, _)| format!(r#"{{reason="{why:?}"}}"#)).collect();
    let rows: Vec<_> =
        labels.iter().zip(&refused).map(|(label, (_, count))| (label.as_str(), count.to_string())).collect();
    family("refused_total", "counter", "Connections and requests refused, by reason.", &rows);
    family(
        "handled_total",
        "counter",
        "Messages by what the application said.",
        &[
            (r#"{result="confirmed"}"#, counters.confirmed.to_string()),
            (r#"{result="rejected"}"#, counters.rejected.to_string()),
            (r#"{result="given_back"}"#, counters.given_back.to_string()),
        ],
    );
    let handled = counters.confirmed.saturating_add(counters.rejected).saturating_add(counters.given_back);
    family(
        "fallback_ratio",
        "gauge",
        "Share of messages that came by HTTP.",
        &[("", ratio(stats.delivered_http, stats.delivered).to_string())],
    );
    family(
        "error_ratio",
        "gauge",
        "Share of handled messages that were rejected.",
        &[("", ratio(counters.rejected, handled).to_string())],
    );
    let name = "handling_seconds";
    let _ = writeln!(out, "# HELP bowline_{name} From arrival to completion.\n# TYPE bowline_{name} histogram");
    for (end, count) in BUCKETS.iter().zip(counters.buckets) {
        let end = seconds(Duration::from_millis(u64::from(*end)));
        let _ = writeln!(out, r#"bowline_{name}_bucket{{le="{end}"}} {count}"#);
    }
    let _ = writeln!(out, r#"bowline_{name}_bucket{{le="+Inf"}} {handled}"#);
    let _ = writeln!(out, "bowline_{name}_sum {}\nbowline_{name}_count {handled}", seconds(counters.took));
    out
}

impl Hub {
    /// How it stands as the original says it, and more behind that: `status` is `online`, `draining`, `offline` once it is
    /// over, or `disabled` if there are no WebSockets. `errors_per_minute` are messages that the application has rejected
    /// and frames that were not what they should be.
    #[must_use]
    pub fn health_json(&self) -> String {
        let now = self.clock.now();
        let (health, stats, refused, errors, drained) = {
            let engine = self.lock();
            let Counters { errors, .. } = engine.counters;
            (engine.health(), engine.stats(), engine.counters.refused(), errors.rate(now), engine.drained.is_some())
        };
        let status = match (drained, health.draining, self.websocket) {
            (true, ..) => "offline",
            (_, true, _) => "draining",
            (.., true) => "online",
            (.., false) => "disabled",
        };
        let Health { connections, active, pending, closing, sessions, suspended, .. } = health;
        let Health { backlog, held, fleet_http, draining, .. } = health;
        let HubStats { handshakes, duplicates, limited, replays, delivered, delivered_http, .. } = stats;
        let uptime = now.since(Instant::ZERO).as_secs_f64();
        let (window, fallback) = (self.window.as_secs(), ratio(delivered_http, delivered));
        format!(
            "{{\"status\":\"{status}\",\"connections\":{connections},\"active_connections\":{active},\"uptime\":{uptime:.3},\
             \"suspended\":{suspended},\"draining\":{draining},\"sessions\":{sessions},\"pending\":{pending},\
             \"closing\":{closing},\"backlog\":{backlog},\"held\":{held},\"reconnect_window\":{window},\
             \"fleet_http\":{fleet_http},\"handshakes\":{handshakes},\"refused\":{refused},\
             \"dedupe_hits\":{duplicates},\"limited\":{limited},\"replays\":{replays},\
             \"fallback_rate\":{fallback},\"errors_per_minute\":{errors}}}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_a_minute_are_forgotten_after_it() {
        let at = |seconds: u64| Instant::from_micros(seconds * 1_000_000);
        let mut errors = Minutes::default();
        for _ in 0..60 {
            errors.add(at(59));
        }
        assert_eq!(errors.rate(at(59)), 60);
        assert_eq!(errors.rate(at(90)), 30);
        errors.add(at(90));
        assert_eq!(errors.rate(at(90)), 31);
        assert_eq!((errors.rate(at(120)), errors.rate(at(180))), (1, 0));
        assert_eq!(errors.rate(at(3600)), 0);
    }
}
