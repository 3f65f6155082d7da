//! Runs the script: every few milliseconds it sends what is due, takes in what became of it, and looks whether it is
//! time for the next fault.
//!
//! Decided here: when a phase is over, and when the run is: when every batch has come to its end and the WebSocket is
//! back, or a bounded time after the last fault was taken away.

use super::Args;
use super::batches::Batches;
use super::ledger::Ledger;
use super::live::{self, View};
use super::note::{Note, seconds};
use super::scale::Scale;
use super::script::{self, Phase, SCRIPT};
use super::show::{self, Show};
use super::summary::Summary;
use super::watch::Watch;
use super::words;
use super::world::World;
use crate::interrupt::{self, Interrupt};
use bowline::{GONKA_ML_NODE, Path, Refusal};
use bowline_cli::proxy::Fault;
use bowline_transport::{Receipt, Refused, SetupError, Status};
use core::fmt;
use core::time::Duration;
use std::collections::BTreeSet;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Between two looks, in Gonka's time, and the bounds of that here.
const LOOK: Duration = Duration::from_millis(40);
const LOOK_BOUNDS: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));

/// Added to the last phase: some limits of the sessions do not scale, such as the second that a busy receiver asks for.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is under way at an interruption has so long.
const STOPPING: Duration = Duration::from_secs(5);

/// Closing nodes finish what is under way for so long.
const DRAIN: Duration = Duration::from_secs(1);

/// Bytes around a batch on the WebSocket.
const ENVELOPE: usize = 90;

/// Why there is no ledger.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A node did not start.
    Setup(SetupError),
    /// Nobody tells us of Ctrl-C.
    Interrupt(ctrlc::Error),
    /// The output is gone.
    Output(io::Error),
    /// Something else that the demo needs.
    Other(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(error) => error.fmt(f),
            Self::Interrupt(error) => write!(f, "cannot listen for Ctrl-C: {error}"),
            Self::Output(error) => write!(f, "cannot write: {error}"),
            Self::Other(why) => f.write_str(why),
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
        Self::Interrupt(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Runs the whole demo.
pub(crate) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen(|| (), show::give_back_terminal)?;
    let batches = Arc::new(Batches::new(args.seed, args.batches()));
    let ledger = Arc::new(Ledger::default());
    let world = World::start(args, &batches, &ledger)?;
    let director = Director::new(args, interrupt, batches, ledger, world);
    director.run()
}

struct Director<'a> {
    args: &'a Args,
    scale: Scale,
    interrupt: Interrupt,
    batches: Arc<Batches>,
    ledger: Arc<Ledger>,
    world: World,
    show: Show,
    start: Instant,
    phase: usize,
    phase_start: Instant,
    /// How the sender and the receiver stood when the last phase ended.
    before: (Status, Status),
    websocket: Fault,
    http: Fault,
    /// Bytes per second that the batches need on the WebSocket.
    need: u64,
    sent: u64,
    open: Vec<(u64, Receipt)>,
    watch: Watch,
    /// Traffic was on the WebSocket at the last look.
    carries: bool,
    /// Traffic has come back to the WebSocket since the phase began.
    returned: bool,
    /// What need not be said again in this phase.
    said: BTreeSet<String>,
    /// Since when we are only waiting for what is under way.
    stopping: Option<Instant>,
}

impl<'a> Director<'a> {
    fn new(args: &'a Args, interrupt: Interrupt, batches: Arc<Batches>, ledger: Arc<Ledger>, world: World) -> Self {
        let now = Instant::now();
        let scale = args.time_scale;
        let sample: usize = (0..3).map(|number| batches.batch(number).json.len() + ENVELOPE).sum();
        let sending = scale.of(script::sending());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "megabytes per second, about"
        )]
        let need = (sample as f64 / 3.0 * args.batches() as f64 / sending.as_secs_f64()) as u64;
        let before = (world.ml_node.status(), world.api_node.status());
        Self {
            args,
            scale,
            interrupt,
            batches,
            ledger,
            world,
            show: Show::new(args.json),
            start: now,
            phase: 0,
            phase_start: now,
            before,
            websocket: Fault::Calm,
            http: Fault::Calm,
            need,
            sent: 0,
            open: Vec::new(),
            watch: Watch::default(),
            carries: false,
            returned: false,
            said: BTreeSet::new(),
            stopping: None,
        }
    }

    fn run(mut self) -> Result<ExitCode, Failure> {
        self.introduce()?;
        self.begin_phase()?;
        let pause = self.scale.of(LOOK).clamp(LOOK_BOUNDS.0, LOOK_BOUNDS.1);
        loop {
            let now = Instant::now();
            let (ml_node, api_node) = (self.world.ml_node.status(), self.world.api_node.status());
            let carried = core::mem::replace(&mut self.carries, carries(&ml_node));
            self.returned |= self.carries && !carried;
            self.look(now, &ml_node)?;
            self.listen()?;
            self.send(now)?;
            self.collect();
            if self.interrupt.asked() && self.stopping.is_none() {
                self.stop(now)?;
            }
            if self.over(now, &ml_node) {
                break;
            }
            if self.stopping.is_none() && self.phase_over(now) {
                self.end_phase(&ml_node, &api_node)?;
                self.phase += 1;
                self.begin_phase()?;
            }
            self.draw(now, &ml_node, &api_node)?;
            thread::sleep(pause);
        }
        self.finish()
    }

    fn introduce(&mut self) -> io::Result<()> {
        let Args { time_scale, seed, .. } = self.args;
        let (adapter, batches) = (self.args.adapter(), self.args.batches());
        let note = Note::new("start")
            .field("adapter", adapter.name())
            .field("batches", batches)
            .field("time_scale", time_scale.factor())
            .field("seed", *seed)
            .field("script_seconds", seconds(self.scale.of(script::length())));
        let length = self.scale.of(script::length()).as_secs_f64();
        self.show.text(&[
            String::new(),
            format!("  An ML node sends {batches} proof batches to an API node, over real sockets;"),
            "  proxies between them break the WebSocket, then HTTP, then both.".into(),
            format!(
                "  {} adapter, seed {seed}, every timer {time_scale} of Gonka's: about {length:.0} s.",
                adapter.name()
            ),
            String::new(),
        ])?;
        self.note(&note)
    }

    fn begin_phase(&mut self) -> io::Result<()> {
        let Some(phase) = SCRIPT.get(self.phase) else { return Ok(()) };
        self.set(phase.websocket.fault(self.need), phase.http.fault(self.need));
        self.phase_start = Instant::now();
        self.said.clear();
        self.returned = false;
        let Phase { name, broken, expected, .. } = phase;
        let note = Note::new("phase")
            .heading(format!("{}/{} {name}: {broken}", self.phase + 1, SCRIPT.len()))
            .field("phase", *name)
            .field("broken", *broken)
            .field("expected", *expected);
        self.note(&note)
    }

    /// Sets what has changed: setting a reset again would reset again.
    fn set(&mut self, websocket: Fault, http: Fault) {
        if self.websocket != websocket {
            self.world.websocket.set(websocket);
            self.websocket = websocket;
        }
        if self.http != http {
            self.world.callbacks.set(http);
            self.http = http;
        }
    }

    fn phase_over(&self, now: Instant) -> bool {
        let last = self.phase + 1 >= SCRIPT.len();
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| !last) else { return false };
        let passed = now - self.phase_start;
        passed >= self.scale.of(phase.lasts)
            && phase.at_most.is_none_or(|most| self.carries || self.returned || passed >= self.scale.of(most))
    }

    fn over(&self, now: Instant, ml_node: &Status) -> bool {
        let ended = self.open.is_empty() && ml_node.backlog == 0;
        if let Some(since) = self.stopping {
            return ended || now - since >= STOPPING;
        }
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| self.phase + 1 == SCRIPT.len()) else { return false };
        let passed = now - self.phase_start;
        let most = self.scale.of(phase.at_most.unwrap_or(phase.lasts));
        let all = ended && self.sent == self.args.batches();
        all && passed >= self.scale.of(phase.lasts) && (self.carries || self.returned || passed >= most)
            || passed >= most + PATIENCE
    }

    fn end_phase(&mut self, ml_node: &Status, api_node: &Status) -> io::Result<()> {
        let Some(phase) = SCRIPT.get(self.phase) else { return Ok(()) };
        let (ml, api) = (ml_node.stats, api_node.stats);
        let (ml_before, api_before) = (self.before.0.stats, self.before.1.stats);
        let by_websocket = ml.delivered_websocket - ml_before.delivered_websocket;
        let by_http = ml.delivered_http - ml_before.delivered_http;
        let duplicates = api.duplicates - api_before.duplicates;
        let waiting = ml_node.backlog;
        self.before = (ml_node.clone(), api_node.clone());
        let note = Note::new("phase_end")
            .words(format!(
                "  {by_websocket} by WebSocket, {by_http} by HTTP, {duplicates} copies dropped, {waiting} waiting"
            ))
            .field("phase", phase.name)
            .field("delivered_websocket", by_websocket)
            .field("delivered_http", by_http)
            .field("duplicates_dropped", duplicates)
            .field("frames", ml.frames - ml_before.frames)
            .field("requests", ml.posts - ml_before.posts)
            .field("hedges", ml.hedges - ml_before.hedges)
            .field("connection_attempts", api.attempts - api_before.attempts)
            .field("waiting", waiting)
            .field("path", ml_node.path.to_string());
        self.note(&note)
    }

    /// Whether there is a connection, and which.
    fn look(&mut self, now: Instant, ml_node: &Status) -> io::Result<()> {
        let Some(number) = self.watch.look(now, ml_node.connection) else { return Ok(()) };
        let carries = ml_node.path == Path::WebSocket;
        let words = if carries {
            "WebSocket connected"
        } else {
            "WebSocket connected; HTTP carries until it has proven itself"
        };
        let note = Note::new("connected").words(words).field("connection", number).field("carries", carries);
        self.note(&note)
    }

    /// What the nodes told.
    fn listen(&mut self) -> io::Result<()> {
        while let Ok((who, event)) = self.world.events.try_recv() {
            let note = words::event(who, event, &mut self.said);
            self.note(&note)?;
        }
        Ok(())
    }

    /// Sends what is due. If the outbox is full, it is tried again at the next look: that is how it should be.
    fn send(&mut self, now: Instant) -> io::Result<()> {
        while self.stopping.is_none() && self.sent < self.args.batches() && now >= self.start + self.due(self.sent) {
            let batch = self.batches.batch(self.sent);
            match self.world.ml_node.try_send(batch.kind, &batch.json) {
                Ok(receipt) => {
                    self.ledger.accepted(batch.height);
                    self.open.push((batch.height, receipt));
                    self.sent += 1;
                }
                Err(error) => {
                    let words = format!("new batches have to wait: {error}");
                    if self.said.insert(words.clone()) {
                        self.note(&Note::new("refused").words(words).field("why", error.to_string()))?;
                    }
                    if error.why != Refused::Session(Refusal::Full) {
                        // Not accepted and never will be: not the session's to lose.
                        self.sent += 1;
                    }
                    break;
                }
            }
        }
        Ok(())
    }

    fn due(&self, number: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        let part = number as f64 / self.args.batches() as f64;
        self.scale.of(script::sending()).mul_f64(part)
    }

    /// Takes the ends of batches.
    fn collect(&mut self) {
        let ledger = &self.ledger;
        self.open.retain(|(height, receipt)| match receipt.try_settled() {
            Some(settlement) => {
                ledger.settled(*height, settlement);
                false
            }
            None => true,
        });
    }

    fn stop(&mut self, now: Instant) -> io::Result<()> {
        self.stopping = Some(now);
        self.set(Fault::Calm, Fault::Calm);
        let words = format!("stopping: {} batches are under way", self.open.len());
        self.note(&Note::new("interrupted").heading(words).field("under_way", self.open.len()))
    }

    fn draw(&mut self, now: Instant, ml_node: &Status, api_node: &Status) -> io::Result<()> {
        let rest = SCRIPT.iter().skip(self.phase).map(|phase| self.scale.of(phase.lasts)).sum::<Duration>();
        let lasts = SCRIPT.get(self.phase).map(|phase| self.scale.of(phase.lasts)).unwrap_or_default();
        let view = View {
            phase: self.stopping.is_none().then_some(self.phase),
            left: rest.saturating_sub((now - self.phase_start).min(lasts)),
            ml_node,
            api_node,
            websocket: self.websocket,
            http: self.http,
            batches: self.args.batches(),
            capacity: GONKA_ML_NODE.outbox.capacity,
        };
        self.show.frame(|style| live::lines(&view, style))
    }

    fn finish(mut self) -> Result<ExitCode, Failure> {
        let interrupted = self.stopping.is_some();
        let (ml_node, api_node) = (self.world.ml_node.status(), self.world.api_node.status());
        if !interrupted {
            self.end_phase(&ml_node, &api_node)?;
        }
        let outage = self.watch.longest(Instant::now());
        let at = self.start.elapsed();
        self.show.end()?;
        let Self { world, mut show, ledger, open, args, watch, .. } = self;
        let ended = world.end(DRAIN);
        for (height, receipt) in open {
            if let Some(settlement) = receipt.try_settled() {
                ledger.settled(height, settlement);
            }
        }
        let judgement = ledger.judge(interrupted);
        let summary = Summary { args, judgement, ended, connections: watch.connections(), outage, interrupted };
        show.text(&summary.lines(show.style()))?;
        show.note(at, &summary.note())?;
        Ok(match (interrupted, summary.kept()) {
            (true, _) => ExitCode::from(interrupt::STATUS),
            (false, true) => ExitCode::SUCCESS,
            (false, false) => ExitCode::FAILURE,
        })
    }

    fn note(&mut self, note: &Note) -> io::Result<()> {
        self.show.note(self.start.elapsed(), note)
    }
}

/// Traffic is on the WebSocket, and there is one.
fn carries(ml_node: &Status) -> bool {
    ml_node.path == Path::WebSocket && ml_node.connection.is_some()
}
