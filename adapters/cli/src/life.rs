//! How a process that speaks JSON lines begins and ends; the same for `connect` and `hub`.
//!
//! Decided here: what ends it, and that everything that is waited for has a limit.

use crate::keys;
use bowline_smol::SetupError;
use core::fmt;
use core::time::Duration;
use std::io;
use std::process::ExitCode;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

/// Why it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// There is no more input.
    Input,
    /// Somebody asked to stop.
    Interrupted,
    /// Nobody reads the output any more.
    Output,
    /// The session, or the hub, has ended by itself.
    Session,
}

/// Whoever tells of an end.
pub(crate) fn told(tell: &mpsc::Sender<End>, end: End) -> impl Fn() + Send + 'static {
    let tell = tell.clone();
    move || {
        // Nobody listens any more once there was an end.
        let _ = tell.send(end);
    }
}

/// A thread that does its work and tells that it has ended.
pub(crate) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
    told: impl FnOnce() + Send + 'static,
) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(move || {
        work();
        told();
    })
}

/// Whether it was done in time; if not, it goes on and nobody waits.
pub(crate) fn within(limit: Instant, wait: impl FnOnce() -> bool + Send + 'static) -> bool {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || tell.send(wait()));
    told.recv_timeout(limit.saturating_duration_since(Instant::now())).unwrap_or(false)
}

/// Lines between input and output: counted, and so many at most.
#[derive(Debug)]
pub(crate) struct UnderWay {
    /// How many; and whether a line may still begin.
    lines: Mutex<(usize, bool)>,
    most: usize,
    ended: Condvar,
}

impl UnderWay {
    /// So many at most.
    pub(crate) const fn new(most: usize) -> Self {
        Self { lines: Mutex::new((0, true)), most, ended: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, (usize, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line begins, when there is room. False: no line begins any more.
    pub(crate) fn begin(&self) -> bool {
        let full = |(lines, open): &mut (usize, bool)| *open && *lines >= self.most;
        let mut lines = self.ended.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        lines.0 += usize::from(lines.1);
        lines.1
    }

    /// A line has come to its end.
    pub(crate) fn end(&self) {
        self.lock().0 -= 1;
        self.ended.notify_all();
    }

    /// Lets no more begin, and waits for the end of all. False: not in time.
    pub(crate) fn close(&self, limit: Instant) -> bool {
        let mut lines = self.lock();
        lines.1 = false;
        self.ended.notify_all();
        let left = limit.saturating_duration_since(Instant::now());
        let waited = self.ended.wait_timeout_while(lines, left, |(lines, _)| *lines > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Reads a time of up to a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number of seconds up to 86400 is needed".into())
}

/// Why it did not run, or not to a good end.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments make no sense together.
    Arguments(String),
    /// The node did not start.
    Setup(SetupError),
    /// A file, a thread, a signal.
    Other(String),
}

impl Failure {
    /// The exit status.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(if matches!(self, Self::Arguments(_)) { 2 } else { 1 })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(why) | Self::Other(why) => f.write_str(why),
            Self::Setup(error) => error.fmt(f),
        }
    }
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Self {
        Self::Setup(error)
    }
}

impl From<ctrlc::Error> for Failure {
    fn from(error: ctrlc::Error) -> Self {
        Self::Other(format!("cannot listen for Ctrl-C: {error}"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<keys::Unreadable> for Failure {
    fn from(error: keys::Unreadable) -> Self {
        Self::Other(error.to_string())
    }
}
