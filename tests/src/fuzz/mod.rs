//! The fuzz targets: what is done with an input, and how one that fails is shown.
//!
//! ```text
//! fuzz/fuzz_targets/target.rs ─┐
//! tests/tests/corpus.rs ───────┴▶ Target::run(input) ─▶ holds
//!                                                    └▶ panics ─▶ played again, and shown: the input and what it does
//! ```
//!
//! [`TARGETS`] is the one list: the fuzzer's binaries (`fuzz/Cargo.toml`), the replay of the committed inputs
//! (`fuzz/corpus`) and `.ci/deep` are compared with it or read from it.
//!
//! An input is a script. Those of the machines are bytes, and every byte string means one; what a failing one does is shown
//! step by step. Those of the wires and of HTTP are text that can be read as it is. A test holds either by
//! `fuzz::target("hub").run(b"…")`, and a file is shown by `TARGET=hub INPUT=file cargo test -p bowline-tests --test
//! corpus shown -- --nocapture`.
//!
//! Invariant: a target does the same for the same input, whatever came before it.

mod canonical;
#[cfg(feature = "adapters")]
mod http;
#[cfg(feature = "adapters")]
mod wires;

use crate::sim::hub_rig::Rig;
use crate::sim::script;
use crate::sim::{Choices, Plan, Style, World};
use core::cell::{Cell, RefCell};
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// One thing that is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of the fuzzer's binary and of the folder of its inputs.
    pub name: &'static str,
    body: fn(&[u8]),
    /// Its inputs can be read as they are.
    text: bool,
}

/// Every target; those of the wires and of HTTP only with the feature `adapters`.
pub const TARGETS: &[Target] = &[
    // One plain session, and a peer, an application and a clock that do anything.
    bytes("session", |input| {
        let _ = script::plain(input);
    }),
    // Two plain sessions and a bad network: the ledger's promises (G1 to G10).
    bytes("plain_pair", plain_pair),
    // Native sessions, one or two.
    bytes("native", |input| {
        let _ = script::native(input);
    }),
    // The hub beside its model.
    bytes("hub", hub),
    text("canonical_json", canonical::run),
    #[cfg(feature = "adapters")]
    text("wire_gonka", wires::gonka),
    #[cfg(feature = "adapters")]
    text("wire_bettensor", wires::bettensor),
    #[cfg(feature = "adapters")]
    text("wire_aivillage", wires::aivillage),
    #[cfg(feature = "adapters")]
    text("http_outcomes", http::run),
];

const fn bytes(name: &'static str, body: fn(&[u8])) -> Target {
    Target { name, body, text: false }
}

const fn text(name: &'static str, body: fn(&[u8])) -> Target {
    Target { name, body, text: true }
}

/// The target of this name.
///
/// ```
/// use bowline_tests::fuzz;
/// fuzz::target("session").run(&[1, 2, 3]);
/// ```
///
/// # Panics
/// There is none.
#[must_use]
pub fn target(name: &str) -> Target {
    let known = TARGETS.iter().find(|target| target.name == name);
    *known.unwrap_or_else(|| panic!("{name} is no fuzz target"))
}

thread_local! {
    /// What this thread is at work on.
    static CURRENT: RefCell<Option<(Target, Vec<u8>)>> = const { RefCell::new(None) };
    /// Steps are shown, and a panic is expected.
    static TRACED: Cell<bool> = const { Cell::new(false) };
}

impl Target {
    /// Does what the input says.
    ///
    /// # Panics
    /// Something that must hold does not. The input is shown before that, and what it does.
    pub fn run(self, input: &[u8]) {
        show_what_fails();
        CURRENT.with_borrow_mut(|current| {
            let kept = current.get_or_insert_with(|| (self, Vec::new()));
            kept.0 = self;
            kept.1.clear();
            kept.1.extend_from_slice(input);
        });
        (self.body)(input);
        CURRENT.set(None);
    }

    /// The input as a test holds it, and, where it is bytes, what they do.
    pub fn show(self, input: &[u8]) {
        eprintln!("the input of `{}`, as a test holds it:", self.name);
        match core::str::from_utf8(input).ok().filter(|_| self.text) {
            Some(script) => {
                eprintln!("    fuzz::target({:?}).run({script:?}.as_bytes());\nit reads:\n{script}", self.name)
            }
            None => eprintln!("    fuzz::target({:?}).run(b\"{}\");", self.name, input.escape_ascii()),
        }
        if !self.text {
            eprintln!("it means:");
            let input = input.to_vec();
            let played = std::thread::spawn(move || {
                TRACED.set(true);
                drop(catch_unwind(|| (self.body)(&input)));
            });
            drop(played.join());
        }
    }
}

/// Before a panic is told, which ends the fuzzer's process, its input is shown.
fn show_what_fails() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |panic| {
            if TRACED.get() {
                return eprintln!("    {panic}");
            }
            if let Some((target, input)) = CURRENT.take() {
                target.show(&input);
            }
            before(panic);
        }));
    });
}

/// Steps are to be shown: an input is played again because it fails, or `SHOW` is set.
#[must_use]
pub fn is_traced() -> bool {
    TRACED.get() || std::env::var_os("SHOW").is_some()
}

/// Shows a step, if steps are to be shown.
pub(crate) fn trace(step: impl FnOnce() -> String) {
    if TRACED.get() {
        eprintln!("    {}", step());
    }
}

fn plain_pair(input: &[u8]) {
    let plan = Plan::decode(input);
    trace(|| format!("seed {}", plan.seed));
    for (after, change) in &plan.changes {
        trace(|| format!("after {after:?} {change:?}"));
    }
    World::play(&plan, Style::Exact).finish();
}

/// Longer scripts are cut.
const STEPS: usize = 400;

fn hub(input: &[u8]) {
    let (head, script) = input.split_at(input.len().min(2));
    let seed = head.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
    let mut rig = Rig::with(seed, Choices::bytes(script), true);
    for _ in 0..STEPS {
        if rig.choices.is_over() {
            break;
        }
        let pause = rig.pause();
        rig.pass(pause);
        rig.step();
        rig.drain();
    }
    rig.all_leave();
}
