//! What is counted, as JSON and in the text format of Prometheus.

use super::Hub;
use super::wire::HubWire;
use bowline::Instant;
use bowline::hub::{CloseReason, Health, HubStats};
use core::time::Duration;
use prometheus::TextEncoder;
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};
use serde::Serialize;

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
    /// Connections and requests refused, in the order of [`CloseReason::ALL`].
    pub refused: [u64; CloseReason::ALL.len()],
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
    pub(super) fn refuse(&mut self, why: CloseReason) {
        let known = CloseReason::ALL.iter().position(|known| *known == why);
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

/// As Prometheus keeps it.
#[expect(clippy::cast_precision_loss, reason = "beyond 2^53 nobody counts one by one")]
const fn decimal(value: u64) -> f64 {
    value as f64
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { decimal(part) / decimal(whole) }
}

pub(super) fn text(health: &Health, stats: &HubStats, counters: &Counters) -> String {
    let count = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let by_websocket = stats.delivered.saturating_sub(stats.delivered_http);
    let handled = counters.confirmed.saturating_add(counters.rejected).saturating_add(counters.given_back);
    let states = [
        ("authenticated", count(health.connections)),
        ("pending", count(health.pending)),
        ("closing", count(health.closing)),
    ];
    let results =
        [("confirmed", counters.confirmed), ("rejected", counters.rejected), ("given_back", counters.given_back)];
    let sent = [("websocket", stats.settled_websocket), ("http", stats.settled_http), ("failed", stats.failed)];
    let copies = [("written", stats.broadcast_copies), ("lost", stats.lost), ("conflated", stats.conflated)];
    let reasons = CloseReason::ALL.map(|why| format!("{why:?}"));
    let refused = reasons.iter().map(String::as_str).zip(counters.refused).filter(|(_, count)| *count > 0);
    let families = [
        gauges("connections", "Connections by state.", "state", states),
        gauge("active_connections", "Authenticated and lately heard from.", count(health.active)),
        gauge("sessions", "Identities known, connected or not.", count(health.sessions)),
        gauge("backlog", "Messages accepted for peers and not ended.", count(health.backlog)),
        gauge("held", "Messages at the application.", count(health.held)),
        gauge("held_bytes", "Their bytes.", health.held_bytes),
        gauge("fleet_http", "1 while absent peers are served by HTTP.", u64::from(health.fleet_http)),
        counters_by(
            "frames_total",
            "Frames by direction.",
            "direction",
            [("in", counters.frames_in), ("out", counters.frames_out)],
        ),
        counters_by(
            "messages_in_total",
            "Messages handed to the application, by path.",
            "path",
            [("websocket", by_websocket), ("http", stats.delivered_http)],
        ),
        counters_by("messages_out_total", "Messages for single peers that have ended.", "result", sent),
        counters_by("broadcast_copies_total", "Copies of broadcasts, by what became of them.", "result", copies),
        counter("broadcasts_total", "Broadcasts published.", stats.broadcasts),
        counter("duplicates_total", "Copies that were not handed over again.", stats.duplicates),
        counter("malformed_total", "Frames that were not what they should be.", counters.malformed),
        counter("replays_total", "Frames and requests refused for time or nonce.", stats.replays),
        counter("limited_total", "Frames and requests over a limit.", stats.limited),
        counter("admitted_total", "Connections authenticated.", stats.admitted),
        counter("replaced_total", "Connections replaced by another of their identity.", stats.replaced),
        counters_by("refused_total", "Connections and requests refused, by reason.", "reason", refused),
        counters_by("handled_total", "Messages by what the application said.", "result", results),
        ratio_of("fallback_ratio", "Share of messages that came by HTTP.", stats.delivered_http, stats.delivered),
        ratio_of("error_ratio", "Share of handled messages that were rejected.", counters.rejected, handled),
        histogram("handling_seconds", "From arrival to completion.", counters, handled),
    ];
    let mut out = String::with_capacity(4096);
    for family in families.iter().filter(|family| !family.get_metric().is_empty()) {
        // A family with a name and a value can be written, and to a string.
        let _ = TextEncoder::new().encode_utf8(core::slice::from_ref(family), &mut out);
    }
    out
}

fn family(name: &str, help: &str, kind: MetricType, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(format!("bowline_{name}"));
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics.into_iter().collect());
    family
}

fn labelled(label: &str, value: &str) -> Metric {
    let mut pair = LabelPair::default();
    pair.set_name(label.to_owned());
    pair.set_value(value.to_owned());
    Metric::from_label(vec![pair])
}

fn counted(mut metric: Metric, value: u64) -> Metric {
    let mut counter = proto::Counter::default();
    counter.set_value(decimal(value));
    metric.set_counter(counter);
    metric
}

fn measured(mut metric: Metric, value: f64) -> Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::COUNTER, [counted(Metric::default(), value)])
}

fn counters_by<'a>(
    name: &str,
    help: &str,
    label: &str,
    rows: impl IntoIterator<Item = (&'a str, u64)>,
) -> MetricFamily {
    let rows = rows.into_iter().map(|(of, value)| counted(labelled(label, of), value));
    family(name, help, MetricType::COUNTER, rows)
}

fn gauge(name: &str, help: &str, value: u64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, [measured(Metric::default(), decimal(value))])
}

fn gauges(name: &str, help: &str, label: &str, rows: [(&str, u64); 3]) -> MetricFamily {
    let rows = rows.into_iter().map(|(of, value)| measured(labelled(label, of), decimal(value)));
    family(name, help, MetricType::GAUGE, rows)
}

fn ratio_of(name: &str, help: &str, part: u64, whole: u64) -> MetricFamily {
    family(name, help, MetricType::GAUGE, [measured(Metric::default(), ratio(part, whole))])
}

fn histogram(name: &str, help: &str, counters: &Counters, handled: u64) -> MetricFamily {
    let bucket = |(end, count): (&u32, u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(Duration::from_millis(u64::from(*end)).as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(BUCKETS.iter().zip(counters.buckets).map(bucket).collect());
    histogram.set_sample_count(handled);
    histogram.set_sample_sum(counters.took.as_secs_f64());
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    family(name, help, MetricType::HISTOGRAM, [metric])
}

/// What `/ws/health` says, in this order: the original's fields first.
#[derive(Serialize)]
struct Fields {
    status: &'static str,
    connections: usize,
    active_connections: usize,
    uptime: f64,
    suspended: usize,
    draining: bool,
    sessions: usize,
    pending: usize,
    closing: usize,
    backlog: usize,
    held: usize,
    reconnect_window: u64,
    fleet_http: bool,
    handshakes: u64,
    refused: u64,
    dedupe_hits: u64,
    limited: u64,
    replays: u64,
    fallback_rate: f64,
    errors_per_minute: u64,
    #[serde(flatten)]
    siblings: Option<Siblings>,
}

/// What interfaces of AI Village's siblings ask for (wire facts 3.4).
#[derive(Serialize)]
struct Siblings {
    service: &'static str,
    connected_clients: usize,
    active_channels: usize,
}

impl<W: HubWire> Hub<W> {
    /// How it stands as the original says it, and more behind that: `status` is `online`, `draining`, `offline` once it is
    /// over, or `disabled` if there are no WebSockets. `errors_per_minute` are messages that the application has rejected
    /// and frames that were not what they should be.
    #[must_use]
    pub fn health_json(&self) -> String {
        let now = self.clock.now();
        let (health, stats, refused, errors, drained, siblings) = {
            let engine = self.lock();
            let Counters { errors, .. } = engine.counters;
            let health = engine.health();
            let siblings = W::SERVICE.map(|service| Siblings {
                service,
                connected_clients: health.connections,
                active_channels: engine.topics().len(),
            });
            let drained = engine.drained.is_some();
            (health, engine.stats(), engine.counters.refused(), errors.rate(now), drained, siblings)
        };
        let status = match (drained, health.draining, self.websocket) {
            (true, ..) => "offline",
            (_, true, _) => "draining",
            (.., true) => "online",
            (.., false) => "disabled",
        };
        let fields = Fields {
            status,
            connections: health.connections,
            active_connections: health.active,
            uptime: now.since(Instant::ZERO).as_secs_f64(),
            suspended: health.suspended,
            draining: health.draining,
            sessions: health.sessions,
            pending: health.pending,
            closing: health.closing,
            backlog: health.backlog,
            held: health.held,
            reconnect_window: self.window.as_secs(),
            fleet_http: health.fleet_http,
            handshakes: stats.handshakes,
            refused,
            dedupe_hits: stats.duplicates,
            limited: stats.limited,
            replays: stats.replays,
            fallback_rate: ratio(stats.delivered_http, stats.delivered),
            errors_per_minute: errors,
            siblings,
        };
        // Strings and finite numbers: nothing that JSON could not say.
        serde_json::to_string(&fields).unwrap_or_default()
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
