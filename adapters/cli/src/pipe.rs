//! JSON lines in and out, for programs that talk to this one.
//!
//! ```text
//!  stdin ─▶ lines: one at a time, bounded ─▶ take        blocks: whoever writes to us waits
//!  stdout ◀─ a thread ◀─ 64 lines ◀─ Out                 full: whoever has something to say waits, the sessions do not
//! ```
//!
//! Invariants: a line is never longer than `LONGEST`; what is written is one line, whatever was in it; what is to happen
//! when a line was written happens after the flush.

use core::fmt::Write as _;
use serde_json::Value;
use smol::channel::{Sender, bounded};
use std::io::{self, BufRead, Read as _};
use std::thread::{self, JoinHandle};

/// The longest line that is read: what Gonka's receiver takes in a frame, and room for what is around it.
const LONGEST: u64 = (64 << 20) + 1024;

/// Lines that wait for the output.
const WAITING: usize = 64;

/// One JSON line, built field by field.
#[derive(Debug)]
pub(crate) struct Line(String);

impl Line {
    /// A line with this `event`.
    pub(crate) fn event(kind: &str) -> Self {
        Self(format!(r#"{{"event":"{kind}""#))
    }

    /// A field.
    pub(crate) fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        // Writing to a string cannot fail.
        let _ = write!(self.0, r#","{name}":{}"#, value.into());
        self
    }

    /// A field, if there is something to say.
    pub(crate) fn maybe(self, name: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// A field whose value is JSON as it came, numbers and all. Between its tokens it may have line breaks.
    pub(crate) fn json(mut self, name: &str, json: &str) -> Self {
        let _ = write!(self.0, r#","{name}":"#);
        // In a string of JSON there can be no such characters.
        self.0.extend(json.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
        self
    }

    fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

/// What the output is given to do.
enum Job {
    Write(Line),
    WriteThen(Line, Box<dyn FnOnce() + Send>),
    /// The last line, as it is when everything before it was written.
    End(Box<dyn FnOnce() -> Line + Send>),
}

/// Where lines are written.
#[derive(Clone)]
pub(crate) struct Out(Sender<Job>);

impl Out {
    /// Begins to write to `to`. If that fails, `broken` is called and everything later is dropped. The thread ends when
    /// it is closed or every `Out` is gone.
    pub(crate) fn start(
        mut to: impl io::Write + Send + 'static,
        broken: impl FnOnce() + Send + 'static,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (sender, lines) = bounded::<Job>(WAITING);
        let write = move || {
            while let Ok(job) = lines.recv_blocking() {
                let last = matches!(job, Job::End(_));
                let (line, then) = match job {
                    Job::Write(line) => (line, None),
                    Job::WriteThen(line, then) => (line, Some(then)),
                    Job::End(line) => (line(), None),
                };
                if to.write_all(line.end().as_bytes()).and_then(|()| to.flush()).is_err() {
                    lines.close();
                    broken();
                    return;
                }
                if let Some(then) = then {
                    then();
                }
                if last {
                    lines.close();
                    return;
                }
            }
        };
        Ok((Self(sender), thread::Builder::new().name("output".into()).spawn(write)?))
    }

    /// Writes the last line; later lines are discarded. The line is asked for when everything before it was written, and what
    /// had to follow that was done.
    pub(crate) fn end(&self, line: impl FnOnce() -> Line + Send + 'static) {
        let _ = self.0.send_blocking(Job::End(Box::new(line)));
    }

    /// Writes, waiting for room without blocking the thread.
    pub(crate) async fn say(&self, line: Line) {
        // Nobody reads any more: whoever called `start` knows.
        let _ = self.0.send(Job::Write(line)).await;
    }

    /// Writes, blocking the thread until there is room.
    pub(crate) fn write(&self, line: Line) {
        let _ = self.0.send_blocking(Job::Write(line));
    }

    /// Writes, blocking, and does something when that was done; never, if it could not be done.
    pub(crate) fn write_then(&self, line: Line, then: impl FnOnce() + Send + 'static) {
        let _ = self.0.send_blocking(Job::WriteThen(line, Box::new(then)));
    }
}

/// Gives every line with its number, counted from 1, to `take`, until the end of the input or until `take` says that it
/// is enough. Lines without content are left out.
pub(crate) fn lines(mut input: impl BufRead, mut take: impl FnMut(u64, Result<&str, &'static str>) -> bool) {
    let mut bytes = Vec::new();
    for number in 1.. {
        bytes.clear();
        // An error is an end: nothing more will come.
        let Ok(1..) = input.by_ref().take(LONGEST).read_until(b'\n', &mut bytes) else { return };
        let whole = bytes.ends_with(b"\n") || (bytes.len() as u64) < LONGEST;
        let line = if whole {
            core::str::from_utf8(&bytes).map(str::trim).map_err(|_| "not UTF-8")
        } else {
            let _ = input.skip_until(b'\n');
            Err("longer than any path takes")
        };
        if line != Ok("") && !take(number, line) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_line_stays_one_whatever_is_in_it() {
        let line =
            Line::event("message").field("why", "a\n\"b\"").json("data", "{\"n\": 1.50,\r\n \"s\":\"\\n\"}").end();
        assert_eq!(line, "{\"event\":\"message\",\"why\":\"a\\n\\\"b\\\"\",\"data\":{\"n\": 1.50,   \"s\":\"\\n\"}}\n");
    }

    #[test]
    fn lines_are_numbered_bounded_and_text() {
        let mut input = b"one\n\n \r\n\xff\n".to_vec();
        input.extend(vec![b'x'; LONGEST as usize + 7]);
        input.extend(b"\nlast");
        let mut seen = Vec::new();
        lines(&input[..], |number, line| {
            seen.push((number, line.map(str::to_owned)));
            true
        });
        let last = (6, Ok("last".to_owned()));
        assert_eq!(seen, [(1, Ok("one".into())), (4, Err("not UTF-8")), (5, Err("longer than any path takes")), last]);
    }

    #[test]
    fn nothing_follows_the_last_line() {
        #[derive(Clone, Default)]
        struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        // Held until all three are waiting.
        let held = sink.0.lock().unwrap();
        let (out, thread) = Out::start(sink.clone(), || ()).unwrap();
        out.write(Line::event("message"));
        out.end(|| Line::event("end"));
        out.write(Line::event("fleet"));
        drop(held);
        thread.join().unwrap();
        let written = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written, "{\"event\":\"message\"}\n{\"event\":\"end\"}\n");
    }

    #[test]
    fn what_follows_a_line_follows_its_flush_and_a_broken_output_is_told() {
        struct Shut;
        impl io::Write for Shut {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (tell, told) = mpsc::channel();
        let (also, then) = (tell.clone(), tell.clone());
        let (out, thread) = Out::start(Shut, move || tell.send("broken").unwrap()).unwrap();
        out.write_then(Line::event("message"), move || then.send("written").unwrap());
        thread.join().unwrap();
        out.write(Line::event("message"));
        drop(also);
        drop(out);
        assert_eq!(told.iter().collect::<Vec<_>>(), ["broken"]);
    }
}
