//! A hub between stdin and stdout.
//!
//! ```text
//!  messages ─▶ waiting (hotkey, prediction_id) ─▶ line out; given back as soon as nobody answers any more
//!  input ─ confirmation ─▶ out of waiting ─▶ confirm, reject, retry
//!        ─ send ─▶ receipt ─▶ a task ─▶ sent
//!        ─ any other type ─▶ published
//!  main: waits for an end, then drains and says how far it is
//! ```
//!
//! Decided here: what a line means. Invariants: a message waits for its answer before its line is out; no more than
//! `WAITING` wait, further ones stay with the hub, and then with their miners; the hub never waits for the output; each
//! message that was handed out is counted in one column of the last line, and so is each that was sent. Rule: L13.

use super::Args;
use crate::interrupt::Interrupt;
use crate::life::{End, Failure, UnderWay, spawn, told, within};
use crate::pipe::{self, Line, Out};
use crate::words;
use bowline::Outcome;
use bowline::wire::bettensor;
use bowline_smol::Excerpt;
use bowline_smol::Hotkey;
use bowline_smol::hub::{Confirmation, Delivery, Event, Hub, HubSetup, Publish, Receipt, Validator};
use core::time::Duration;
use serde::Deserialize;
use serde_json::value::RawValue;
use smol::stream;
use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Instant;

/// Messages that may wait for the application's answer.
const WAITING: usize = 16 * 1024;

/// Messages for single miners that may be between input and output.
const UNDER_WAY: usize = 16 * 1024;

/// For a machine that is busy, after the drain.
const CLOSING: Duration = Duration::from_secs(10);

/// Between two looks at how far the drain is.
const LOOK: Duration = Duration::from_millis(500);

/// Those who are turned away spread over this, or the time of the drain if that is shorter.
const WINDOW: Duration = Duration::from_secs(30);

/// What `--accept` says.
const ACCEPTED: &str = "Prediction received";

/// A line of the input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    snapshot: bool,
    /// Of a message for one.
    #[serde(borrow)]
    to: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "kind")]
    named: Option<Cow<'a, str>>,
    /// Of a confirmation.
    #[serde(borrow)]
    prediction_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    hotkey: Option<Cow<'a, str>>,
    #[serde(borrow)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    miner_stats: Option<&'a RawValue>,
    /// Of one that gives it back: seconds.
    after: Option<f64>,
}

/// What was said and done: `messages` is the sum of the next three, what of `sent` is in neither column after it was
/// abandoned.
#[derive(Clone, Copy, Default)]
struct Tally {
    messages: u64,
    confirmed: u64,
    rejected: u64,
    given_back: u64,
    sent: u64,
    delivered: u64,
    failed: u64,
    published: u64,
    refused: u64,
}

/// Messages that were handed out and not answered.
struct Waiting {
    /// Further ones are handed out.
    open: bool,
    /// Of all of them together.
    count: usize,
    /// By miner and `prediction_id`, which a miner may use again: in the order in which they were handed out (rule I6).
    deliveries: BTreeMap<(Hotkey, String), VecDeque<Delivery<Validator>>>,
}

impl Waiting {
    /// Keeps a message until it is answered. Returns the one that it replaces: what comes again has ended before.
    fn keep(&mut self, prediction_id: String, delivery: Delivery<Validator>) -> Option<Delivery<Validator>> {
        let content = |delivery: &Delivery<Validator>| {
            bettensor::content_of(delivery.kind(), core::str::from_utf8(delivery.data()).unwrap_or_default())
        };
        let same = self.deliveries.entry((delivery.hotkey(), prediction_id)).or_default();
        let said = content(&delivery);
        if let Some(old) = same.iter_mut().find(|old| content(old) == said) {
            return Some(core::mem::replace(old, delivery));
        }
        self.count += 1;
        same.push_back(delivery);
        None
    }

    /// The first that waits under this name.
    fn take(&mut self, hotkey: Hotkey, prediction_id: String) -> Option<Delivery<Validator>> {
        let Entry::Occupied(mut same) = self.deliveries.entry((hotkey, prediction_id)) else { return None };
        let first = same.get_mut().pop_front();
        if same.get().is_empty() {
            same.remove();
        }
        self.count -= usize::from(first.is_some());
        first
    }
}

struct Shared {
    hub: Hub<Validator>,
    out: Out,
    accept: bool,
    waiting: Mutex<Waiting>,
    answered: Condvar,
    tally: Mutex<Tally>,
    under_way: UnderWay,
}

/// Runs until an end.
pub(super) fn run(args: &Args, setup: HubSetup<Validator>) -> Result<ExitCode, Failure> {
    let (tell, ends) = mpsc::channel();
    let _interrupt = Interrupt::listen(told(&tell, End::Interrupted), || ())?;
    let hub = Hub::start(setup)?;
    args.run_marker.as_deref().map(super::mark).transpose()?;
    let (out, writer) = Out::start(io::stdout(), told(&tell, End::Output))?;
    out.write(Line::event("start").field("hotkey", hub.hotkey()).field("address", hub.address().to_string()));
    let shared = Arc::new(Shared {
        hub,
        out: out.clone(),
        accept: args.accept,
        waiting: Mutex::new(Waiting { open: true, count: 0, deliveries: BTreeMap::new() }),
        answered: Condvar::new(),
        tally: Mutex::default(),
        under_way: UnderWay::new(UNDER_WAY),
    });
    let work = |work: fn(&Arc<Shared>)| {
        let shared = Arc::clone(&shared);
        move || work(&shared)
    };
    spawn("events", work(Shared::events), told(&tell, End::Session))?;
    spawn("messages", work(Shared::messages), || ())?;
    let unheard = told(&tell, End::Input);
    // A hub that answers by itself needs nobody who writes to it.
    let accept = args.accept;
    spawn("input", work(Shared::input), move || {
        if !accept {
            unheard()
        }
    })?;

    let end = ends.recv().unwrap_or(End::Session);
    let limit = Instant::now() + args.drain + CLOSING;
    shared.hand_out_no_more();
    let abandoned = shared.drain(args.drain);
    let mut in_time = shared.under_way.close(limit);
    shared.give_back();
    let ended = Arc::clone(&shared);
    out.end(move || {
        let tally = *ended.tally();
        Line::event("end")
            .field("messages", tally.messages)
            .field("confirmed", tally.confirmed)
            .field("rejected", tally.rejected)
            .field("given_back", tally.given_back)
            .field("sent", tally.sent)
            .field("delivered", tally.delivered)
            .field("failed", tally.failed)
            // One whose end nobody heard of in time was abandoned, as far as anybody can say.
            .field("abandoned", tally.sent - tally.delivered - tally.failed)
            .field("published", tally.published)
            .field("refused", tally.refused)
    });
    in_time &= within(limit, move || writer.join().is_ok());
    Ok(match end {
        End::Output | End::Session => ExitCode::FAILURE,
        End::Input | End::Interrupted if abandoned > 0 || !in_time => ExitCode::from(3),
        End::Input | End::Interrupted if shared.tally().refused > 0 => ExitCode::from(5),
        End::Input | End::Interrupted => ExitCode::SUCCESS,
    })
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What comes from now on stays with its miner, who sends it again.
    fn hand_out_no_more(&self) {
        self.waiting().open = false;
        self.answered.notify_all();
    }

    /// Nobody will answer what waits.
    fn give_back(&self) {
        let (count, waiting) = {
            let mut waiting = self.waiting();
            (core::mem::take(&mut waiting.count), core::mem::take(&mut waiting.deliveries))
        };
        self.tally().given_back += u64::try_from(count).unwrap_or(u64::MAX);
        // Each of them tells the hub.
        drop(waiting);
    }

    fn messages(self: &Arc<Self>) {
        for delivery in stream::block_on(self.hub.messages()) {
            let full = |waiting: &mut Waiting| waiting.open && waiting.count >= WAITING;
            let waiting = self.answered.wait_while(self.waiting(), full);
            let mut waiting = waiting.unwrap_or_else(PoisonError::into_inner);
            if !waiting.open {
                drop(waiting);
                delivery.retry(Duration::ZERO);
                continue;
            }
            // Counted before anybody can answer.
            self.tally().messages += 1;
            let data = core::str::from_utf8(delivery.data()).unwrap_or("null");
            let prediction_id = bettensor::prediction_id(data).ok().map(Cow::into_owned);
            let line = Line::event("message")
                .field("type", delivery.kind())
                .field("hotkey", delivery.hotkey().to_string())
                .maybe("prediction_id", prediction_id.clone())
                .json("data", data)
                .maybe("maybe_dup", delivery.maybe_dup().then_some(true));
            match prediction_id {
                Some(prediction_id) if !self.accept => {
                    let old = waiting.keep(prediction_id, delivery);
                    drop(waiting);
                    self.tally().given_back += u64::from(old.is_some());
                    drop(old);
                    self.out.write(line);
                }
                _ => {
                    drop(waiting);
                    let shared = Arc::clone(self);
                    self.out.write_then(line, move || {
                        let in_time = delivery.confirm(ACCEPTED);
                        shared.count(if in_time { "success" } else { "retry" });
                    });
                }
            }
        }
    }

    fn input(self: &Arc<Self>) {
        pipe::lines(io::stdin().lock(), |number, line| {
            if !self.under_way.begin() {
                return false;
            }
            if let Err(why) = line.map_err(Cow::from).and_then(|line| self.take(number, line)) {
                self.tally().refused += 1;
                self.out.write(Line::event("refused").field("line", number).field("why", why));
                self.under_way.end();
            }
            true
        });
        if !self.accept {
            self.hand_out_no_more();
            self.give_back();
        }
    }

    /// A message that was handed out has ended so.
    fn count(&self, status: &str) {
        let mut tally = self.tally();
        let column = match status {
            "success" => &mut tally.confirmed,
            "error" => &mut tally.rejected,
            _ => &mut tally.given_back,
        };
        *column += 1;
    }

    fn take(self: &Arc<Self>, number: u64, line: &str) -> Result<(), Cow<'static, str>> {
        let said: Said<'_> = serde_json::from_str(line).map_err(|error| error.to_string())?;
        match &*said.kind {
            "confirmation" => {
                self.confirm(&said)?;
                self.under_way.end();
            }
            "send" => {
                let (Some(to), Some(kind), Some(data)) = (&said.to, &said.named, said.data) else {
                    return Err("to, kind and data are needed".into());
                };
                let hotkey: Hotkey = to.parse().map_err(|error| format!("to: {error}"))?;
                let receipt = self.hub.send(hotkey, kind, data.get()).map_err(|why| why.to_string())?;
                self.tally().sent += 1;
                let shared = Arc::clone(self);
                smol::spawn(async move { shared.sent(number, hotkey, receipt).await }).detach();
            }
            kind => {
                let data = said.data.ok_or("there is no data")?;
                let how = Publish { snapshot: said.snapshot, ..Publish::DEFAULT };
                let sent = self.hub.publish(kind, data.get(), how).map_err(|why| why.to_string())?;
                self.tally().published += 1;
                let line = Line::event("published").field("line", number).field("reached", sent.reached);
                self.out.write(line.field("dropped", sent.dropped));
                self.under_way.end();
            }
        }
        Ok(())
    }

    fn confirm(&self, said: &Said<'_>) -> Result<(), Cow<'static, str>> {
        let (Some(prediction_id), Some(hotkey), Some(status)) = (&said.prediction_id, &said.hotkey, &said.status)
        else {
            return Err("prediction_id, hotkey and status are needed".into());
        };
        if !matches!(&**status, "success" | "error" | "retry") {
            return Err("a status of success, error or retry is needed".into());
        }
        let hotkey: Hotkey = hotkey.parse().map_err(|error| format!("hotkey: {error}"))?;
        let after = Duration::try_from_secs_f64(said.after.unwrap_or(0.0)).map_err(|error| error.to_string())?;
        let waited = self.waiting().take(hotkey, prediction_id.clone().into_owned());
        let delivery = waited.ok_or("no such prediction waits for an answer")?;
        self.answered.notify_one();
        let message = said.message.clone().unwrap_or_default().into_owned();
        let in_time = match &**status {
            "success" => {
                let confirmation = Confirmation::new(message);
                let stats = said.miner_stats.map(RawValue::get);
                delivery.confirm(stats.into_iter().fold(confirmation, Confirmation::miner_stats))
            }
            "error" => delivery.reject(message),
            _ => delivery.retry(after),
        };
        self.count(if in_time { status } else { "retry" });
        if in_time { Ok(()) } else { Err("too late: the miner's session has ended".into()) }
    }

    async fn sent(&self, number: u64, to: Hotkey, receipt: Receipt) {
        let settlement = receipt.settled().await;
        let (outcome, path) = words::outcome(settlement.outcome);
        let line = Line::event("sent")
            .field("line", number)
            .field("to", to.to_string())
            .field("outcome", outcome)
            .maybe("path", path.map(|path| path.to_string()))
            .field("seconds", (settlement.took.as_secs_f64() * 1000.0).round() / 1000.0);
        self.out.say(line).await;
        let mut tally = self.tally();
        match settlement.outcome {
            Outcome::Delivered { .. } => tally.delivered += 1,
            Outcome::Rejected(_) | Outcome::Expired => tally.failed += 1,
            Outcome::Abandoned => {}
        }
        drop(tally);
        self.under_way.end();
    }

    fn events(self: &Arc<Self>) {
        for event in stream::block_on(self.hub.events()) {
            let about = |kind, hotkey: Hotkey| Line::event(kind).field("hotkey", hotkey.to_string());
            let line = match event {
                Event::Connected { peer: hotkey, resumed } => about("connected", hotkey).field("resumed", resumed),
                Event::Disconnected { peer: hotkey, reason, text } => {
                    words::explained(about("disconnected", hotkey), reason, text.as_ref())
                }
                Event::Lost { peer: hotkey, count } => about("lost", hotkey).field("count", count),
                Event::IdReused { peer: hotkey, total } => about("id_reused", hotkey).field("total", total),
                Event::War { peer: hotkey } => about("war", hotkey),
                // Only native peers are numbered, and there are none here.
                Event::Gap { .. } => continue,
                Event::Ended { peer: hotkey, why } => about("ended", hotkey).field("why", why.to_string()),
                Event::TurnedAway { address, peer, why, text, untold } => Line::event("turned_away")
                    .field("address", address.map(|address| address.to_string()))
                    .field("hotkey", peer.map(|hotkey| hotkey.to_string()))
                    .field("reason", why.to_string())
                    .maybe("said", text.as_ref().map(Excerpt::as_str))
                    .field("untold", untold),
                Event::Fleet { http } => Line::event("fleet").field("http", http),
                Event::Presence { .. } | Event::Drained { .. } => continue,
            };
            self.out.write(line);
        }
    }

    /// Goes down in order, saying how far it is. How many messages were abandoned.
    fn drain(self: &Arc<Self>, limit: Duration) -> u64 {
        let (tell, told) = mpsc::channel();
        let shared = Arc::clone(self);
        thread::spawn(move || tell.send(smol::block_on(shared.hub.drain(WINDOW.min(limit), limit))));
        let mut said = String::new();
        loop {
            let health = self.hub.health();
            let now = format!(
                "draining: {} connected, {} messages for miners and {} from miners under way",
                health.connections + health.closing,
                health.backlog,
                health.held
            );
            if now != said {
                eprintln!("bowline: {now}");
                said = now;
            }
            match told.recv_timeout(LOOK) {
                Ok(abandoned) => return abandoned,
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_misspelled_is_taken_for_something_left_out() {
        let said = |line| serde_json::from_str::<Said<'_>>(line).is_ok();
        assert!(said(r#"{"type":"game_update","data":{},"snapshot":true}"#));
        assert!(!said(r#"{"type":"game_update","data":{},"snapshots":true}"#));
    }
}
