//! The variables of the environment: which there are, and what is told of those that nobody reads.
//!
//! Decided here: a variable that begins with `BOWLINE_` and is none of the command's is told on stderr, with the nearest one
//! that is. It is no error: another program's tools may use the same beginning.

use std::ffi::OsString;

/// What the names of all variables begin with.
const PREFIX: &str = "BOWLINE_";

/// The value of this variable of the process, if it is set.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// Tells on stderr of every variable that is none of these.
pub(crate) fn tell_unknown(known: &[&str]) {
    for words in unknown(std::env::vars_os().map(|(name, _)| name), known) {
        eprintln!("bowline: {words}");
    }
}

fn unknown(names: impl Iterator<Item = OsString>, known: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| name.to_ascii_uppercase().starts_with(PREFIX) && !known.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    let told = |name: &String| match nearest(name, known) {
        Some(near) => format!("the variable {name} means nothing here; is {near} meant?"),
        None => format!("the variable {name} means nothing here"),
    };
    names.iter().map(told).collect()
}

/// The known name that takes the fewest changes, if these are no more than a third of what is behind the beginning.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let changes = |of: &&str| changes(&name.to_ascii_uppercase(), of);
    let near = known.iter().copied().min_by_key(changes)?;
    (changes(&near) <= near.len().saturating_sub(PREFIX.len()).div_ceil(3)).then_some(near)
}

/// How many characters must be added, left out or replaced to make one name of the other.
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, c) in (1..).zip(from.chars()) {
        let mut before = at - 1;
        row[0] = at;
        for (n, other) in (1..).zip(&to) {
            let kept = before + usize::from(c != *other);
            before = row[n];
            row[n] = kept.min(before + 1).min(row[n - 1] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_variable_is_told_with_the_nearest_one() {
        let known = ["BOWLINE_ENABLED", "BOWLINE_HEARTBEAT_INTERVAL", "BOWLINE_LIFE"];
        let told = |name: &str| unknown([OsString::from(name)].into_iter(), &known).pop();
        for (name, near) in [
            ("BOWLINE_ENABLE", "BOWLINE_ENABLED"),
            ("BOWLINE_HEARTBEATINTERVAL", "BOWLINE_HEARTBEAT_INTERVAL"),
            ("bowline_life", "BOWLINE_LIFE"),
            ("BOWLINE_LIVE", "BOWLINE_LIFE"),
        ] {
            assert_eq!(told(name), Some(format!("the variable {name} means nothing here; is {near} meant?")));
        }
        assert_eq!(
            told("BOWLINE_REQUIRE_PEERS").as_deref(),
            Some("the variable BOWLINE_REQUIRE_PEERS means nothing here")
        );
        for fine in ["BOWLINE_ENABLED", "PATH", "BOWLINE"] {
            assert_eq!(told(fine), None);
        }
    }

    #[test]
    fn how_far_two_names_are_apart() {
        for (from, to, expected) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!((changes(from, to), changes(to, from)), (expected, expected));
        }
    }
}
