//! Where handlers run: a desk for each peer with something to handle, all of a desk's work in one task.
//!
//! ```text
//!  add ─▶ queue of its peer ─▶ at most an eighth of all places at once ─▶ Ok · Err · panic ─▶ complete, together
//! ```
//!
//! What is done at the same time is confirmed at the same time, so that it leaves in one write. Invariants: a handler that
//! panics ends its own message and nothing else; a peer's slow messages hold at most an eighth of the places.

use super::Hub;
use super::message::{Message, Ticket, Verdict, Work};
use super::setup::Handler;
use super::wire::HubWire;
use async_lock::{Semaphore, SemaphoreGuard};
use bowline::hub::SessionId;
use core::future::{pending, poll_fn};
use core::panic::AssertUnwindSafe;
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use event_listener::Event;
use std::collections::{BTreeMap, VecDeque};
use std::panic::catch_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a peer is told whose message made its handler panic.
const PANICKED: &str = "Internal error";

struct Job<W: HubWire> {
    message: Message<W::Peer>,
    ticket: Ticket,
    handler: Handler<W>,
}

struct Desk<W: HubWire> {
    queue: VecDeque<Job<W>>,
    more: Arc<Event>,
}

pub(super) struct Desks<W: HubWire> {
    desks: Mutex<BTreeMap<SessionId, Desk<W>>>,
    places: Semaphore,
    /// Of one peer's messages at once.
    each: usize,
}

impl<W: HubWire> Desks<W> {
    pub(super) fn new(at_once: usize) -> Self {
        Self { desks: Mutex::new(BTreeMap::new()), places: Semaphore::new(at_once), each: at_once.div_ceil(8) }
    }

    /// Takes a message for its handler. True: its desk is to be run.
    pub(super) fn add(
        &self,
        session: SessionId,
        message: Message<W::Peer>,
        ticket: Ticket,
        handler: &Handler<W>,
    ) -> bool {
        let job = Job { message, ticket, handler: Arc::clone(handler) };
        let mut desks = self.lock();
        if let Some(desk) = desks.get_mut(&session) {
            desk.queue.push_back(job);
            desk.more.notify(1);
            return false;
        }
        desks.insert(session, Desk { queue: VecDeque::from([job]), more: Arc::default() });
        true
    }

    /// Runs a desk until it is empty.
    pub(super) async fn run(&self, hub: &Hub<W>, session: SessionId) {
        let Some(more) = self.lock().get(&session).map(|desk| Arc::clone(&desk.more)) else { return };
        let mut works: Vec<Running<'_, W>> = Vec::new();
        loop {
            let listener = more.listen();
            while works.len() < self.each
                && let Some(place) = self.places.try_acquire()
                && self.take_up(session, place, &mut works)
            {}
            if works.is_empty() && self.close(session) {
                return;
            }
            // All places are taken by others, or there would be no message left that could have one.
            let wants = works.len() < self.each && self.waits(session);
            let mut place = pin!(async {
                match wants {
                    true => self.places.acquire().await,
                    false => pending().await,
                }
            });
            let mut listener = pin!(listener);
            let mut granted = None;
            let done = poll_fn(|cx| {
                let done = step(&mut works, cx);
                if let Poll::Ready(place) = place.as_mut().poll(cx) {
                    granted = Some(place);
                }
                let more = listener.as_mut().poll(cx).is_ready();
                if done.is_empty() && granted.is_none() && !more { Poll::Pending } else { Poll::Ready(done) }
            });
            let done = done.await;
            if let Some(place) = granted {
                self.take_up(session, place, &mut works);
            }
            if !done.is_empty() {
                works.retain(|running| running.ticket.is_some());
                hub.complete(done);
            }
        }
    }

    /// Begins the next message. False: there is none.
    fn take_up<'a>(&self, session: SessionId, place: SemaphoreGuard<'a>, works: &mut Vec<Running<'a, W>>) -> bool {
        let Some(Job { message, ticket, handler }) = self.next(session) else { return false };
        works.push(Running { work: begin::<W>(message, &handler), ticket: Some(ticket), _place: place });
        true
    }

    fn waits(&self, session: SessionId) -> bool {
        self.lock().get(&session).is_some_and(|desk| !desk.queue.is_empty())
    }

    fn next(&self, session: SessionId) -> Option<Job<W>> {
        self.lock().get_mut(&session)?.queue.pop_front()
    }

    /// True: there was nothing left to do, and the desk is gone.
    fn close(&self, session: SessionId) -> bool {
        let mut desks = self.lock();
        let empty = desks.get(&session).is_none_or(|desk| desk.queue.is_empty());
        if empty {
            desks.remove(&session);
        }
        empty
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SessionId, Desk<W>>> {
        self.desks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running<'a, W: HubWire> {
    work: Work<W::Confirmation>,
    /// Taken when it is done.
    ticket: Option<Ticket>,
    _place: SemaphoreGuard<'a>,
}

/// The handler itself may panic, too, before there is a future.
fn begin<W: HubWire>(message: Message<W::Peer>, handler: &Handler<W>) -> Work<W::Confirmation> {
    catch_unwind(AssertUnwindSafe(|| handler(message))).unwrap_or_else(|_| Box::pin(async { Err(PANICKED.to_owned()) }))
}

/// Polls everything once; what is done.
fn step<W: HubWire>(works: &mut [Running<'_, W>], cx: &mut Context<'_>) -> Vec<(Ticket, Verdict<W::Confirmation>)> {
    let mut done = Vec::new();
    for running in works {
        let verdict = match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut running.work).poll(cx))) {
            Ok(Poll::Pending) => continue,
            Ok(Poll::Ready(Ok(confirmation))) => Verdict::Confirmed(confirmation),
            Ok(Poll::Ready(Err(why))) => Verdict::Rejected(why),
            Err(_) => Verdict::Rejected(PANICKED.to_owned()),
        };
        done.extend(running.ticket.take().map(|ticket| (ticket, verdict)));
    }
    done
}
