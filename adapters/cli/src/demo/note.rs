//! Something worth a line: words for people, fields for programs.

use core::time::Duration;
use serde_json::{Map, Value};

/// One thing that happened.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Note {
    /// Its kind, the `event` of a JSON line.
    pub(crate) kind: &'static str,
    /// In words; `None`: for programs alone.
    pub(crate) words: Option<String>,
    /// A phase begins: it stands out.
    pub(crate) heading: bool,
    fields: Map<String, Value>,
}

impl Note {
    /// For programs alone.
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kind, words: None, heading: false, fields: Map::new() }
    }

    /// In words, too.
    pub(crate) fn words(mut self, words: impl Into<String>) -> Self {
        self.words = Some(words.into());
        self
    }

    /// As the heading of what follows.
    pub(crate) fn heading(mut self, words: impl Into<String>) -> Self {
        self.heading = true;
        self.words(words)
    }

    /// A field of the JSON line.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// The JSON line.
    pub(crate) fn json(&self, at: Duration) -> String {
        let mut line = self.fields.clone();
        line.insert("event".into(), self.kind.into());
        line.insert("at".into(), seconds(at).into());
        Value::Object(line).to_string()
    }
}

/// In seconds, to the millisecond.
pub(crate) fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}
