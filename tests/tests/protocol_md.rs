//! `PROTOCOL.md` against the code: its tables, its examples, and that every rule has its place there and a test here.

use core::fmt::Write as _;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use bowline::hub::{BETTENSOR_HUB, Bulk, CloseReason, Duplicate, HubConfig, Rate, Slow, TopicsConfig, VILLAGE_HUB};
use bowline::wire::aivillage::{self, Dialect, Request, Unaddressed};
use bowline::wire::gonka::{self, Kind};
use bowline::wire::native;
use bowline::wire::timestamp::Timestamp;
use bowline::{
    AckWait, Answer, BETTENSOR_MINER, BackoffConfig, CloseMatch, CloseRule, Config, DedupBy, GONKA_API_NODE,
    GONKA_ML_NODE, GiveUp, HeartbeatConfig, Hedge, HttpClass, HttpOutcome, InboxConfig, Jitter, LinkConfig, NATIVE,
    NATIVE_PEER, NativeConfig, Newcomer, OnReject, OutboxConfig, ProgramLife, Proof, Ready, Reason, RetryClass, Role,
    RouteConfig, TlsFault, VILLAGE_VIEWER, retry_class,
};
use core::time::Duration;
use serde_json::Value;

const PAGE: &str = include_str!("../../PROTOCOL.md");
const VECTORS: &str = include_str!("../vectors/gonka.jsonl");
const NATIVE_VECTORS: &str = include_str!("../vectors/native.jsonl");

/// The rules that hold today. R10 and P7 are later work.
const RULES: &[(&str, &[u8])] = &[
    ("N", &[1, 2, 3]),
    ("I", &[1, 2, 3, 4, 5, 6, 7]),
    ("S", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]),
    ("R", &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ("H", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ("F", &[0, 1, 2, 3, 4, 5, 6, 7, 8]),
    ("P", &[1, 2, 3, 4, 5, 6, 8]),
    ("B", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
    ("L", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    ("T", &[1, 2, 3, 4, 5, 6, 7, 8]),
    ("U", &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14]),
    ("E", &[1, 2, 3, 4]),
];

fn rules() -> impl Iterator<Item = String> {
    RULES.iter().flat_map(|(letter, numbers)| numbers.iter().map(move |number| format!("{letter}{number}")))
}

/// The text of each section that begins with a heading of the third level, by the heading's first word.
fn sections() -> Vec<(&'static str, &'static str)> {
    let heading = |text: &'static str| text.split_whitespace().next().unwrap_or_default();
    let to_next = |text: &'static str| text.split("\n## ").next().unwrap_or_default();
    PAGE.split("\n### ").skip(1).map(|text| (heading(text), to_next(text))).collect()
}

/// The rows of the one table whose header begins with these cells, without header and rule.
fn table(header: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let inside = line.trim().trim_start_matches('|').trim_end_matches('|');
        inside.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let begins = |line: &str| line.starts_with('|') && cells(line).iter().take(header.len()).eq(header);
    let places: Vec<usize> = PAGE.lines().enumerate().filter(|(_, line)| begins(line)).map(|(at, _)| at).collect();
    assert_eq!(places.len(), 1, "PROTOCOL.md should have one table that begins with the columns {header:?}");
    let mut rows: Vec<Vec<String>> =
        PAGE.lines().skip(places[0]).take_while(|line| line.starts_with('|')).map(cells).collect();
    for row in &rows {
        assert_eq!(row.len(), rows[0].len(), "a row of another width in the table {header:?}: {row:?}");
    }
    rows.split_off(2)
}

fn unquoted(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// `1002` or `3500–3999`, both ends included.
fn range(text: &str) -> core::ops::RangeInclusive<u16> {
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("neither a number nor a known word: {text:?}"));
    match text.split_once('–') {
        Some((first, last)) => number(first)..=number(last),
        None => number(text)..=number(text),
    }
}

/// Everything that a connection can end by, except our own wish.
fn causes() -> impl Iterator<Item = Reason> {
    let words = [
        Reason::PortClosed,
        Reason::NoSuchName,
        Reason::LookupFailed,
        Reason::Unreachable,
        Reason::System,
        Reason::NotWebSocket,
        Reason::Subprotocol,
        Reason::SpeaksTls,
        Reason::Signer,
        Reason::Tls(TlsFault::Expired),
        Reason::Tls(TlsFault::NotYetValid),
        Reason::Tls(TlsFault::UnknownIssuer),
        Reason::Tls(TlsFault::WrongName),
        Reason::Tls(TlsFault::NotTls),
        Reason::Tls(TlsFault::Refused),
        Reason::Tls(TlsFault::Other),
        Reason::Timeout,
        Reason::Dead,
        Reason::Mute,
        Reason::Stalled,
        Reason::Unanswered,
        Reason::Violation,
        Reason::Replaced,
    ];
    words.into_iter().chain((0..=u16::MAX).map(Reason::Closed)).chain((0..=u16::MAX).map(Reason::Status))
}

/// What one item of the table's first column speaks of; empty for "any other".
fn named(item: &str) -> Vec<Reason> {
    match item {
        "not connected" => vec![
            Reason::PortClosed,
            Reason::NoSuchName,
            Reason::LookupFailed,
            Reason::Unreachable,
            Reason::System,
            Reason::Tls(TlsFault::Other),
        ],
        "no WebSocket server" => vec![Reason::NotWebSocket],
        "wrong scheme" => vec![Reason::SpeaksTls, Reason::Tls(TlsFault::NotTls)],
        "signer" => vec![Reason::Signer],
        "certificate" => vec![
            Reason::Tls(TlsFault::Expired),
            Reason::Tls(TlsFault::NotYetValid),
            Reason::Tls(TlsFault::UnknownIssuer),
            Reason::Tls(TlsFault::WrongName),
            Reason::Tls(TlsFault::Refused),
        ],
        "timeout" => vec![Reason::Timeout],
        "subprotocol" => vec![Reason::Subprotocol],
        "mute" => vec![Reason::Mute],
        "dead" => vec![Reason::Dead],
        "stalled" => vec![Reason::Stalled],
        "unanswered" => vec![Reason::Unanswered],
        "violation" => vec![Reason::Violation],
        "replaced" => vec![Reason::Replaced],
        "any other close code" | "any other HTTP status" => vec![],
        _ => match item.strip_prefix("HTTP ") {
            Some(status) => range(status).map(Reason::Status).collect(),
            None => range(item).map(Reason::Closed).collect(),
        },
    }
}

#[test]
fn the_close_and_refusal_table_is_the_codes() {
    let rows = table(&["ended by", "class", "Gonka API node"]);
    for (column, own, name) in [(1, &[] as &[CloseRule], "class"), (2, GONKA_API_NODE.link.rows, "Gonka API node")] {
        let mut told = BTreeMap::new();
        let mut others = None;
        for row in &rows {
            let class = unquoted(&row[column]);
            for item in row[0].split(", ") {
                let causes = named(item);
                if causes.is_empty() {
                    others = Some(class);
                }
                for reason in causes {
                    let twice = told.insert(format!("{reason:?}"), class);
                    assert_eq!(twice, None, "{reason:?} is in two rows");
                }
            }
        }
        for reason in causes() {
            let class = told.get(&format!("{reason:?}")).copied().or(others);
            let code = format!("{:?}", retry_class(own, reason));
            assert_eq!(class, Some(code.as_str()), "PROTOCOL.md, column {name:?}, against the code: {reason:?}");
        }
    }
    // A row that the table does not know of would show in the loop above only if it changed something.
    for profile in [GONKA_ML_NODE, BETTENSOR_MINER, VILLAGE_VIEWER, Config::DEFAULT] {
        assert!(profile.link.rows.is_empty());
    }
}

#[test]
fn h_the_table_of_http_outcomes_is_the_codes() {
    let rows = table(&["class", "with the peer's mark", "without"]);
    for (column, outcome) in [(1, HttpOutcome::status as fn(u16) -> HttpOutcome), (2, HttpOutcome::foreign)] {
        let mut told: BTreeMap<u16, &str> = BTreeMap::new();
        let mut others = None;
        for row in &rows {
            for item in row[column].split(", ").filter(|item| !item.is_empty()) {
                if item == "any other" {
                    others = Some(unquoted(&row[0]));
                    continue;
                }
                for status in range(item) {
                    assert_eq!(told.insert(status, unquoted(&row[0])), None, "{status} is in two rows");
                }
            }
        }
        for status in 0..=u16::MAX {
            let class = format!("{:?}", outcome(status).class());
            let said = told.get(&status).copied().or(others);
            assert_eq!(said, Some(class.as_str()), "PROTOCOL.md against the code: {status}, column {column}");
        }
    }
    for outcome in [HttpOutcome::Unreached(Reason::PortClosed), HttpOutcome::Unknown(Reason::Timeout)] {
        assert_eq!(outcome.class(), HttpClass::DelayPath, "the page says so below the table");
    }
}

#[test]
fn the_table_of_answers_is_the_codes() {
    let rows = table(&["status", "when", "how the core says it"]);
    let told: BTreeSet<(&str, String)> =
        rows.iter().map(|row| (unquoted(&row[2]), row[0].chars().take(3).collect())).collect();
    let answers = [
        ("Done", Answer::Done),
        ("Rejected", Answer::Rejected),
        ("Reused", Answer::Reused),
        ("Again", Answer::Again { after: Duration::ZERO }),
        ("Busy", Answer::Busy { after: Duration::ZERO }),
    ];
    assert_eq!(told, answers.map(|(name, answer)| (name, answer.status().to_string())).into());
}

#[test]
fn u8_the_table_of_a_hubs_reasons_is_the_codes() {
    let told: Vec<[String; 3]> = table(&["reason", "close code", "status"])
        .into_iter()
        .map(|row| [unquoted(&row[0]).to_owned(), row[1].clone(), row[2].clone()])
        .collect();
    let code = CloseReason::ALL.map(|why| [format!("{why:?}"), why.code().to_string(), why.status().to_string()]);
    assert_eq!(told, code);
}

#[test]
fn the_table_of_settings_is_the_codes() {
    let columns = ["setting", "default", "Gonka API node", "Gonka ML node", "Bettensor miner", "AI Village viewer"];
    let told: Vec<Vec<String>> = table(&columns)
        .into_iter()
        .map(|mut row| {
            row.truncate(columns.len());
            row[0] = unquoted(&row[0]).to_owned();
            row
        })
        .collect();
    let profiles = [Config::DEFAULT, GONKA_API_NODE, GONKA_ML_NODE, BETTENSOR_MINER, VILLAGE_VIEWER].map(settings);
    let row = |at: usize| {
        profiles[0].get(at).map(|(name, _)| {
            let values = profiles.iter().map(|settings| settings[at].1.clone());
            core::iter::once((*name).to_owned()).chain(values).collect()
        })
    };
    let code: Vec<Vec<String>> = (0..).map_while(row).collect();
    let mut differences = String::new();
    for row in code.iter().filter(|row| !told.contains(row)) {
        let _ = writeln!(differences, "  the code says     | `{}` | {} |", row[0], row[1..].join(" | "));
    }
    for row in told.iter().filter(|row| !code.contains(row)) {
        let _ = writeln!(differences, "  PROTOCOL.md says  | `{}` | {} |", row[0], row[1..].join(" | "));
    }
    assert!(differences.is_empty(), "section 4 of PROTOCOL.md and the code differ:\n{differences}");
    assert_eq!(told, code, "the settings are in the order of the code");
}

const fn dedup_by(dedup: DedupBy) -> &'static str {
    match dedup {
        DedupBy::IdOrContent => "id or content",
        DedupBy::Id => "id",
        DedupBy::IdAndContent => "id and content",
    }
}

/// Every field of a configuration as the page writes it. Taken apart by name, so that a new field cannot be forgotten.
fn settings(config: Config) -> Vec<(&'static str, String)> {
    let Config { link, heartbeat, outbox, inbox, route, native } = config;
    let LinkConfig {
        role,
        ready,
        attempt,
        newcomer,
        closing,
        farewell,
        knock,
        stable,
        suspend,
        blocked,
        give_up,
        backoff,
        short_lives,
        write_timeout,
        malformed_limit,
        rows,
    } = link;
    let newcomer = match newcomer {
        Newcomer::Probes => "probes",
        Newcomer::Replaces => "replaces",
        Newcomer::IsRefused => "is refused",
    };
    let mut all = vec![
        ("link.role", if role == Role::Dialer { "dialer" } else { "acceptor" }.to_owned()),
        ("link.ready", if ready == Ready::Open { "open" } else { "hello" }.to_owned()),
        ("link.attempt", span(attempt)),
        ("link.newcomer", newcomer.to_owned()),
        ("link.closing", span(closing)),
        ("link.farewell", farewell.to_string()),
        ("link.knock", span(knock)),
        ("link.stable", span(stable)),
        ("link.suspend", span(suspend)),
        ("link.blocked", span(blocked)),
        ("link.give_up", give_up_after(give_up)),
        ("link.backoff", delays(backoff)),
        ("link.short_lives", short_lives.to_string()),
        ("link.write_timeout", span(write_timeout)),
        ("link.malformed_limit", malformed_limit.to_string()),
        ("link.rows", own_rows(rows)),
    ];
    let HeartbeatConfig { interval, dead, keepalive, probe, program } = heartbeat;
    let program = match program {
        ProgramLife::Unwatched => "unwatched".to_owned(),
        ProgramLife::Answers(limit) => format!("answers in {}", span(limit)),
        ProgramLife::Data(limit) => format!("data within {}", span(limit)),
    };
    all.extend([
        ("heartbeat.interval", never_if_zero(interval)),
        ("heartbeat.dead", span(dead)),
        ("heartbeat.keepalive", never_if_zero(keepalive)),
        ("heartbeat.probe", span(probe)),
        ("heartbeat.program", program),
    ]);
    let OutboxConfig { capacity, bytes, proof, ack_wait, life, patience, frame_limit, post_limit } = outbox;
    all.extend([
        ("outbox.capacity", capacity.to_string()),
        ("outbox.bytes", size(u32::try_from(bytes).unwrap())),
        ("outbox.proof", if proof == Proof::Pong { "pong" } else { "acknowledgement" }.to_owned()),
        ("outbox.ack_wait", wait(ack_wait)),
        ("outbox.life", life.map_or("none".to_owned(), span)),
        ("outbox.patience", span(patience)),
        ("outbox.frame_limit", size(frame_limit)),
        ("outbox.post_limit", size(post_limit)),
    ]);
    let InboxConfig { bytes, held, dedup, horizon, peer_life, answer_wait, on_reject, after_loss } = inbox;
    all.extend([
        ("inbox.bytes", size(u32::try_from(bytes).unwrap())),
        ("inbox.held", held.to_string()),
        ("inbox.dedup", dedup_by(dedup).to_owned()),
        ("inbox.horizon", span(horizon)),
        ("inbox.peer_life", span(peer_life)),
        ("inbox.answer_wait", span(answer_wait)),
        ("inbox.on_reject", if on_reject == OnReject::Acknowledge { "acknowledge" } else { "silence" }.to_owned()),
        ("inbox.after_loss", yes(after_loss)),
    ]);
    let RouteConfig {
        http,
        grace,
        stable,
        stable_most,
        flap,
        stay,
        posts,
        hedge,
        progress,
        thinking,
        backoff,
        blocked,
    } = route;
    all.extend([
        ("route.http", yes(http)),
        ("route.grace", span(grace)),
        ("route.stable", span(stable)),
        ("route.stable_most", span(stable_most)),
        ("route.flap", span(flap)),
        ("route.stay", span(stay)),
        ("route.posts", posts.to_string()),
        ("route.hedge", if hedge == Hedge::Budget { "budget" } else { "always" }.to_owned()),
        ("route.progress", span(progress)),
        ("route.thinking", span(thinking)),
        ("route.backoff", delays(backoff)),
        ("route.blocked", span(blocked)),
        ("native", if native.is_some() { "yes" } else { "no" }.to_owned()),
    ]);
    all
}

#[test]
fn the_table_of_a_native_peers_settings_is_the_codes() {
    let columns = ["setting of a native peer", "client", "hub's side"];
    let mut told = table(&columns);
    for row in &mut told {
        row.truncate(columns.len());
        row[0] = unquoted(&row[0]).to_owned();
    }
    let both = [NATIVE, NATIVE_PEER];
    let [client, hub] = both.map(settings);
    let default = settings(Config::DEFAULT);
    let rows = default
        .iter()
        .zip(client.into_iter().zip(hub))
        .filter(|(default, (client, hub))| default.1 != client.1 || default.1 != hub.1);
    let mut code: Vec<[String; 3]> =
        rows.map(|((name, _), ((_, client), (_, hub)))| [(*name).to_owned(), client, hub]).collect();
    let own = both.map(|config| config.native.unwrap());
    let NativeConfig { order: _, poll: _ } = own[0];
    code.push(["native.order".to_owned(), yes(own[0].order), yes(own[1].order)]);
    code.push(["native.poll".to_owned(), span(own[0].poll), span(own[1].poll)]);
    let spelt = |row: &[String; 3]| format!("| `{}` | {} | {} |\n", row[0], row[1], row[2]);
    assert_eq!(told, code, "{}", code.iter().map(spelt).collect::<String>());
}

#[test]
fn the_table_of_waits_is_the_codes() {
    let waits = |config: Config| match config.outbox.ack_wait {
        AckWait::Adaptive { first, least, most } => [span(first), span(least), span(most)],
        AckWait::Fixed(_) => panic!("none is fixed"),
    };
    let code = [Config::DEFAULT, GONKA_ML_NODE, BETTENSOR_MINER, NATIVE, BETTENSOR_HUB.session].map(waits);
    for arrival in [NATIVE_PEER, VILLAGE_VIEWER, VILLAGE_HUB.session] {
        assert_eq!(waits(arrival), waits(NATIVE));
    }
    let told = table(&["wait of", "first", "least", "most"]);
    assert_eq!(told.iter().map(|row| row[1..4].to_vec()).collect::<Vec<_>>(), code.map(Vec::from));
    assert!(PAGE.contains(&format!("{} kB/s, which a working link has", bowline::LOWEST_RATE / 1000)));
    let slowest = bowline_transport::http::SLOWEST_BODY / 1000;
    assert!(PAGE.contains(&format!("a body by HTTP has the time of {slowest} kB/s (H10)")));
}

#[test]
fn the_table_of_a_hubs_settings_is_the_codes() {
    let mut told = table(&["setting", "hub", "Bettensor's hub", "AI Village's hub"]);
    for row in &mut told {
        row.truncate(4);
        row[0] = unquoted(&row[0]).to_owned();
    }
    let hubs = [HubConfig::DEFAULT, BETTENSOR_HUB, VILLAGE_HUB].map(hub_settings);
    let row = |at: usize| {
        hubs[0].get(at).map(|(name, _)| {
            let values = hubs.iter().map(|settings| settings[at].1.clone());
            core::iter::once(name.clone()).chain(values).collect()
        })
    };
    let code: Vec<Vec<String>> = (0..).map_while(row).collect();
    let spelt = |row: &Vec<String>| format!("| `{}` | {} |\n", row[0], row[1..].join(" | "));
    assert_eq!(told, code, "{}", code.iter().map(spelt).collect::<String>());
}

/// Every field as the page writes it, and of the session those in which a hub's differ from the default.
fn hub_settings(config: HubConfig) -> Vec<(String, String)> {
    let HubConfig {
        session,
        native,
        held_bytes,
        sessions,
        connections,
        pending,
        addresses,
        per_address_connections,
        duplicate,
        hello,
        ttl,
        handshakes,
        ticket_most,
        per_address,
        per_identity,
        tolerance,
        bulk,
        topics,
        war_most,
        war_within,
        war_pause,
        fleet_low,
        fleet_high,
        idle,
        reconnect_window,
    } = config;
    let Bulk { slow, most, log } = bulk;
    let TopicsConfig {
        topics,
        subscriptions,
        per_session,
        filters,
        filters_per_session,
        history,
        bytes: topic_bytes,
        age,
        presence,
    } = topics;
    let rate = |rate: Rate| match rate {
        Rate { per_second: 0, .. } => "unlimited".to_owned(),
        Rate { per_second, burst } => format!("{per_second}/s, {burst} at once"),
    };
    let bytes = |rate: Rate| format!("{}/s, {} at once", size(rate.per_second), size(rate.burst));
    let duplicate = match duplicate {
        Duplicate::Replace => "replaces".to_owned(),
        Duplicate::ProbeThenReplace => "probes".to_owned(),
        Duplicate::Refuse => "is refused".to_owned(),
        Duplicate::Allow(n) => format!("{n} side by side"),
    };
    let slow = match slow {
        Slow::DropNewest => "drop newest",
        Slow::DropOldest => "drop oldest",
        Slow::Conflate => "conflate",
        Slow::Disconnect => "disconnect",
    };
    let mut all: Vec<(String, String)> = [
        ("native", if native.is_some() { "yes" } else { "no" }.to_owned()),
        ("held_bytes", size(u32::try_from(held_bytes).unwrap())),
        ("sessions", sessions.to_string()),
        ("connections", connections.to_string()),
        ("pending", pending.to_string()),
        ("addresses", addresses.to_string()),
        ("per_address_connections", per_address_connections.to_string()),
        ("duplicate", duplicate),
        ("hello", span(hello)),
        ("ttl", span(ttl)),
        ("handshakes", rate(handshakes)),
        ("ticket_most", span(ticket_most)),
        ("per_address.handshakes", rate(per_address.handshakes)),
        ("per_address.messages", rate(per_address.messages)),
        ("per_address.bytes", bytes(per_address.bytes)),
        ("per_identity.handshakes", rate(per_identity.handshakes)),
        ("per_identity.messages", rate(per_identity.messages)),
        ("per_identity.bytes", bytes(per_identity.bytes)),
        ("tolerance", span(tolerance)),
        ("bulk.slow", slow.to_owned()),
        ("bulk.most", most.to_string()),
        ("bulk.log.messages", log.messages.to_string()),
        ("bulk.log.bytes", size(u32::try_from(log.bytes).unwrap())),
        ("bulk.log.age", span(log.age)),
        ("topics.topics", topics.to_string()),
        ("topics.subscriptions", subscriptions.to_string()),
        ("topics.per_session", per_session.to_string()),
        ("topics.filters", filters.to_string()),
        ("topics.filters_per_session", filters_per_session.to_string()),
        ("topics.history", history.to_string()),
        ("topics.bytes", size(u32::try_from(topic_bytes).unwrap())),
        ("topics.age", span(age)),
        ("topics.presence", if presence { "yes" } else { "no" }.to_owned()),
        ("war_most", war_most.to_string()),
        ("war_within", span(war_within)),
        ("war_pause", span(war_pause)),
        ("fleet_low, fleet_high", format!("{fleet_low} %, {fleet_high} %")),
        ("idle", span(idle)),
        ("reconnect_window", span(reconnect_window)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let of_session = settings(session).into_iter().map(|(name, value)| (format!("session.{name}"), value));
    let defaults: BTreeMap<&str, String> = settings(Config::DEFAULT).into_iter().collect();
    let differs = |name: &str| {
        let ours = [HubConfig::DEFAULT, BETTENSOR_HUB, VILLAGE_HUB]
            .map(|hub| settings(hub.session).into_iter().collect::<BTreeMap<_, _>>());
        ours.iter().any(|ours| ours[name] != defaults[name])
    };
    all.extend(of_session.filter(|(name, _)| differs(name.trim_start_matches("session."))));
    all
}

fn give_up_after(give_up: GiveUp) -> String {
    match give_up {
        GiveUp::Never => "never".to_owned(),
        GiveUp::After(time) => span(time),
        GiveUp::Refusals(most) => format!("{most} refusals"),
    }
}

fn span(span: Duration) -> String {
    match (span.as_secs(), span.subsec_millis()) {
        (s, 0) if s >= 3600 && s.is_multiple_of(3600) => format!("{} h", s / 3600),
        (s, 0) if s >= 300 && s.is_multiple_of(60) => format!("{} min", s / 60),
        (s, 0) => format!("{s} s"),
        _ => format!("{} ms", span.as_millis()),
    }
}

fn never_if_zero(of: Duration) -> String {
    if of.is_zero() { "never".to_owned() } else { span(of) }
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn size(bytes: u32) -> String {
    assert_eq!(bytes % (1 << 10), 0);
    if bytes.is_multiple_of(1 << 20) { format!("{} MiB", bytes >> 20) } else { format!("{} KiB", bytes >> 10) }
}

fn wait(wait: AckWait) -> String {
    match wait {
        AckWait::Fixed(wait) => span(wait),
        AckWait::Adaptive { first, least, most } => format!("{}, then {} to {}", span(first), span(least), span(most)),
    }
}

fn delays(backoff: BackoffConfig) -> String {
    let BackoffConfig { floor, base, cap, jitter } = backoff;
    if jitter == Jitter::Equal {
        assert!(floor.is_zero(), "the page has no spelling for it yet");
        return format!("U(½, 1) · min({}, {} · 2ⁿ)", span(cap), span(base));
    }
    if base == cap {
        format!("{} + U(0, {})", span(floor), span(cap))
    } else {
        format!("{} + U(0, min({}, {} · 2ⁿ))", span(floor), span(cap), span(base))
    }
}

fn own_rows(rows: &[CloseRule]) -> String {
    let spelt = rows.iter().map(|CloseRule(on, class): &CloseRule| match on {
        CloseMatch::Close(first, last) if first == last => format!("{first} `{class:?}`"),
        CloseMatch::Close(first, last) => format!("{first}–{last} `{class:?}`"),
        CloseMatch::Status(first, last) if first == last => format!("HTTP {first} `{class:?}`"),
        CloseMatch::Status(first, last) => format!("HTTP {first}–{last} `{class:?}`"),
        CloseMatch::Is(reason) => format!("{reason:?} `{class:?}`"),
    });
    let spelt: Vec<String> = spelt.collect();
    if spelt.is_empty() { "none".to_owned() } else { spelt.join(", ") }
}

/// The JSON examples in a part of the page.
fn examples(text: &'static str) -> Vec<&'static str> {
    text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().trim_end()).collect()
}

/// The section with this number.
fn section(number: u8) -> &'static str {
    PAGE.split(&format!("\n## {number}.")).nth(1).unwrap().split("\n## ").next().unwrap()
}

fn vectors(file: &str) -> Vec<Value> {
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_native_frames_are_those_of_the_page() {
    let rows = vectors(NATIVE_VECTORS);
    let frames: Vec<&str> =
        rows.iter().filter(|row| row["exact"] == true).filter_map(|row| row["frame"].as_str()).collect();
    let examples = examples(section(8));
    assert_eq!(examples.len(), 2);
    for example in examples {
        assert!(frames.contains(&example.trim()), "no such frame in tests/vectors/native.jsonl:\n{example}");
    }
    let members = |kind: &str| -> BTreeSet<String> {
        let values = frames.iter().map(|frame| serde_json::from_str::<Value>(frame).unwrap());
        let of_kind = values.filter(|value| value["type"] == kind && value.get("wait").is_none());
        let all = of_kind.flat_map(|value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>());
        all.filter(|name| name != "type").collect()
    };
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let ack = members("ack");
    for row in table(&["frame", "members", "who"]) {
        let outside: String =
            row[1].split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest)).collect();
        let mut told: BTreeSet<String> = quoted(&outside).into_iter().collect();
        if told.remove("ack") {
            told.extend(ack.clone());
        }
        for kind in quoted(&row[0]).iter().filter(|_| row[1] != "see 8.2") {
            assert_eq!(members(kind), told, "the members of {kind} in PROTOCOL.md and in tests/vectors/native.jsonl");
        }
    }
    let told: BTreeSet<String> = table(&["member of `hello`"]).iter().flat_map(|row| quoted(&row[0])).collect();
    assert_eq!(members("hello"), told);
    for constant in [native::SUBPROTOCOL, native::PATH, native::HELLO, native::MESSAGES, native::POLL] {
        assert!(section(8).contains(constant), "section 8 does not mention {constant}");
    }
    let reasons: Vec<String> =
        table(&["reason", "resume was asked for, but"]).iter().map(|row| unquoted(&row[0]).to_owned()).collect();
    assert_eq!(reasons, bowline::ResumeRefusal::ALL.map(bowline::ResumeRefusal::as_str));
}

#[test]
fn the_examples_are_recorded_messages_and_the_codec_takes_them() {
    let rows = vectors(VECTORS);
    let examples = examples(section(2));
    assert!(examples.len() >= 4, "the examples are gone");
    for example in examples {
        let value: Value = serde_json::from_str(example).unwrap();
        if value == serde_json::from_str::<Value>(gonka::KEEPALIVE).unwrap() {
            assert_eq!(gonka::decode(example.as_bytes()), Ok(gonka::Frame::Other));
            continue;
        }
        let row = rows.iter().find(|row| row["json"] == value);
        let row = row.unwrap_or_else(|| panic!("no such message in tests/vectors/gonka.jsonl:\n{example}"));
        if row["transport"] == "http" {
            let kind = Kind::parse(row["kind"].as_str().unwrap().trim_start_matches("http_")).unwrap();
            gonka::decode_body(kind, example.as_bytes()).unwrap();
        } else {
            assert_ne!(gonka::decode(example.as_bytes()), Ok(gonka::Frame::Other));
        }
    }
    for said in [gonka::PATH, gonka::CALLBACK, gonka::CALLBACK_MLNODE, gonka::CLOSE_NOT_RUNNING, gonka::CLOSE_NOT_READY]
    {
        assert!(PAGE.contains(said), "PROTOCOL.md does not mention {said:?}");
    }
    assert!(PAGE.contains(gonka::CLOSE_TAKEN) && PAGE.contains(&gonka::CLOSE_CODE.to_string()));
    assert_eq!(retry_class(GONKA_API_NODE.link.rows, Reason::Closed(gonka::CLOSE_CODE)), RetryClass::Wait);
}

#[test]
fn the_examples_of_ai_village_are_recorded_messages_or_ours_and_the_codec_writes_them() {
    let rows = vectors(include_str!("../vectors/aivillage.jsonl"));
    let mut ours = 0;
    for example in examples(section(7)) {
        let value: Value = serde_json::from_str(example).unwrap();
        if !rows.iter().any(|row| row["json"] == value) {
            let ours_alone =
                ["\"since\"", "\"position\"", "\"gap\"", "\"topic\":\"training\",\"channel\":", "\"client_id\""];
            assert!(ours_alone.iter().any(|word| example.contains(word)), "{example}");
            ours += 1;
        }
        let again = match aivillage::decode_request(example.as_bytes()).unwrap() {
            Request::Subscribe { topic, dialect: Dialect::Service, since } => {
                aivillage::encode_subscribe(&topic, since)
            }
            Request::Subscribe { .. } => continue,
            _ => {
                let frame = aivillage::decode(example.as_bytes()).unwrap();
                let Some(time) = frame.timestamp.as_deref() else { continue };
                let time = Timestamp::parse(&format!("{time}+00:00")).unwrap();
                let event = Unaddressed::new(time, &frame.event().unwrap());
                let event = frame.position.as_ref().map_or(event.clone(), |position| event.at(position));
                event.to(frame.connection_id.as_deref().unwrap())
            }
        };
        assert_eq!(again, example);
    }
    assert_eq!((ours, examples(section(7)).len()), (4, 10));
    for said in [aivillage::PATH, aivillage::PATH_P2P_FOG, aivillage::INVALID_JSON] {
        assert!(PAGE.contains(said), "PROTOCOL.md does not mention {said:?}");
    }
}

#[test]
fn the_table_of_ai_villages_events_is_the_codes() {
    let rows = table(&["type", "topic", "data"]);
    assert_eq!(rows.len(), 18);
    for row in rows {
        let kind = unquoted(&row[0]);
        assert_eq!(aivillage::topic_of(kind).unwrap_or("–"), row[1], "{kind}");
        let event = aivillage::Event::read(kind, "{}").unwrap();
        let data = event.data();
        let fields: BTreeMap<&str, Value> = serde_json::from_str(&data).unwrap();
        let told: BTreeSet<&str> =
            if row[2].starts_with("any") { BTreeSet::new() } else { unquoted(&row[2]).split(", ").collect() };
        assert_eq!(fields.keys().copied().collect::<BTreeSet<_>>(), told, "{kind}");
        assert_eq!(matches!(event, aivillage::Event::Custom { .. }), kind == "custom");
    }
}

#[test]
fn the_miners_settings_have_the_names_and_defaults_of_the_page() {
    use bowline_transport::Settings;
    let rows = table(&["name", "sets", "default"]);
    assert_eq!(rows.len(), 5);
    for row in rows {
        let json = format!("{{\"{}\": {}}}", unquoted(&row[0]), row[2]);
        assert_eq!(Settings::from_json(&json).unwrap(), Settings::default(), "{json}");
    }
}

#[test]
fn every_rule_has_its_place_in_the_page() {
    let modules = root().join("core/src");
    let is_module =
        |name: &str| modules.join(format!("{name}.rs")).exists() || modules.join(name).join("mod.rs").exists();
    let mut wrong = String::new();
    for rule in rules() {
        let found: Vec<&str> =
            sections().into_iter().filter(|(heading, _)| *heading == rule).map(|(_, text)| text).collect();
        let [text] = found[..] else {
            let _ = writeln!(wrong, "  {rule}: {} headings that begin with `### {rule} `, not one", found.len());
            continue;
        };
        let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
        if !quoted.iter().any(|name| is_module(name)) {
            let _ = writeln!(wrong, "  {rule}: names no module of core/src");
        }
        if !text.split_whitespace().collect::<Vec<_>>().join(" ").contains("Guards against") {
            let _ = writeln!(wrong, "  {rule}: does not say what it guards against");
        }
    }
    let known: BTreeSet<String> = rules().collect();
    let looks_like_one = |word: &str| {
        let (letter, number) = word.split_at(word.len().min(1));
        "NISRHFPBLTUE".contains(letter) && number.parse::<u8>().is_ok()
    };
    for (heading, _) in sections().into_iter().filter(|(heading, _)| looks_like_one(heading)) {
        if !known.contains(heading) {
            let _ = writeln!(wrong, "  {heading}: a rule that this test does not know");
        }
    }
    assert!(wrong.is_empty(), "PROTOCOL.md and the list of rules differ:\n{wrong}");
}

/// A rule counts as tested if the name or the comment of at least one test says its number: `s6_…`, `…_s6`, `S6`.
#[test]
fn every_rule_is_named_by_a_test() {
    let mut tests = Vec::new();
    for folder in ["core", "tests", "adapters"] {
        for file in rust_files(&root().join(folder)) {
            // This file speaks of all rules and proves none.
            if file.file_name().is_none_or(|name| name != "protocol_md.rs") {
                tests.extend(tests_in(&fs::read_to_string(&file).unwrap()));
            }
        }
    }
    assert!(tests.len() > 50, "only {} tests were found: this test looks in the wrong place", tests.len());
    let named: BTreeSet<String> = tests.iter().flat_map(|test| words(test)).collect();
    let missing: Vec<String> = rules().filter(|rule| !named.contains(&rule.to_ascii_lowercase())).collect();
    assert!(
        missing.is_empty(),
        "no #[test] under core, tests and adapters has these rules in its name (such as `s6_…`) or in the comment \
         above it: {}",
        missing.join(", ")
    );
}

#[test]
fn the_search_for_tests_finds_what_it_should() {
    let source = "
        /// Not a test: S1.
        fn s2_helper() {}
        #[test]
        fn s3_plain() {}
        /// By its comment, S5 and
        /// over two lines (S6).
        #[test]
        #[should_panic(expected = \"S7\")]
        fn commented() { // S8
        }
        // Above an attribute: S9.
        #[test]
        fn also_commented() -> Result<(), Error> {}
        proptest! { #[test] fn i1_in_one_line(x in 0..9) {} }
        #[cfg(test)]
        fn h1_helper() {}
        let other = 1; // H2
        #[test]
        fn ends_in_t4() {}
    ";
    let found: BTreeSet<String> = tests_in(source).iter().flat_map(|test| words(test)).collect();
    let rules: Vec<String> = rules().filter(|rule| found.contains(&rule.to_ascii_lowercase())).collect();
    assert_eq!(rules, ["I1", "S3", "S5", "S6", "S9", "T4"]);
}

/// Name and comment of every test function, read line by line: a comment belongs to what follows it directly.
fn tests_in(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut is_test = false;
    for line in source.lines().map(str::trim) {
        if line.starts_with("//") {
            comment.push_str(line);
            comment.push(' ');
            continue;
        }
        is_test |= line.contains("#[test]");
        if let Some((_, name)) = line.split_once("fn ").filter(|_| is_test) {
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.push(format!("{} {comment}", &name[..end]));
        } else if line.starts_with("#[") {
            continue;
        }
        comment.clear();
        is_test = false;
    }
    found
}

/// The words of a text in lower case; `s6_a_copy` has three.
fn words(text: &str) -> Vec<String> {
    text.split(|c: char| !c.is_alphanumeric()).map(str::to_ascii_lowercase).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}
