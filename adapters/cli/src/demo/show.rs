//! Where it is shown: a picture on a terminal, lines on a pipe, JSON lines for programs.
//!
//! Decided here: which of the three, and that the terminal is given back as it was. Lines scroll above the picture, so
//! what happened stays to be read.

use super::note::Note;
use core::fmt::Display;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Instant;

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(100);

/// Hides the cursor, and cuts lines that are too long for a narrow terminal instead of breaking the picture.
const TAKE: &str = "\x1b[?25l\x1b[?7l";
const GIVE_BACK: &str = "\x1b[?7h\x1b[?25h";

/// The terminal is not as it was.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What shows the run.
#[derive(Debug)]
pub(crate) struct Show {
    mode: Mode,
    style: Style,
    /// So many lines of the picture stand above the cursor.
    drawn: usize,
    next: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Live,
    Plain,
    Json,
}

/// Colours, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Style(pub(crate) bool);

/// How a word stands out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Paint {
    /// Bold.
    Strong,
    /// Pale.
    Dim,
    /// Green.
    Good,
    /// Red.
    Bad,
}

impl Style {
    /// The text, so that it stands out.
    pub(crate) fn paint(self, paint: Paint, text: impl Display) -> String {
        let code = match paint {
            Paint::Strong => 1,
            Paint::Dim => 2,
            Paint::Good => 32,
            Paint::Bad => 31,
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

impl Show {
    /// Chooses by what the output is.
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal() && env::var_os("TERM").is_none_or(|term| term != "dumb");
        let mode = if json {
            Mode::Json
        } else if terminal {
            Mode::Live
        } else {
            Mode::Plain
        };
        let colours = mode == Mode::Live && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        Self { mode, style: Style(colours), drawn: 0, next: Instant::now() }
    }

    /// How words may stand out.
    pub(crate) const fn style(&self) -> Style {
        self.style
    }

    /// Something happened.
    pub(crate) fn note(&mut self, at: Duration, note: &Note) -> io::Result<()> {
        let line = match (&note.words, self.mode) {
            (_, Mode::Json) => note.json(at),
            (None, _) => return Ok(()),
            (Some(words), Mode::Live | Mode::Plain) => {
                let words = if note.heading { self.style.paint(Paint::Strong, words) } else { words.clone() };
                format!("{}  {words}", self.style.paint(Paint::Dim, format!("{:6.1} s", at.as_secs_f64())))
            }
        };
        self.write(&[line])
    }

    /// Lines for people alone.
    pub(crate) fn text(&mut self, lines: &[String]) -> io::Result<()> {
        if self.mode == Mode::Json { Ok(()) } else { self.write(lines) }
    }

    /// Draws the picture, if there is one and it is time.
    pub(crate) fn frame(&mut self, picture: impl FnOnce(Style) -> Vec<String>) -> io::Result<()> {
        let now = Instant::now();
        if self.mode != Mode::Live || now < self.next {
            return Ok(());
        }
        self.next = now + FRAME;
        let lines = picture(self.style);
        let mut text = self.erased();
        if !TAKEN.swap(true, Ordering::Relaxed) {
            text.push_str(TAKE);
        }
        for line in &lines {
            text.push_str(line);
            text.push('\n');
        }
        self.drawn = lines.len();
        put(&text)
    }

    /// Takes the picture away and gives the terminal back.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        let text = self.erased();
        put(&text)?;
        give_back_terminal();
        Ok(())
    }

    fn write(&mut self, lines: &[String]) -> io::Result<()> {
        let mut text = self.erased();
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        // The picture comes back below.
        self.next = Instant::now();
        put(&text)
    }

    /// What erases the picture.
    fn erased(&mut self) -> String {
        match core::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\r\x1b[{lines}A\x1b[J"),
        }
    }
}

impl Drop for Show {
    fn drop(&mut self) {
        give_back_terminal();
    }
}

/// Shows the cursor again, if it is hidden.
pub(crate) fn give_back_terminal() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let _ = put(GIVE_BACK);
    }
}

/// In one piece, or a picture half drawn would flicker.
fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
