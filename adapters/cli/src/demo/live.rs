//! The picture that is redrawn while the demo runs.
//!
//! ```text
//!  phase, what is broken, what should happen
//!  ML node ━━ WebSocket ━▶ API node
//!          ── HTTP ──────▶
//!  bars: how far, how much waits
//! ```
//!
//! Decided here: what it looks like. It fits into 80 columns; every line is made anew from what is, so nothing is stale.

use super::script::{Phase, SCRIPT};
use super::show::{Paint, Style};
use super::words;
use bowline::Path;
use bowline_cli::proxy::Fault;
use bowline_transport::Status;
use core::time::Duration;

/// As wide as every terminal.
pub(crate) const WIDTH: usize = 80;

/// Everything that is drawn.
#[derive(Debug)]
pub(crate) struct View<'a> {
    /// Which phase, counted from 0; `None`: interrupted.
    pub(crate) phase: Option<usize>,
    /// Until the script's natural end.
    pub(crate) left: Duration,
    /// The sender.
    pub(crate) ml_node: &'a Status,
    /// The receiver.
    pub(crate) api_node: &'a Status,
    /// What is wrong with the WebSocket.
    pub(crate) websocket: Fault,
    /// What is wrong with HTTP.
    pub(crate) http: Fault,
    /// Batches in all.
    pub(crate) batches: u64,
    /// How many may wait.
    pub(crate) capacity: usize,
}

/// Draws it.
pub(crate) fn lines(view: &View<'_>, style: Style) -> Vec<String> {
    let stats = view.ml_node.stats;
    let delivered = stats.delivered_websocket + stats.delivered_http;
    let mut lines = vec![String::new()];
    let broken_now = view.websocket != Fault::Calm || view.http != Fault::Calm;
    lines.extend(heading((SCRIPT, view.phase), view.left, broken_now, style));
    lines.push(String::new());
    lines.extend(map(view, style));
    lines.push(String::new());
    let done = format!("{delivered} of {} delivered", view.batches);
    lines.push(format!("  {}  {done}", bar(delivered, stats.accepted, view.batches)));
    let waiting = u64::try_from(view.ml_node.backlog).unwrap_or(u64::MAX);
    let room = u64::try_from(view.capacity).unwrap_or(u64::MAX);
    lines.push(format!("  {}  {waiting} waiting, room for {room}", bar(waiting, waiting, room)));
    lines.push(format!(
        "  {} by WebSocket   {} by HTTP   {} copies dropped",
        style.paint(Paint::Good, stats.delivered_websocket),
        style.paint(Paint::Good, stats.delivered_http),
        view.api_node.stats.duplicates,
    ));
    lines
}

/// Which phase of a script it is, what is broken, and what should come of it; `None`: interrupted.
pub(crate) fn heading(
    (script, phase): (&[Phase], Option<usize>),
    left: Duration,
    broken_now: bool,
    style: Style,
) -> [String; 3] {
    let Some((index, Phase { name, broken, expected, .. })) = phase.and_then(|index| Some((index, script.get(index)?)))
    else {
        return [
            format!("  {}", style.paint(Paint::Strong, "stopping")),
            "  nothing more is sent, and nothing is broken any more".into(),
            style.paint(Paint::Dim, "  what is under way has a few seconds; Ctrl-C again ends at once"),
        ];
    };
    let title = format!("{}/{}  {name}", index + 1, script.len());
    let left = match left.as_secs_f64().ceil() {
        left if left > 0.0 => format!("about {left} s left"),
        _ => "until it is back".into(),
    };
    let gap = " ".repeat(WIDTH.saturating_sub(4 + title.chars().count() + left.len()));
    [
        format!("  {}{gap}{}", style.paint(Paint::Strong, title), style.paint(Paint::Dim, left)),
        format!("  {}", style.paint(if broken_now { Paint::Bad } else { Paint::Good }, broken)),
        format!("  {}", style.paint(Paint::Dim, expected)),
    ]
}

/// Both nodes and the two ways between them.
fn map(view: &View<'_>, style: Style) -> [String; 3] {
    let (ml, api) = (view.ml_node, view.api_node);
    let websocket = way(ml.connection.is_some(), ml.path == Path::WebSocket, style);
    let http = way(view.http != Fault::Refuse, ml.path == Path::Http, style);
    let row = |left: &str, name: &str, way: &str, fault: &str, right: &str| {
        format!("  {left:<14}{name:<10}{way}  {fault:<26}{right}")
    };
    [
        style.paint(Paint::Strong, row("ML node", "", "       ", "", "API node")),
        row(words::state(ml.state), "WebSocket", &websocket, words::fault(view.websocket), words::state(api.state)),
        row(
            &format!("{} waiting", ml.backlog),
            "HTTP",
            &http,
            words::fault(view.http),
            &format!("working on {}", api.held),
        ),
    ]
}

/// Traffic, a way that is open, or none.
pub(crate) fn way(open: bool, used: bool, style: Style) -> String {
    match (open, used) {
        (true, true) => style.paint(Paint::Good, "━━━━━━▶"),
        (true, false) => style.paint(Paint::Dim, "──────▷"),
        (false, _) => style.paint(Paint::Bad, "┄┄┄┄┄┄╳"),
    }
}

/// What is done, what is begun, and what is to come.
pub(crate) fn bar(done: u64, begun: u64, all: u64) -> String {
    const CELLS: u64 = 50;
    let cells = |part: u64| (part * CELLS).div_ceil(all.max(1)).min(CELLS);
    let (done, begun) = (cells(done), cells(begun));
    let cell = |n| {
        if n < done {
            '█'
        } else if n < begun {
            '▒'
        } else {
            '░'
        }
    };
    (0..CELLS).map(cell).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bowline::{LinkId, State, Stats};

    fn status(state: State, path: Path, connection: Option<LinkId>) -> Status {
        let stats = Stats {
            accepted: 1000,
            delivered_websocket: 499,
            delivered_http: 501,
            duplicates: 1000,
            ..Stats::default()
        };
        Status {
            state,
            path,
            connection,
            backlog: 64,
            held: 64,
            websocket: bowline_transport::PathReport::default(),
            http: bowline_transport::PathReport::default(),
            stats,
        }
    }

    #[test]
    fn every_picture_fits_into_eighty_columns_and_has_the_same_height() {
        let states = [
            State::Idle,
            State::Waiting,
            State::Connecting,
            State::Handshaking,
            State::Up,
            State::Suspect,
            State::Degraded,
            State::Suspended,
            State::Closing,
            State::Failed,
            State::Closed,
        ];
        let mut heights = Vec::new();
        for phase in (0..SCRIPT.len()).map(Some).chain([None]) {
            for state in states {
                for path in [Path::WebSocket, Path::Http] {
                    let ml_node = status(state, path, Some(LinkId::NONE));
                    let api_node = status(state, path, None);
                    let script = phase.and_then(|phase| SCRIPT.get(phase));
                    let view = View {
                        phase,
                        left: Duration::from_secs(120),
                        ml_node: &ml_node,
                        api_node: &api_node,
                        websocket: script.map_or(Fault::Calm, |phase| phase.websocket.fault(9)),
                        http: script.map_or(Fault::Calm, |phase| phase.http.fault(9)),
                        batches: 1000,
                        capacity: 64,
                    };
                    let drawn = lines(&view, Style(false));
                    heights.push(drawn.len());
                    for line in drawn {
                        assert!(line.chars().count() <= WIDTH, "{line}");
                    }
                }
            }
        }
        heights.dedup();
        assert_eq!(heights.len(), 1);
        assert!(heights[0] <= 16, "it leaves room for lines above it");
    }

    #[test]
    fn a_bar_is_full_when_all_is_done_and_shows_the_first_of_many() {
        assert!(bar(240, 240, 240).chars().all(|cell| cell == '█'));
        assert!(bar(0, 0, 64).chars().all(|cell| cell == '░'));
        assert!(bar(1, 2, 1000).starts_with('█'));
        assert_eq!(bar(10, 20, 0).chars().count(), 50);
    }
}
