//! The picture that is redrawn while the scene runs: as wide as every terminal, and always of the same height.

use super::super::live::{WIDTH, bar};
use super::super::show::{Paint, Style};
use super::script::{Phase, SCRIPT};

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct View {
    /// Which phase, counted from 0; `None`: interrupted.
    pub(super) phase: Option<usize>,
    /// Whether there is a hub, and which.
    pub(super) hub: Option<u32>,
    /// Miners.
    pub(super) miners: usize,
    /// Of these, connected.
    pub(super) connected: usize,
    /// Predictions accepted.
    pub(super) accepted: u64,
    /// Of these, ended.
    pub(super) ended: u64,
    /// Updates published.
    pub(super) updates: u64,
}

/// Draws it.
pub(super) fn lines(view: &View, style: Style) -> Vec<String> {
    let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let phase = view.phase.and_then(|index| Some((index, SCRIPT.get(index)?)));
    let (title, broken, expected) = match phase {
        Some((index, Phase { name, broken, expected, .. })) => {
            (format!("{}/{}  {name}", index + 1, SCRIPT.len()), *broken, *expected)
        }
        None => {
            let soon = "what is under way has a few seconds; Ctrl-C again ends at once";
            ("stopping".into(), "nothing more is predicted, and nothing is broken any more", soon)
        }
    };
    let hub = match view.hub {
        Some(number) => style.paint(Paint::Good, format!("hub {number} serves")),
        None => style.paint(Paint::Bad, "no hub"),
    };
    let waiting = view.accepted.saturating_sub(view.ended);
    vec![
        String::new(),
        format!("  {}", style.paint(Paint::Strong, title)),
        format!("  {}", style.paint(Paint::Strong, broken)),
        format!("  {}", style.paint(Paint::Dim, cut(expected))),
        String::new(),
        format!("  {hub}   {} updates published", view.updates),
        String::new(),
        format!(
            "  {}  {} of {} connected",
            bar(wide(view.connected), wide(view.connected), wide(view.miners)),
            view.connected,
            view.miners
        ),
        format!("  {}  {waiting} of {} waiting", bar(view.ended, view.accepted, view.accepted), view.accepted),
    ]
}

fn cut(text: &str) -> String {
    text.chars().take(WIDTH - 2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_fits_and_has_the_same_height() {
        for phase in (0..SCRIPT.len()).map(Some).chain([None]) {
            for hub in [None, Some(3)] {
                let (accepted, updates) = (99_999, 9_999);
                let view = View { phase, hub, miners: 500, connected: 499, accepted, ended: 0, updates };
                let drawn = lines(&view, Style(false));
                assert_eq!(drawn.len(), 9);
                assert!(drawn.iter().all(|line| line.chars().count() <= WIDTH), "{drawn:#?}");
            }
        }
    }
}
