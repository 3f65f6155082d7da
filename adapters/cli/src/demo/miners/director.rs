//! Runs the script: every few milliseconds it lets miners predict what is due, publishes updates, takes in what became
//! of predictions, and looks whether it is time for the next fault.
//!
//! Decided here: when a phase is over, and when the run is: when every prediction has come to its end and every miner is
//! back, or a bounded time after the last fault was taken away.

use super::super::Args;
use super::super::director::Failure;
use super::super::note::{Note, seconds};
use super::super::scale::Scale;
use super::super::show::{self, Show};
use super::ledger::{Id, Ledger};
use super::peak::busiest;
use super::picture::{self, View};
use super::script::{self, Act, Phase, SCRIPT};
use super::summary::Summary;
use super::world::World;
use crate::interrupt::{self, Interrupt};
use bowline::{Refusal, SplitMix64};
use bowline_cli::proxy::Fault;
use bowline_smol::hub::Event;
use bowline_transport::{Receipt, Refused};
use core::time::Duration;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Between two predictions of one miner, on average.
const PREDICT: Duration = Duration::from_secs(8);

/// Between two updates.
const UPDATE: Duration = Duration::from_secs(2);

/// A hub that goes down in order has so long, and its miners come back within this.
const DRAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(12));

/// For the first connections. Without all of them the scene begins all the same.
const SETTLING: Duration = Duration::from_secs(10);

/// Added to the last phase: some limits of the sessions do not scale.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is under way at an interruption has so long.
const STOPPING: Duration = Duration::from_secs(5);

/// Closing miners finish what is under way for so long.
const CLOSING: Duration = Duration::from_secs(1);

/// Runs the scene.
pub(in super::super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen(|| (), show::give_back_terminal)?;
    let ledger = Arc::new(Ledger::default());
    let world = World::start(args.miners().into(), args.time_scale, args.seed, &ledger)?;
    Director::new(args, interrupt, ledger, world).run()
}

/// When a miner predicts next, and how many it has.
struct Miner {
    due: Instant,
    number: u32,
    rng: SplitMix64,
}

struct Director<'a> {
    args: &'a Args,
    scale: Scale,
    interrupt: Interrupt,
    ledger: Arc<Ledger>,
    world: World,
    show: Show,
    miners: Vec<Miner>,
    start: Instant,
    phase: usize,
    phase_start: Instant,
    /// When a hub begins anew.
    begins: Option<Instant>,
    open: Vec<(Id, Receipt)>,
    accepted: u64,
    ended: u64,
    updates: u64,
    next_update: Instant,
    /// When miners came, in this phase.
    came: Vec<Instant>,
    /// The busiest 100 ms of any phase, and how many connections there were.
    peak: usize,
    connections: usize,
    /// How it stood when the phase began.
    before: (u64, u64),
    /// Since when we are only waiting for what is under way.
    stopping: Option<Instant>,
}

impl<'a> Director<'a> {
    fn new(args: &'a Args, interrupt: Interrupt, ledger: Arc<Ledger>, world: World) -> Self {
        let now = Instant::now();
        let mut all = SplitMix64::for_identity(args.seed, 1);
        let miner = |_| Miner { due: now, number: 0, rng: SplitMix64::new(all.next_u64()) };
        Self {
            args,
            scale: args.time_scale,
            interrupt,
            ledger,
            world,
            show: Show::new(args.json),
            miners: (0..args.miners()).map(miner).collect(),
            start: now,
            phase: 0,
            phase_start: now,
            begins: None,
            open: Vec::new(),
            accepted: 0,
            ended: 0,
            updates: 0,
            next_update: now,
            came: Vec::new(),
            peak: 0,
            connections: 0,
            before: (0, 0),
            stopping: None,
        }
    }

    fn run(mut self) -> Result<ExitCode, Failure> {
        self.introduce()?;
        while self.world.connected() < self.miners.len() && self.start.elapsed() < SETTLING && !self.interrupt.asked() {
            thread::sleep(LOOK);
        }
        let now = Instant::now();
        let first = self.wait_between();
        for miner in &mut self.miners {
            miner.due = now + first.mul_f64(part(&mut miner.rng));
        }
        self.begin_phase()?;
        loop {
            let now = Instant::now();
            self.listen();
            self.revive(now)?;
            self.predict(now)?;
            self.publish(now);
            self.collect();
            if self.interrupt.asked() && self.stopping.is_none() {
                self.stop(now)?;
            }
            if self.over(now) {
                break;
            }
            if self.stopping.is_none() && self.phase_over(now) {
                self.end_phase()?;
                self.phase += 1;
                self.begin_phase()?;
            }
            self.draw()?;
            thread::sleep(LOOK);
        }
        self.finish()
    }

    fn introduce(&mut self) -> io::Result<()> {
        let Args { time_scale, seed, .. } = self.args;
        let miners = self.args.miners();
        let length = self.scale.of(script::length());
        self.show.text(&[
            String::new(),
            format!("  A validator and {miners} miners, over real sockets; proxies between them break"),
            "  connections, and the validator's hub is killed and restarted.".into(),
            format!(
                "  Seed {seed}, every timer {time_scale}: about {:.0} to {:.0} s.",
                secs(length),
                2.0 * secs(length)
            ),
            String::new(),
        ])?;
        let note = Note::new("start")
            .field("scene", "miners")
            .field("miners", miners)
            .field("time_scale", time_scale.factor())
            .field("seed", *seed)
            .field("script_seconds", seconds(length));
        self.note(&note)
    }

    fn begin_phase(&mut self) -> Result<(), Failure> {
        let Some(Phase { name, broken, expected, act, .. }) = SCRIPT.get(self.phase) else { return Ok(()) };
        let note = Note::new("phase")
            .heading(format!("{}/{} {name}: {broken}", self.phase + 1, SCRIPT.len()))
            .field("phase", *name)
            .field("broken", *broken)
            .field("expected", *expected);
        self.note(&note)?;
        match *act {
            Act::Way(fault) => self.world.way(fault),
            Act::SomeSlow => self.world.some(script::slow()),
            Act::Kill(down) => {
                self.world.kill();
                self.begins = Some(Instant::now() + self.scale.of(down));
            }
            Act::Restart => {
                self.world.way(Fault::Calm);
                self.world.drain(self.scale.of(DRAIN.1), self.scale.of(DRAIN.0))?;
            }
        }
        self.phase_start = Instant::now();
        Ok(())
    }

    /// Begins a hub anew, when it is time.
    fn revive(&mut self, now: Instant) -> Result<(), Failure> {
        let due = self.begins.take_if(|begins| now >= *begins).is_some();
        if due || self.world.drained() {
            self.world.begin()?;
            self.world.way(Fault::Calm);
            let words = format!("hub {} begins on the same port, and knows nothing", self.world.hubs);
            self.note(&Note::new("hub").words(words).field("hub", self.world.hubs))?;
        }
        Ok(())
    }

    fn all_back(&self) -> bool {
        self.begins.is_none() && self.world.serves() && self.world.connected() >= self.miners.len()
    }

    fn phase_over(&self, now: Instant) -> bool {
        let last = self.phase + 1 >= SCRIPT.len();
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| !last) else { return false };
        let passed = now - self.phase_start;
        let whole = self.begins.is_none() && self.world.serves();
        let back = phase.at_most.is_none_or(|most| self.all_back() || passed >= self.scale.of(most));
        passed >= self.scale.of(phase.lasts) && whole && back
    }

    fn over(&self, now: Instant) -> bool {
        let ended = self.open.is_empty();
        if let Some(since) = self.stopping {
            return ended || now - since >= STOPPING;
        }
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| self.phase + 1 == SCRIPT.len()) else { return false };
        let passed = now - self.phase_start;
        let most = self.scale.of(phase.at_most.unwrap_or(phase.lasts));
        let enough = passed >= self.scale.of(phase.lasts);
        ended && enough && self.all_back() || passed >= most + PATIENCE
    }

    fn end_phase(&mut self) -> io::Result<()> {
        self.listen();
        let Some(phase) = SCRIPT.get(self.phase) else { return Ok(()) };
        let (busiest, came) = self.count();
        let (connected, waiting) = (self.world.connected(), self.world.backlog());
        let (accepted, ended) = (self.accepted - self.before.0, self.ended - self.before.1);
        self.before = (self.accepted, self.ended);
        let words = format!(
            "  {accepted} predicted, {ended} ended, {waiting} wait; {connected} connected, {came} came, {busiest} at once"
        );
        let note = Note::new("phase_end")
            .words(words)
            .field("phase", phase.name)
            .field("predicted", accepted)
            .field("ended", ended)
            .field("waiting", waiting)
            .field("connected", connected)
            .field("connections", came)
            .field("busiest_100_ms", busiest);
        self.note(&note)
    }

    /// The most that came in 100 ms of this phase, and how many came in all.
    fn count(&mut self) -> (usize, usize) {
        let came = core::mem::take(&mut self.came);
        let busiest = busiest(&came);
        // The first connections of all are no reconnection.
        if self.phase > 0 {
            self.peak = self.peak.max(busiest);
        }
        (busiest, came.len())
    }

    /// What the hubs told.
    fn listen(&mut self) {
        while let Ok((at, event)) = self.world.told.try_recv() {
            if matches!(event, Event::Connected { .. }) {
                self.came.push(at);
                self.connections += 1;
            }
        }
    }

    /// Whether miners still predict: in the last phase only at its beginning.
    fn predicts(&self, now: Instant) -> bool {
        let last = self.phase + 1 >= SCRIPT.len();
        let lasts = SCRIPT.get(self.phase).map(|phase| self.scale.of(phase.lasts)).unwrap_or_default();
        self.stopping.is_none() && (!last || now - self.phase_start < lasts / 2)
    }

    fn wait_between(&self) -> Duration {
        2 * self.scale.of(PREDICT)
    }

    /// Predicts what is due. If an outbox is full, it is tried again at the next look: that is how it should be.
    fn predict(&mut self, now: Instant) -> Result<(), Failure> {
        if !self.predicts(now) {
            return Ok(());
        }
        let most = self.wait_between();
        for (index, miner) in self.miners.iter_mut().enumerate() {
            if now < miner.due {
                continue;
            }
            let id = (index, miner.number);
            match self.world.predict(id) {
                Some(Ok((receipt, bad))) => {
                    self.ledger.accepted(id, bad);
                    self.open.push((id, receipt));
                    self.accepted += 1;
                }
                Some(Err(error)) if error.why == Refused::Session(Refusal::Full) => continue,
                Some(Err(error)) => return Err(Failure::Other(format!("a prediction was refused: {error}"))),
                None => continue,
            }
            miner.number += 1;
            miner.due = now + most.mul_f64(part(&mut miner.rng));
        }
        Ok(())
    }

    fn publish(&mut self, now: Instant) {
        if now < self.next_update || !self.world.serves() {
            return;
        }
        self.next_update = now + self.scale.of(UPDATE);
        if self.world.publish(self.updates + 1).is_some() {
            self.updates += 1;
        }
    }

    /// Takes the ends of predictions.
    fn collect(&mut self) {
        let (ledger, ended) = (&self.ledger, &mut self.ended);
        self.open.retain(|(id, receipt)| match receipt.try_settled() {
            Some(settlement) => {
                ledger.settled(*id, settlement);
                *ended += 1;
                false
            }
            None => true,
        });
    }

    fn stop(&mut self, now: Instant) -> io::Result<()> {
        self.stopping = Some(now);
        if self.begins.is_none() {
            self.world.way(Fault::Calm);
        }
        let words = format!("stopping: {} predictions are under way", self.open.len());
        self.note(&Note::new("interrupted").heading(words).field("under_way", self.open.len()))
    }

    fn draw(&mut self) -> io::Result<()> {
        let (world, stopping) = (&self.world, self.stopping.is_some());
        let view = View {
            phase: (!stopping).then_some(self.phase),
            hub: world.serves().then_some(world.hubs),
            miners: self.miners.len(),
            connected: world.connected(),
            accepted: self.accepted,
            ended: self.ended,
            updates: self.updates,
        };
        self.show.frame(|style| picture::lines(&view, style))
    }

    fn finish(mut self) -> Result<ExitCode, Failure> {
        let interrupted = self.stopping.is_some();
        if interrupted {
            self.listen();
            self.count();
        } else {
            self.end_phase()?;
        }
        let at = self.start.elapsed();
        self.show.end()?;
        let Self { world, mut show, ledger, open, args, updates, peak, connections, .. } = self;
        let (sums, hubs) = (world.sums(), world.hubs);
        let in_time = world.end(CLOSING);
        for (id, receipt) in open {
            if let Some(settlement) = receipt.try_settled() {
                ledger.settled(id, settlement);
            }
        }
        let judgement = ledger.judge(interrupted);
        let summary =
            Summary { args, judgement, sums, hubs, updates, peak, connections, in_time, interrupted, ran: at };
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

fn secs(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// A draw between 0 and 1.
fn part(rng: &mut SplitMix64) -> f64 {
    const FINE: u32 = 1 << 20;
    f64::from(u32::try_from(rng.up_to(FINE.into())).unwrap_or(FINE)) / f64::from(FINE)
}
