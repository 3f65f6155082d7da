//! A session between stdin and stdout, whatever its wire.
//!
//! ```text
//!  input ── a line ─▶ permit ─▶ send, waiting for room ─▶ receipt ─▶ a task ─▶ confirmation, permit back
//!                                                └─▶ refused, permit back
//!  messages ─▶ message, written ─▶ complete; or kept until a line says what became of it
//!  events ─▶ state, path, down
//!  main: waits for an end: of the input, by Ctrl-C, of the output, of the session
//! ```
//!
//! Decided here: what a line means. Invariants: every line in has one line out; no more than `UNDER_WAY` are between the
//! two; the session never waits for the output; what was accepted, and what was handed out, is counted in one column of
//! the last line each. Rules: L10, L13.

use super::{Args, Profile};
use crate::advice::Advice;
use crate::interrupt::Interrupt;
use crate::life::{End, Failure, UnderWay, spawn, told, within};
use crate::node::Node;
use crate::pipe::{self, Line, Out};
use crate::words;
use bowline::wire::bettensor;
use bowline::{Event, Outcome, RetryClass, State, retry_class};
use bowline_smol::{Hotkey, Kind};
use bowline_transport::{Bettensor, Gonka, Message, Receipt, Setup, Wire};
use core::time::Duration;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

/// Lines that may be between input and output: more than any outbox holds.
const UNDER_WAY: usize = 1024;

/// After its drain a session closes within 2 s; this is for a machine that is busy.
const CLOSING: Duration = Duration::from_secs(10);

/// What a wire says differently.
pub(super) trait Speaks: Wire {
    /// Sends, waiting for room.
    fn send(node: &Node<Self>, kind: &str, data: &str) -> Result<Receipt, String>;
    /// Type and data of a message.
    fn content(message: &Message<Self>) -> (&str, &str);
    /// What the peer found wrong with us: how often, and the last.
    fn complaints(node: &Node<Self>) -> (u64, Option<String>);
}

impl Speaks for Bettensor {
    fn send(node: &Node<Self>, kind: &str, data: &str) -> Result<Receipt, String> {
        node.send(kind, data.to_owned()).map_err(|error| error.to_string())
    }

    fn content(message: &Message<Self>) -> (&str, &str) {
        (message.kind(), core::str::from_utf8(message.data()).unwrap_or("null"))
    }

    fn complaints(node: &Node<Self>) -> (u64, Option<String>) {
        let complaints = node.complaints();
        (complaints.total, complaints.last)
    }
}

impl Speaks for Gonka {
    fn send(node: &Node, kind: &str, data: &str) -> Result<Receipt, String> {
        let kind = Kind::parse(kind).ok_or("a type of generated or validated is needed")?;
        node.send(kind, data.to_owned()).map_err(|error| error.to_string())
    }

    fn content(message: &Message) -> (&str, &str) {
        (message.kind().as_str(), core::str::from_utf8(message.json()).unwrap_or("null"))
    }

    fn complaints(_: &Node) -> (u64, Option<String>) {
        (0, None)
    }
}

/// A line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    /// A verdict's.
    delivery: Option<u64>,
    after: Option<f64>,
}

/// What became of the lines, and of the messages that were handed out: what of `accepted` is in none of the three columns
/// after it was abandoned, and `messages` is the sum of the three after it.
#[derive(Clone, Copy, Default)]
struct Tally {
    accepted: u64,
    delivered: u64,
    rejected: u64,
    expired: u64,
    refused: u64,
    messages: u64,
    completed: u64,
    declined: u64,
    given_back: u64,
}

/// Messages that were handed out and not judged.
struct Held<W: Wire> {
    /// Further ones are handed out.
    open: bool,
    messages: BTreeMap<u64, Message<W>>,
}

struct Shared<W: Wire> {
    node: Node<W>,
    /// The peer's, as it was given.
    url: Option<String>,
    out: Out,
    /// Lines are verdicts on messages.
    judges: bool,
    held: Mutex<Held<W>>,
    tally: Mutex<Tally>,
    under_way: UnderWay,
}

/// Runs until an end.
pub(super) fn run<W: Speaks>(args: &Args, setup: Setup<W>, hotkey: Option<Hotkey>) -> Result<ExitCode, Failure> {
    let (tell, ends) = mpsc::channel();
    let _interrupt = Interrupt::listen(told(&tell, End::Interrupted), || ())?;
    let node = Node::start(args.adapter, setup)?;
    let (out, writer) = Out::start(io::stdout(), told(&tell, End::Output))?;
    let address = node.address().map(|address| address.to_string());
    out.write(
        Line::event("start")
            .field("profile", args.profile.name())
            .maybe("hotkey", hotkey.map(|hotkey| hotkey.to_string()))
            .field("address", address),
    );
    let judges = args.profile == Profile::GonkaApiNode && !args.accept;
    let shared = Arc::new(Shared {
        node,
        url: args.url.clone(),
        out: out.clone(),
        judges,
        held: Mutex::new(Held { open: true, messages: BTreeMap::new() }),
        tally: Mutex::default(),
        under_way: UnderWay::new(UNDER_WAY),
    });
    let work = |work: fn(&Arc<Shared<W>>)| {
        let shared = Arc::clone(&shared);
        move || work(&shared)
    };
    let events = spawn("events", work(Shared::events), told(&tell, End::Session))?;
    let messages = spawn("messages", work(Shared::messages), || ())?;
    if judges || args.profile != Profile::GonkaApiNode {
        spawn("input", work(Shared::input), told(&tell, End::Input))?;
    }

    let end = ends.recv().unwrap_or(End::Session);
    let limit = Instant::now() + args.drain + CLOSING;
    shared.held().open = false;
    let last = shared.node.status().websocket.last;
    shared.node.begin_close(args.drain);
    let mut in_time = within(limit, move || events.join().is_ok() && messages.join().is_ok());
    in_time &= shared.under_way.close(limit);
    shared.give_back();
    let ended = Arc::clone(&shared);
    out.end(move || {
        let tally = *ended.tally();
        Line::event("end")
            .field("accepted", tally.accepted)
            .field("delivered", tally.delivered)
            .field("rejected", tally.rejected)
            .field("expired", tally.expired)
            // One whose end nobody heard of in time was abandoned, as far as anybody can say.
            .field("abandoned", tally.accepted - tally.delivered - tally.rejected - tally.expired)
            .field("refused", tally.refused)
            .field("messages", tally.messages)
            .field("completed", tally.completed)
            .field("declined", tally.declined)
            .field("given_back", tally.given_back)
    });
    in_time &= within(limit, move || writer.join().is_ok());
    let tally = *shared.tally();
    let unfinished = tally.accepted - tally.delivered - tally.rejected;
    Ok(match end {
        End::Output => ExitCode::FAILURE,
        End::Session => {
            let reason = last.as_ref().map(|last| last.reason);
            // The only other end of a session by itself (rules B10, R8).
            let replaced = reason.is_none_or(|reason| retry_class(&[], reason) == RetryClass::Replaced);
            let what = if replaced { "another connection has its place" } else { "given up" };
            eprintln!("bowline: {what}{}", last.map(|last| format!(": {last}")).unwrap_or_default());
            if replaced { ExitCode::FAILURE } else { ExitCode::from(4) }
        }
        End::Input | End::Interrupted if unfinished > 0 || !in_time => ExitCode::from(3),
        End::Input | End::Interrupted if tally.refused > 0 => ExitCode::from(5),
        End::Input | End::Interrupted => ExitCode::SUCCESS,
    })
}

impl<W: Speaks> Shared<W> {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Held<W>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody will judge what was handed out: its sender sends it again later.
    fn give_back(&self) {
        let held = core::mem::take(&mut self.held().messages);
        self.tally().given_back += u64::try_from(held.len()).unwrap_or(u64::MAX);
        // Each of them tells the session.
        drop(held);
    }

    fn input(self: &Arc<Self>) {
        pipe::lines(io::stdin().lock(), |number, line| {
            if !self.under_way.begin() {
                return false;
            }
            match line.map_err(Into::into).and_then(|line| self.take(number, line)) {
                Ok(()) => {}
                Err(Unwanted { prediction_id, why }) => {
                    let line = Line::event("refused").field("line", number).maybe("prediction_id", prediction_id);
                    self.out.write(line.field("why", why));
                    self.end(|tally| tally.refused += 1);
                }
            }
            true
        });
        if self.judges {
            self.held().open = false;
            self.give_back();
        }
    }

    fn take(self: &Arc<Self>, number: u64, line: &str) -> Result<(), Unwanted> {
        let said: Said<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if self.judges {
            self.judge(&said)?;
            self.end(|_| ());
            return Ok(());
        }
        let data = said.data.ok_or("there is no data")?.get();
        let prediction_id = bettensor::prediction_id(data).ok().map(Cow::into_owned);
        if said.delivery.or(said.after.map(|_| 0)).is_some() {
            return Err("delivery and after are for a gonka-api-node".into());
        }
        match W::send(&self.node, &said.kind, data) {
            Err(why) => Err(Unwanted { prediction_id, why: why.into() }),
            Ok(receipt) => {
                self.tally().accepted += 1;
                if receipt.after().is_some() {
                    let waits = Line::event("waits").field("line", number);
                    self.out.write(waits.maybe("prediction_id", prediction_id.as_deref()));
                }
                let shared = Arc::clone(self);
                smol::spawn(async move { shared.confirm(number, prediction_id, receipt).await }).detach();
                Ok(())
            }
        }
    }

    async fn confirm(&self, number: u64, prediction_id: Option<String>, receipt: Receipt) {
        let settlement = receipt.settled().await;
        let (outcome, path) = words::outcome(settlement.outcome);
        let mut line = Line::event("confirmation")
            .field("line", number)
            .maybe("prediction_id", prediction_id)
            .field("outcome", outcome)
            .maybe("path", path.map(|path| path.to_string()))
            .field("seconds", (settlement.took.as_secs_f64() * 1000.0).round() / 1000.0);
        if let Some(reason) = settlement.reason {
            line = words::explained(line, reason, None);
        }
        if let Some(reply) = receipt.reply() {
            line = line.field("message", reply.message.as_str());
            if let Some(stats) = &reply.miner_stats {
                line = line.json("miner_stats", stats);
            }
        }
        self.out.say(line).await;
        self.end(|tally| match settlement.outcome {
            Outcome::Delivered { .. } => tally.delivered += 1,
            Outcome::Rejected(_) => tally.rejected += 1,
            Outcome::Expired => tally.expired += 1,
            Outcome::Abandoned => {}
        });
    }

    /// A verdict on a message, or a word about data to come (L10).
    fn judge(&self, said: &Said<'_>) -> Result<(), Cow<'static, str>> {
        if said.kind == "expect" {
            let expected = said.data.and_then(|data| data.get().parse().ok());
            self.node.expect_data(expected.ok_or("true or false is needed as data")?);
            return Ok(());
        }
        let Said { kind, data: None, delivery: Some(delivery), after } = said else {
            return Err("type and delivery are needed, and no data".into());
        };
        let after = Duration::try_from_secs_f64(after.unwrap_or(0.0)).map_err(|error| error.to_string())?;
        if !matches!(&**kind, "complete" | "reject" | "retry") {
            return Err("a type of complete, reject or retry is needed".into());
        }
        let message = self.held().messages.remove(delivery).ok_or("no such delivery, or its end was told before")?;
        let known = match &**kind {
            "complete" => message.complete(),
            "reject" => message.reject(),
            _ => message.retry(after),
        };
        self.count(if known { kind } else { "retry" });
        if known { Ok(()) } else { Err("too late: the session has ended".into()) }
    }

    /// A message that was handed out has ended so.
    fn count(&self, verdict: &str) {
        let mut tally = self.tally();
        let column = match verdict {
            "complete" => &mut tally.completed,
            "reject" => &mut tally.declined,
            _ => &mut tally.given_back,
        };
        *column += 1;
    }

    /// A line has come to its end.
    fn end(&self, count: impl FnOnce(&mut Tally)) {
        count(&mut self.tally());
        self.under_way.end();
    }

    fn messages(self: &Arc<Self>) {
        for (message, number) in self.node.messages().zip(1_u64..) {
            let mut held = self.held();
            if !held.open {
                drop(held);
                message.retry(Duration::ZERO);
                continue;
            }
            // Counted before anybody can judge it.
            self.tally().messages += 1;
            let (kind, data) = W::content(&message);
            let mut line = Line::event("message");
            if self.judges {
                line = line.field("delivery", number);
            }
            let dup = message.maybe_dup().then_some(true);
            let line = line
                .field("type", kind)
                .json("data", data)
                .field("path", message.path().to_string())
                .maybe("maybe_dup", dup);
            if self.judges {
                // Before the line is out: the verdict may be quick.
                held.messages.insert(number, message);
                drop(held);
                self.out.write(line);
            } else {
                drop(held);
                let shared = Arc::clone(self);
                self.out.write_then(line, move || {
                    let in_time = message.complete();
                    shared.count(if in_time { "complete" } else { "retry" });
                });
            }
        }
    }

    /// Until the session has ended, or can do nothing any more.
    fn events(self: &Arc<Self>) {
        let mut complaints = 0;
        let mut advice = Advice::new(self.url.as_deref());
        for told in self.node.events() {
            let (total, last) = W::complaints(&self.node);
            if total > complaints {
                complaints = total;
                self.out.write(Line::event("complaint").field("total", total).maybe("message", last));
            }
            match told.event {
                Event::State { from, to } => {
                    let line = Line::event("state").field("from", from.to_string());
                    self.out.write(line.field("to", to.to_string()));
                    if to == State::Failed {
                        return;
                    }
                }
                Event::Path { from, to } => {
                    self.out.write(Line::event("path").field("from", from.to_string()).field("to", to.to_string()));
                }
                Event::Down { reason, .. } => {
                    self.out.write(words::explained(Line::event("down"), reason, told.text.as_ref()));
                    advice.give(told.explanation());
                }
                Event::RequestFailed { reason, .. } => {
                    self.out.write(words::explained(Line::event("request_failed"), reason, told.text.as_ref()));
                    advice.give(told.explanation());
                }
                Event::IdReused { total } => self.out.write(Line::event("id_reused").field("total", total)),
                Event::Settled { .. }
                | Event::RejectedButAcked { .. }
                | Event::HorizonShort { .. }
                | Event::Turn { .. }
                | Event::Resumed { .. }
                | Event::Gap { .. } => {}
            }
        }
    }
}

/// Why a line was refused.
struct Unwanted {
    prediction_id: Option<String>,
    why: Cow<'static, str>,
}

impl<T: Into<Cow<'static, str>>> From<T> for Unwanted {
    fn from(why: T) -> Self {
        Self { prediction_id: None, why: why.into() }
    }
}
