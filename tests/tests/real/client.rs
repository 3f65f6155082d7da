//! A client of a native hub, of either adapter, whose calls have a limit.

use super::{Adapter, DRAIN, begin, eventually, promptly};
use bowline::wire::native::{Refusal, Since};
use bowline::{Event, Outcome};
use bowline_smol::{Mail, Native, Receipt, SendError, Setup, Status};
use bowline_transport::Message;
use serde_json::Value;
use std::sync::{Arc, Mutex};

enum Either {
    Blocking(bowline_blocking::Client),
    Smol(bowline_smol::Client),
}

/// A client of either adapter, whose calls have a limit.
pub(crate) struct Client {
    either: Arc<Either>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Client {
    pub(crate) fn start(adapter: Adapter, setup: Setup<Native>) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        let either = match adapter {
            Adapter::Blocking => {
                let client = bowline_blocking::Client::start(setup).unwrap();
                let all = client.events();
                begin("the end of events", move || all.for_each(|told| seen.lock().unwrap().push(told.event)));
                Either::Blocking(client)
            }
            Adapter::Smol => {
                let client = bowline_smol::Client::start(setup).unwrap();
                let all = smol::stream::block_on(client.events());
                begin("the end of events", move || all.for_each(|told| seen.lock().unwrap().push(told.event)));
                Either::Smol(client)
            }
        };
        Self { either: Arc::new(either), events }
    }

    #[track_caller]
    pub(crate) fn receive(&self) -> Message<Native> {
        let either = Arc::clone(&self.either);
        let received = begin("a message", move || match &*either {
            Either::Blocking(client) => client.receive(),
            Either::Smol(client) => smol::block_on(client.receive()),
        });
        received.wait().expect("the session has ended")
    }

    /// The next message or event, dealt with.
    #[track_caller]
    pub(crate) fn mail(&self) -> Mail {
        let message = self.receive();
        let mail = message.content().clone();
        assert!(message.complete());
        mail
    }

    /// The next message, dealt with.
    #[track_caller]
    pub(crate) fn message(&self, expected: &str) -> Value {
        let Mail::Message { kind, data } = self.mail() else { panic!("no message") };
        assert_eq!(kind, expected);
        serde_json::from_slice(&data).unwrap()
    }

    /// Waits for room.
    #[track_caller]
    pub(crate) fn send(&self, kind: &'static str, data: &Value) -> Receipt {
        let (either, data) = (Arc::clone(&self.either), data.to_string());
        let sent = begin("room", move || match &*either {
            Either::Blocking(client) => client.send(kind, data),
            Either::Smol(client) => smol::block_on(client.send(kind, data)),
        });
        sent.wait().unwrap()
    }

    /// Does not wait for room.
    pub(crate) fn try_send(&self, kind: &str, json: &str) -> Result<Receipt, SendError> {
        match &*self.either {
            Either::Blocking(client) => client.try_send(kind, json.to_owned()),
            Either::Smol(client) => client.try_send(kind, json.to_owned()),
        }
    }

    pub(crate) fn subscribe(&self, filter: &str, since: Option<Since>) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.subscribe(filter, since),
            Either::Smol(client) => client.subscribe(filter, since),
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.unsubscribe(filter),
            Either::Smol(client) => client.unsubscribe(filter),
        }
    }

    pub(crate) fn reauthenticate(&self, auth: &str) -> bool {
        match &*self.either {
            Either::Blocking(client) => client.reauthenticate(auth),
            Either::Smol(client) => client.reauthenticate(auth),
        }
    }

    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match &*self.either {
            Either::Blocking(client) => client.refusal(),
            Either::Smol(client) => client.refusal(),
        }
    }

    pub(crate) fn status(&self) -> Status {
        match &*self.either {
            Either::Blocking(client) => client.status(),
            Either::Smol(client) => client.status(),
        }
    }

    /// What has happened so far, one after the other.
    pub(crate) fn each(&self, see: impl FnMut(&Event)) {
        self.events.lock().unwrap().iter().for_each(see);
    }

    pub(crate) fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.lock().unwrap().iter().filter(|event| is(event)).count()
    }

    #[track_caller]
    pub(crate) fn stop(self) -> Status {
        let either = Arc::into_inner(self.either).expect("somebody still waits for this client");
        promptly("a client closes", move || match either {
            Either::Blocking(client) => client.close(DRAIN),
            Either::Smol(client) => smol::block_on(client.close(DRAIN)),
        })
    }
}

#[track_caller]
pub(crate) fn outcome(receipt: &Receipt) -> Outcome {
    let mut end = None;
    eventually("its end", || {
        end = receipt.try_settled();
        end.is_some()
    });
    end.unwrap().outcome
}
