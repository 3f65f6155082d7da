//! The picture that is redrawn while the scene runs: as wide as every terminal, and always of the same height.

use super::super::live::{bar, heading, way};
use super::super::show::{Paint, Style};
use super::super::words;
use super::Both;
use super::script::SCRIPT;
use bowline::Path;
use bowline_cli::proxy::Fault;
use bowline_transport::Status;
use core::time::Duration;

/// Everything that is drawn.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Which phase, counted from 0; `None`: interrupted.
    pub(super) phase: Option<usize>,
    /// Until the script's natural end.
    pub(super) left: Duration,
    pub(super) client: &'a Status,
    /// What is wrong with the WebSocket.
    pub(super) websocket: Fault,
    /// What is wrong with HTTP.
    pub(super) http: Fault,
    /// Messages in all, each way.
    pub(super) messages: u64,
    pub(super) sent: Both<u64>,
    pub(super) delivered: Both<u64>,
    /// Connections there were.
    pub(super) connections: u64,
}

/// Draws it.
pub(super) fn lines(view: &View<'_>, style: Style) -> Vec<String> {
    let client = view.client;
    let broken_now = view.websocket != Fault::Calm || view.http != Fault::Calm;
    let websocket = way(client.connection.is_some(), client.path == Path::WebSocket, style);
    let http = way(view.http != Fault::Refuse, client.path == Path::Http, style);
    let row = |left: &str, name: &str, way: &str, fault: &str| format!("  {left:<16}{name:<10}{way}  {fault}");
    let progress = |name: &str, sent: u64, delivered: u64| {
        format!("  {}  {delivered} {name}", bar(delivered, sent, view.messages))
    };
    let mut lines = vec![String::new()];
    lines.extend(heading((SCRIPT, view.phase), view.left, broken_now, style));
    lines.extend([
        String::new(),
        row(words::state(client.state), "WebSocket", &websocket, words::fault(view.websocket)),
        row("", "HTTP", &http, words::fault(view.http)),
        String::new(),
        progress("to the hub", view.sent.to_hub, view.delivered.to_hub),
        progress("to the client", view.sent.to_client, view.delivered.to_client),
        style.paint(Paint::Dim, format!("  {} each way; {} connections so far", view.messages, view.connections)),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::super::super::live::WIDTH;
    use super::*;
    use bowline::{LinkId, State, Stats};

    #[test]
    fn every_picture_fits_and_has_the_same_height() {
        for phase in (0..SCRIPT.len()).map(Some).chain([None]) {
            for state in [State::Up, State::Waiting, State::Suspended] {
                let stats = Stats::default();
                let connection = Some(LinkId::NONE);
                let client = Status {
                    state,
                    path: Path::Http,
                    connection,
                    backlog: 64,
                    held: 64,
                    websocket: bowline_transport::PathReport::default(),
                    http: bowline_transport::PathReport::default(),
                    stats,
                };
                let script = phase.and_then(|phase| SCRIPT.get(phase));
                let view = View {
                    phase,
                    left: Duration::from_secs(180),
                    client: &client,
                    websocket: script.map_or(Fault::Calm, |phase| phase.websocket.fault(9)),
                    http: script.map_or(Fault::Calm, |phase| phase.http.fault(9)),
                    messages: 1_000_000,
                    sent: Both { to_hub: 1_000_000, to_client: 1_000_000 },
                    delivered: Both { to_hub: 999_999, to_client: 999_999 },
                    connections: 999,
                };
                let drawn = lines(&view, Style(false));
                assert_eq!(drawn.len(), 11);
                assert!(drawn.iter().all(|line| line.chars().count() <= WIDTH), "{drawn:#?}");
            }
        }
    }
}
