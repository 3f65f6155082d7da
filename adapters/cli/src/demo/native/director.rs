//! Runs the script: every few milliseconds it sends what is due in both directions, takes in what became of it, and looks
//! whether it is time for the next fault.
//!
//! Decided here: when a phase is over, and when the run is: when every message has come to its end and the WebSocket is
//! back, or a bounded time after the last fault was taken away.

use super::super::Args;
use super::super::director::Failure;
use super::super::note::{Note, seconds};
use super::super::scale::Scale;
use super::super::script::{Phase, Strain};
use super::super::show::{self, Show};
use super::super::watch::Watch;
use super::ledger::{Judgement, Ledger};
use super::picture::{self, View};
use super::script::{self, BURST, CUT_EVERY, CUTS, Cut, HOLD, SCRIPT};
use super::summary::Summary;
use super::wire::{Crossing, Totals, Traffic, Wire};
use super::world::{Told, World};
use super::{Both, Way};
use crate::interrupt::{self, Interrupt};
use bowline::marks::WINDOW;
use bowline::{Event, Path, Reason};
use bowline_cli::proxy::Fault;
use bowline_smol::hub::{self, HubStats};
use bowline_transport::Status;
use core::time::Duration;
use serde_json::json;
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(2);

/// In the last phase nothing may stand still for longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is under way at an interruption has so long.
const STOPPING: Duration = Duration::from_secs(5);

/// A closing client finishes what is under way for so long, and the ledger hears of it a moment later.
const DRAIN: Duration = Duration::from_secs(1);
const HEARSAY: Duration = Duration::from_secs(1);

/// What a message has on the WebSocket, about.
const SIZE: u64 = 220;

/// Runs the scene.
pub(in super::super) fn run(args: &Args) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::listen(|| (), show::give_back_terminal)?;
    let ledger = Arc::new(Ledger::new(args.seed));
    let wire = Arc::new(Wire::default());
    let world = World::start(args.time_scale, args.seed, &ledger, &wire)?;
    Director::new(args, interrupt, ledger, wire, world).run()
}

/// How it stood when the last phase ended.
struct Before {
    client: Status,
    hub: HubStats,
    totals: Totals,
}

struct Director<'a> {
    args: &'a Args,
    scale: Scale,
    interrupt: Interrupt,
    ledger: Arc<Ledger>,
    wire: Arc<Wire>,
    world: World,
    show: Show,
    start: Instant,
    phase: usize,
    phase_start: Instant,
    before: Before,
    websocket: Fault,
    http: Fault,
    /// How many cuts there were in this phase, and how many crossings when the next is due, if it does not wait for its time.
    cuts: u32,
    cut_after: Option<usize>,
    sent: Both<u64>,
    /// How many were delivered, and since when it is not more.
    arrived: (u64, Instant),
    watch: Watch,
    /// Traffic was on the WebSocket at the last look.
    carries: bool,
    /// Traffic has come back to the WebSocket since the phase began.
    returned: bool,
    /// Messages that the sessions say will never come.
    gaps: u64,
    /// Since when we are only waiting for what is under way.
    stopping: Option<Instant>,
}

impl<'a> Director<'a> {
    fn new(args: &'a Args, interrupt: Interrupt, ledger: Arc<Ledger>, wire: Arc<Wire>, world: World) -> Self {
        let now = Instant::now();
        let before = Before { client: world.client.status(), hub: world.hub(), totals: Totals::default() };
        Self {
            args,
            scale: args.time_scale,
            interrupt,
            ledger,
            wire,
            world,
            show: Show::new(args.json),
            start: now,
            phase: 0,
            phase_start: now,
            before,
            websocket: Fault::Calm,
            http: Fault::Calm,
            cuts: 0,
            cut_after: None,
            sent: Both::default(),
            arrived: (0, now),
            watch: Watch::default(),
            carries: false,
            returned: false,
            gaps: 0,
            stopping: None,
        }
    }

    fn run(mut self) -> Result<ExitCode, Failure> {
        self.introduce()?;
        self.begin_phase()?;
        loop {
            let now = Instant::now();
            let client = self.world.client.status();
            let carried = core::mem::replace(&mut self.carries, carries(&client));
            self.returned |= self.carries && !carried;
            self.watch.look(now, client.connection);
            let arrived = Way::BOTH.into_iter().map(|way| self.ledger.progress(way).0).sum();
            if arrived > self.arrived.0 {
                self.arrived = (arrived, now);
            }
            self.listen()?;
            self.tell_crossings(false)?;
            self.send(now)?;
            if self.interrupt.asked() && self.stopping.is_none() {
                self.stop(now)?;
            }
            if self.over(now) {
                break;
            }
            if self.stopping.is_none() {
                self.cut(now);
                if self.phase_over(now) {
                    self.end_phase()?;
                    self.phase += 1;
                    self.begin_phase()?;
                }
            }
            self.draw(now, &client)?;
            thread::sleep(LOOK);
        }
        self.finish()
    }

    fn introduce(&mut self) -> io::Result<()> {
        let (Args { time_scale, seed, .. }, messages) = (self.args, self.args.messages());
        let length = self.scale.of(script::length());
        self.show.text(&[
            String::new(),
            format!("  A native client and its hub send {messages} messages each, over real sockets;"),
            "  proxies between them break the WebSocket, then HTTP, and see what crosses.".into(),
            format!("  Seed {seed}, every timer {time_scale}: about {:.0} s.", length.as_secs_f64()),
            String::new(),
        ])?;
        let note = Note::new("start")
            .field("scene", "native")
            .field("messages", messages)
            .field("time_scale", time_scale.factor())
            .field("seed", *seed)
            .field("script_seconds", seconds(length));
        self.note(&note)
    }

    fn begin_phase(&mut self) -> io::Result<()> {
        let Some(Phase { name, broken, expected, websocket, http, .. }) = SCRIPT.get(self.phase) else { return Ok(()) };
        let need = self.need();
        self.set(websocket.fault(need), http.fault(need));
        self.phase_start = Instant::now();
        (self.cuts, self.cut_after) = (0, None);
        self.returned = false;
        let note = Note::new("phase")
            .heading(format!("{}/{} {name}: {broken}", self.phase + 1, SCRIPT.len()))
            .field("phase", *name)
            .field("broken", *broken)
            .field("expected", *expected);
        self.note(&note)
    }

    /// Bytes per second that each direction needs on the WebSocket.
    fn need(&self) -> u64 {
        let millis = u64::try_from(self.scale.of(script::sending()).as_millis()).unwrap_or(u64::MAX).max(1);
        self.args.messages().saturating_mul(SIZE).saturating_mul(1000) / millis
    }

    /// Sets what has changed: setting a reset again would reset again.
    fn set(&mut self, websocket: Fault, http: Fault) {
        if self.websocket != websocket {
            self.world.websocket.set(websocket);
            self.websocket = websocket;
        }
        if self.http != http {
            self.world.http.set(http);
            self.http = http;
        }
    }

    /// Resets, where that is the fault and it is time: the first time when the phase begins.
    fn cut(&mut self, now: Instant) {
        let resets = SCRIPT.get(self.phase).is_some_and(|phase| phase.websocket == Strain::Fault(Fault::Reset));
        let Some(cut) = CUTS.get(self.cuts as usize).filter(|_| resets) else { return };
        let crossings = self.wire.crossings();
        if self.cut_after.take_if(|before| crossings > *before).is_some() {
            self.world.websocket.set(Fault::Reset);
        }
        let due = self.scale.of(CUT_EVERY) * (self.cuts + 1);
        let passed = now - self.phase_start;
        // In the next burst, if there is one.
        let full = Way::BOTH.into_iter().all(|way| self.ledger.progress(way).1 >= WINDOW / 2);
        if passed >= due && (full || passed >= due + self.scale.of(BURST)) {
            self.cut_after = (*cut == Cut::Twice).then_some(crossings);
            self.websocket = Fault::Reset;
            self.world.websocket.set(Fault::Reset);
            self.cuts += 1;
        } else if let Cut::Held(way) = *cut
            && passed + self.scale.of(HOLD) >= due
        {
            self.set(Fault::Silence(way), self.http);
        }
    }

    fn phase_over(&self, now: Instant) -> bool {
        let last = self.phase + 1 >= SCRIPT.len();
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| !last) else { return false };
        let passed = now - self.phase_start;
        passed >= self.scale.of(phase.lasts)
            && phase.at_most.is_none_or(|most| self.carries || self.returned || passed >= self.scale.of(most))
    }

    fn under_way(&self) -> u64 {
        Way::BOTH.into_iter().map(|way| self.ledger.progress(way).1).sum()
    }

    fn over(&self, now: Instant) -> bool {
        let ended = self.under_way() == 0;
        if let Some(since) = self.stopping {
            return ended || now - since >= STOPPING;
        }
        let Some(phase) = SCRIPT.get(self.phase).filter(|_| self.phase + 1 == SCRIPT.len()) else { return false };
        let passed = now - self.phase_start;
        let most = self.scale.of(phase.at_most.unwrap_or(phase.lasts));
        let all = ended && self.sent.iter().all(|sent| *sent == self.args.messages());
        let back = self.carries || passed >= most;
        all && back && passed >= self.scale.of(phase.lasts) || passed >= most && now - self.arrived.1 >= PATIENCE
    }

    /// Sends what is due. Where there is no room it is tried again at the next look: that is how it should be.
    fn send(&mut self, now: Instant) -> Result<(), Failure> {
        if self.stopping.is_some() {
            return Ok(());
        }
        let (messages, passed) = (self.args.messages(), now - self.start);
        let sending = self.scale.of(script::sending()).as_micros().max(1);
        let burst = self.scale.of(BURST).as_micros().max(1);
        let due = u128::from(messages) * (passed.as_micros() / burst + 1) * burst / sending;
        let due = u64::try_from(due).unwrap_or(u64::MAX).min(messages);
        for way in Way::BOTH {
            while *self.sent.of(way) < due && self.world.send(way, self.sent.of(way) + 1)? {
                *self.sent.of_mut(way) += 1;
            }
        }
        Ok(())
    }

    /// What both told.
    fn listen(&mut self) -> io::Result<()> {
        while let Ok(told) = self.world.told.try_recv() {
            match told {
                Told::Client(Event::Down { reason: why, .. }) => {
                    let what = match why {
                        Reason::PortClosed | Reason::Timeout | Reason::Status(_) => "an attempt",
                        _ => "the WebSocket",
                    };
                    let note = Note::new("down").words(format!("{what}: {}", why));
                    self.note(&note.field("reason", format!("{why:?}")))?;
                }
                Told::Client(Event::Path { to, .. }) => {
                    let words = match to {
                        Path::WebSocket => "the client sends by WebSocket",
                        Path::Http => "the client sends and polls by HTTP",
                    };
                    self.note(&Note::new("path").words(words).field("to", to.to_string()))?;
                }
                Told::Client(Event::Gap { .. }) | Told::Hub(hub::Event::Gap { .. }) => self.gaps += 1,
                Told::Client(_) | Told::Hub(_) => {}
            }
        }
        Ok(())
    }

    /// Tells of each WebSocket, when it is plain what crossed again on it.
    fn tell_crossings(&mut self, all: bool) -> io::Result<()> {
        while let Some((place, crossing)) = self.wire.news(all) {
            let Crossing { resumed, traffic, .. } = crossing;
            let of = |way| {
                let Traffic { unanswered, again, .. } = *traffic.of(way);
                format!("{} of {unanswered} ({})", again.messages, bytes(again.bytes))
            };
            let words = if place == 0 {
                "WebSocket 1".into()
            } else {
                let how = if resumed { "resumed" } else { "began anew" };
                let (up, down) = (of(Way::ToHub), of(Way::ToClient));
                format!("WebSocket {} {how}; crossed again: {up} to the hub, {down} back", place + 1)
            };
            let mut note = Note::new("connected").words(words).field("connection", place + 1).field("resumed", resumed);
            for way in Way::BOTH {
                let Traffic { unanswered, again, needless, .. } = *traffic.of(way);
                note = note.field(
                    way.name(),
                    json!({"unanswered": unanswered, "again": again.messages, "again_bytes": again.bytes, "needless": needless}),
                );
            }
            self.note(&note)?;
        }
        Ok(())
    }

    fn end_phase(&mut self) -> io::Result<()> {
        let Some(phase) = SCRIPT.get(self.phase) else { return Ok(()) };
        let now = Before { client: self.world.client.status(), hub: self.world.hub(), totals: self.wire.totals() };
        let (client, hub) = (now.client.stats, now.hub);
        let (client_before, hub_before) = (self.before.client.stats, self.before.hub);
        let websocket = Both {
            to_hub: client.delivered_websocket - client_before.delivered_websocket,
            to_client: hub.settled_websocket - hub_before.settled_websocket,
        };
        let http = Both {
            to_hub: client.delivered_http - client_before.delivered_http,
            to_client: hub.settled_http - hub_before.settled_http,
        };
        let copies = client.duplicates - client_before.duplicates + hub.duplicates - hub_before.duplicates;
        let cuts = now.totals.crossings.len() - self.before.totals.crossings.len();
        let waiting = self.under_way();
        let words = format!(
            "  to the hub {} by WebSocket, {} by HTTP; to the client {}, {}; {copies} copies",
            websocket.to_hub, http.to_hub, websocket.to_client, http.to_client
        );
        let note = Note::new("phase_end")
            .words(words)
            .field("phase", phase.name)
            .field("to_hub_websocket", websocket.to_hub)
            .field("to_hub_http", http.to_hub)
            .field("to_client_websocket", websocket.to_client)
            .field("to_client_http", http.to_client)
            .field("duplicates_dropped", copies)
            .field("connections", cuts)
            .field("connection_attempts", client.attempts - client_before.attempts)
            .field("waiting", waiting)
            .field("path", now.client.path.to_string());
        self.before = now;
        self.note(&note)
    }

    fn stop(&mut self, now: Instant) -> io::Result<()> {
        self.stopping = Some(now);
        self.set(Fault::Calm, Fault::Calm);
        let under_way = self.under_way();
        let words = format!("stopping: {under_way} messages are under way");
        self.note(&Note::new("interrupted").heading(words).field("under_way", under_way))
    }

    fn draw(&mut self, now: Instant, client: &Status) -> io::Result<()> {
        let rest = SCRIPT.iter().skip(self.phase).map(|phase| self.scale.of(phase.lasts)).sum::<Duration>();
        let lasts = SCRIPT.get(self.phase).map(|phase| self.scale.of(phase.lasts)).unwrap_or_default();
        let view = View {
            phase: self.stopping.is_none().then_some(self.phase),
            left: rest.saturating_sub((now - self.phase_start).min(lasts)),
            client,
            websocket: self.websocket,
            http: self.http,
            messages: self.args.messages(),
            sent: self.sent,
            delivered: Both::each(|way| self.ledger.progress(way).0),
            connections: self.watch.connections(),
        };
        self.show.frame(|style| picture::lines(&view, style))
    }

    fn finish(mut self) -> Result<ExitCode, Failure> {
        let interrupted = self.stopping.is_some();
        self.listen()?;
        self.tell_crossings(true)?;
        if !interrupted {
            self.end_phase()?;
        }
        let outage = self.watch.longest(Instant::now());
        let at = self.start.elapsed();
        self.show.end()?;
        let Self { world, mut show, ledger, wire, args, gaps, .. } = self;
        let ended = world.end(DRAIN);
        let until = Instant::now() + HEARSAY;
        while Way::BOTH.into_iter().any(|way| ledger.progress(way).1 > 0) && Instant::now() < until {
            thread::sleep(LOOK);
        }
        let judgement: Both<Judgement> = Both::each(|way| ledger.judge(way, interrupted));
        let totals = wire.totals();
        let summary = Summary { args, judgement, totals, ended, outage, gaps, interrupted, ran: at };
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

/// So many bytes, in words.
fn bytes(count: u64) -> String {
    if count < 10_000 { format!("{count} B") } else { format!("{} kB", count / 1000) }
}

/// Traffic is on the WebSocket, and there is one.
fn carries(client: &Status) -> bool {
    client.path == Path::WebSocket && client.connection.is_some()
}
