//! Time, slower or faster than Gonka's: one factor for the script, the application and every timer of the sessions.
//!
//! Decided here: which settings are times. Every field is named, so that a new one cannot be forgotten.

use bowline::{
    AckWait, BackoffConfig, Config, GiveUp, HeartbeatConfig, InboxConfig, LinkConfig, NativeConfig, OutboxConfig,
    ProgramLife, RouteConfig,
};
use core::fmt;
use core::time::Duration;

const LEAST: f64 = 0.02;
const MOST: f64 = 1.0;

/// What Gonka's times are multiplied by.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Scale(f64);

impl Scale {
    /// Reads an argument.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(factor) if (LEAST..=MOST).contains(&factor) => Ok(Self(factor)),
            _ => Err(format!("a number from {LEAST} to {MOST} is needed")),
        }
    }

    /// The factor.
    pub(crate) const fn factor(self) -> f64 {
        self.0
    }

    /// A time of Gonka's as it is here. Zero stays zero: it means never, or at once.
    pub(crate) fn of(self, time: Duration) -> Duration {
        if time.is_zero() { time } else { time.mul_f64(self.0).max(Duration::from_millis(1)) }
    }

    /// Multiplies every time in a session's settings.
    pub(crate) fn apply(self, config: &mut Config) {
        let Config { link, heartbeat, outbox, inbox, route, native } = config;
        let LinkConfig {
            role: _,
            ready: _,
            attempt,
            newcomer: _,
            closing,
            farewell: _,
            knock,
            stable,
            suspend,
            blocked,
            give_up,
            backoff,
            short_lives: _,
            // Sockets and their buffers do not scale.
            write_timeout: _,
            malformed_limit: _,
            rows: _,
        } = link;
        self.all([attempt, closing, knock, stable, suspend, blocked]);
        if let GiveUp::After(span) = give_up {
            self.all([span]);
        }
        self.backoff(backoff);
        let HeartbeatConfig { interval, dead, keepalive, probe, program } = heartbeat;
        self.all([interval, dead, keepalive, probe]);
        match program {
            ProgramLife::Unwatched => {}
            ProgramLife::Answers(limit) | ProgramLife::Data(limit) => self.all([limit]),
        }
        if let Some(NativeConfig { order: _, poll }) = native {
            self.all([poll]);
        }
        let OutboxConfig { capacity: _, bytes: _, proof: _, ack_wait, life, patience, frame_limit: _, post_limit: _ } =
            outbox;
        match ack_wait {
            AckWait::Fixed(wait) => self.all([wait]),
            AckWait::Adaptive { first, least, most } => self.all([first, least, most]),
        }
        self.all([patience]);
        self.all(life);
        let InboxConfig { bytes: _, held: _, dedup: _, horizon, peer_life, answer_wait, on_reject: _, after_loss: _ } =
            inbox;
        self.all([horizon, peer_life, answer_wait]);
        let RouteConfig {
            http: _,
            grace,
            stable,
            stable_most,
            flap,
            stay,
            posts: _,
            hedge: _,
            progress,
            thinking,
            backoff,
            blocked,
        } = route;
        self.all([grace, stable, stable_most, flap, stay, progress, thinking, blocked]);
        self.backoff(backoff);
    }

    fn backoff(self, backoff: &mut BackoffConfig) {
        let BackoffConfig { floor, base, cap, jitter: _ } = backoff;
        self.all([floor, base, cap]);
    }

    fn all<'a>(self, times: impl IntoIterator<Item = &'a mut Duration>) {
        for time in times {
            *time = self.of(*time);
        }
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "×{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::{GONKA_API_NODE, GONKA_ML_NODE};

    #[test]
    fn every_scale_gives_settings_that_pass_the_check() {
        for factor in [LEAST, 0.05, 0.25, 1.0 / 3.0, MOST] {
            for config in [GONKA_API_NODE, GONKA_ML_NODE, Config::DEFAULT] {
                let mut scaled = config;
                Scale(factor).apply(&mut scaled);
                assert!(scaled.check().is_ok(), "{factor}: {:?}", scaled.check());
            }
        }
    }

    #[test]
    fn one_is_gonkas_own_time_and_never_stays_never() {
        let mut same = GONKA_ML_NODE;
        Scale(MOST).apply(&mut same);
        assert_eq!(same, GONKA_ML_NODE);
        let mut quarter = GONKA_ML_NODE;
        Scale(0.25).apply(&mut quarter);
        assert_eq!(quarter.outbox.ack_wait.longest(), Duration::from_secs(30));
        assert_eq!((quarter.route.grace, quarter.outbox.life), (Duration::ZERO, None));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for text in ["", "x", "0", "-1", "0.01", "1.01", "NaN", "inf"] {
            assert!(Scale::parse(text).is_err(), "{text}");
        }
        assert_eq!(Scale::parse("0.25"), Ok(Scale(0.25)));
    }
}
