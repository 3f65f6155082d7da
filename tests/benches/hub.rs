//! What a hub costs beside a bare loop, and what an idle miner costs. Not a test: it asserts nothing and takes minutes.
//!
//! ```text
//! cargo bench -p bowline-tests --bench hub                       all of them, as below
//! cargo bench -p bowline-tests --bench hub -- confirm            messages of 300 bytes, each confirmed, of 32 clients with 32
//!                                                                under way each; the hub remembers 128 and 1,024 of each,
//!                                                                or as many as a second word says
//! cargo bench -p bowline-tests --bench hub -- broadcast 1000     a broadcast of 1 KB to so many miners, by itself
//! cargo bench -p bowline-tests --bench hub -- bursts 1000        the same, eight at a time
//! cargo bench -p bowline-tests --bench hub -- idle 5000          memory and CPU of so many idle miners
//! cargo bench -p bowline-tests --bench hub -- full 1000          memory when so many miners have each sent more than a
//!                                                                validator remembers of one
//! cargo bench -p bowline-tests --bench hub -- reconnect 1000     the hub is killed and comes back after 2 s: the busiest
//!                                                                100 ms, with and without the announced window
//! cargo bench -p bowline-tests --bench hub -- topics             an item to ten subscribers among 100, 1,000 and 10,000
//!                                                                sessions, by the core alone
//! ```
//!
//! The miners live in a process of their own (this program again), so what is measured is the server's alone: CPU by the
//! scheduler's books, memory by what is resident. The bare loop serves as many sockets of the same kind in the same process,
//! turn by turn with the hub; only the ratio means anything on a shared machine. It writes the same frames pre-built, those of
//! a burst at once, and of messages it reads the envelope with the same parser, writes its confirmations, and does all that one
//! read brought in one write.

use bowline::ContentKey;
use bowline::hub::{HubConfig, Publish, Rate};
use bowline::wire::KeyedHash;
use bowline::wire::bettensor::Unsigned;
use bowline_smol::hub::{Admission, Claim, Content, Heard, Hub, HubSetup, HubWire, Said, Text, Validator};
use bowline_smol::{Miner, Setup};
use bowline_transport::Keypair;
use bowline_transport::http::{Bytes, Routes};
use core::fmt::Write as _;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;
use rustix::event::epoll;
use serde::Deserialize;
use serde_json::value::RawValue;
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::borrow::Cow;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

/// Frames of a measurement to each, and their pace: the miners on the other core must keep up.
const ROUNDS: u32 = 150;
const PACE: Duration = Duration::from_millis(15);
/// Measurements of each, of which the median counts.
const REPEATS: usize = 5;

fn main() {
    if let Ok(job) = std::env::var("BOWLINE_BENCH_MINERS") {
        return miners(&job);
    }
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let count = |default| words.get(1).and_then(|word| word.parse().ok()).unwrap_or(default);
    match words.first().map(String::as_str) {
        Some("confirm") => match words.get(1).and_then(|word| word.parse().ok()) {
            Some(memory) => confirm(&[memory]),
            None => confirm(&[128, 1024]),
        },
        Some("broadcast") => broadcast(count(1000), 1),
        Some("bursts") => broadcast(count(1000), 8),
        Some("idle") => idle(count(5000)),
        Some("full") => full(count(1000)),
        Some("reconnect") => reconnect(count(1000)),
        Some("topics") => topics(),
        _ => {
            confirm(&[128, 1024]);
            broadcast(1000, 1);
            broadcast(1000, 8);
            idle(5000);
            full(1000);
            reconnect(1000);
            topics();
        }
    }
}

fn keys(n: usize) -> Keypair {
    let mut seed = String::new();
    for byte in (n as u64 + 1).to_le_bytes().iter().cycle().take(32) {
        let _ = write!(seed, "{byte:02x}");
    }
    Keypair::from_seed_hex(&seed).unwrap()
}

fn hub(miners: usize) -> Hub<Validator> {
    hub_at("127.0.0.1:0", miners, HubConfig::DEFAULT.reconnect_window)
}

fn hub_at(address: &str, miners: usize, window: Duration) -> Hub<Validator> {
    let setup = HubSetup::validator(address, keys(usize::MAX >> 8)).unwrap();
    let setup = setup.authorize(|_| Admission::accept()).configure(|config| {
        unlimited(config);
        config.sessions = miners;
        config.connections = miners + 100;
        config.reconnect_window = window;
    });
    Hub::start(setup).unwrap()
}

/// As many as there are, as fast as they come, all from one address.
fn unlimited(config: &mut HubConfig) {
    config.per_address_connections = u32::MAX;
    config.handshakes = Rate::UNLIMITED;
    for limits in [&mut config.per_address, &mut config.per_identity] {
        (limits.handshakes, limits.messages, limits.bytes) = (Rate::UNLIMITED, Rate::UNLIMITED, Rate::UNLIMITED);
    }
}

/// Clients that send messages, how many each has under way, and how many each sends in one measurement.
const SENDERS: usize = 32;
const WINDOW: usize = 32;
const EACH: usize = 4000;

/// What is set aside at a hub for each remembered message, in bytes.
const REMEMBERED: usize = 336;

/// A wire without signatures, so that nothing but the hub is compared with the bare loop.
#[derive(Debug)]
struct Plain;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    id: &'a str,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn confirmation(id: &str) -> String {
    format!(r#"{{"type":"confirmation","id":"{id}","success":true}}"#)
}

impl HubWire for Plain {
    type Peer = usize;
    type Proof = ();
    type Confirmation = ();
    type Encoded = Text;

    const LONGEST_FRAME: usize = 4096;

    fn routes(&self) -> Routes<'static> {
        Routes { websockets: &["/ws"], guarded: true, ..Routes::NONE }
    }

    fn guest(&self) -> Option<Claim<Self>> {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        Some(Claim { peer: LAST.fetch_add(1, Ordering::Relaxed), proof: (), stamp: None })
    }

    fn holds(&self, _: &usize, (): &()) -> bool {
        true
    }

    fn read(&self, _: &KeyedHash, _: &usize, text: &Bytes) -> Heard {
        let Ok(Envelope { kind, id, data }) = serde_json::from_slice(text) else { return Heard::MALFORMED };
        let kind = if kind == "prediction" { Cow::Borrowed("prediction") } else { Cow::Owned(kind.to_owned()) };
        let content = Content { kind, data: text.slice_ref(data.get().as_bytes()), id: Some(id.into()) };
        Heard { said: Said::Message(content), ..Heard::OTHER }
    }

    fn encode(&self, _: &str, data: &str) -> Result<Text, Cow<'static, str>> {
        Ok(data.into())
    }

    fn size(encoded: &Text) -> usize {
        encoded.len()
    }

    fn frame(&self, encoded: &Text, _: &usize) -> Text {
        encoded.clone()
    }

    fn confirmation(&self, id: &str, _: ContentKey, _: Result<&(), &str>) -> Option<Text> {
        Some(confirmation(id).into())
    }
}

/// `bytes`: for what is remembered of each.
fn plain_hub(sessions: usize, bytes: usize) -> Hub<Plain> {
    let config = HubConfig { sessions, connections: 2 * sessions, ..HubConfig::DEFAULT };
    let setup = HubSetup::with("127.0.0.1:0", Plain, config).unwrap().authorize(|_| Admission::accept());
    let setup = setup.on("prediction", |_| async { Ok::<_, String>(()) }).configure(|config| {
        unlimited(config);
        config.session.inbox.bytes = bytes;
        config.session.inbox.held = 64;
    });
    Hub::start(setup).unwrap()
}

/// Messages are sent as fast as they are confirmed.
fn confirm(memories: &[usize]) {
    let hubs: Vec<_> = memories.iter().map(|memory| (memory, plain_hub(SENDERS, *memory * REMEMBERED))).collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let bare_address = listener.local_addr().unwrap();
    std::thread::spawn(move || confirm_bare(&listener));
    let mut senders: Vec<_> = hubs
        .iter()
        .map(|(memory, hub)| (Some(**memory), hub.address()))
        .chain([(None, bare_address)])
        .map(|(memory, address)| (memory, start_miners("sender", address, SENDERS), Vec::new()))
        .collect();
    println!(
        "messages of {} bytes, confirmed, {SENDERS} clients with {WINDOW} under way each, median of {REPEATS}:",
        message(0, SHORT).len()
    );
    // The first run fills what the hubs remember.
    for run in 0..=REPEATS {
        for (_, child, costs) in &mut senders {
            let before = cpu();
            writeln!(child.stdin.as_mut().unwrap(), "{EACH}").unwrap();
            await_word(child, "done");
            if run > 0 {
                costs.push((cpu() - before).as_nanos() as f64 / (SENDERS * EACH) as f64);
            }
        }
    }
    let bare = median(&mut senders.last_mut().unwrap().2);
    for (memory, child, costs) in &mut senders {
        let cost = median(costs);
        match memory {
            Some(memory) => println!(
                "  hub         {cost:8.0} ns of CPU a message, {:.2} times as much; it remembers {memory}",
                cost / bare
            ),
            None => println!("  bare loop   {cost:8.0} ns of CPU a message"),
        }
        end(child);
    }
}

/// Digits of an id: short ones, and as many as there may be.
const SHORT: usize = 14;
const LONG: usize = 62;

fn message(n: usize, digits: usize) -> String {
    format!(r#"{{"type":"prediction","id":"p-{n:0digits$}","data":{{"games":"{}"}}}}"#, "x".repeat(234))
}

/// Reads what there is, writes the confirmations of all of it.
fn confirm_bare(listener: &TcpListener) {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut sockets: Vec<_> = (0..SENDERS).map(|_| (accept_bare(listener), Vec::new())).collect();
    for (n, (socket, _)) in sockets.iter().enumerate() {
        epoll::add(&epoll, socket, epoll::EventData::new_u64(n as u64), epoll::EventFlags::IN).unwrap();
    }
    let (mut events, mut buffer, mut out) = (Vec::with_capacity(SENDERS), vec![0; 64 * 1024], Vec::new());
    loop {
        events.clear();
        if epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None).is_err() {
            continue;
        }
        for event in &events {
            let (socket, rest) = &mut sockets[event.data.u64() as usize];
            buffer[..rest.len()].copy_from_slice(rest);
            let held = match socket.read(&mut buffer[rest.len()..]) {
                Ok(0) | Err(_) => return,
                Ok(read) => rest.len() + read,
            };
            let mut at = 0;
            while let Some((head, length)) =
                masked_head(&buffer[at..held]).filter(|(head, length)| held - at >= head + length)
            {
                let (mask, payload) = buffer[at + head - 4..at + head + length].split_at_mut(4);
                for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
                    *byte ^= mask;
                }
                let envelope: Envelope<'_> = serde_json::from_slice(payload).unwrap();
                assert!(envelope.kind == "prediction" && envelope.data.get().len() > 100);
                let said = confirmation(envelope.id);
                out.extend([0x81, u8::try_from(said.len()).unwrap()]);
                out.extend(said.as_bytes());
                at += head + length;
            }
            rest.clear();
            rest.extend(&buffer[at..held]);
            assert_eq!(socket.write(&out).unwrap(), out.len(), "the clients do not keep up");
            out.clear();
        }
    }
}

/// The length of a client's frame's head, and of what follows.
fn masked_head(frame: &[u8]) -> Option<(usize, usize)> {
    match frame {
        [_, short, ..] if short & 127 < 126 => Some((6, usize::from(short & 127))),
        [_, _, high, low, ..] => Some((8, usize::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }
}

/// The same of a server's frame.
fn plain_head(frame: &[u8]) -> Option<(usize, usize)> {
    match frame {
        [_, short, ..] if *short < 126 => Some((2, usize::from(*short))),
        [_, 126, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([*high, *low])))),
        _ => None,
    }
}

/// To `count` miners, so many at a time. What the hub sends is published by a task of its executor, as its programs do.
fn broadcast(count: usize, burst: usize) {
    let hub = Arc::new(hub(count));
    let mut hub_miners = start_miners("miner", hub.address(), count);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bare_miners = begin_miners("plain", listener.local_addr().unwrap(), count);
    let mut bare: Vec<TcpStream> = (0..count).map(|_| accept_bare(&listener)).collect();
    await_word(&mut bare_miners, "ready");

    let data = format!(r#"{{"games":"{}"}}"#, "x".repeat(700));
    let frame = text_frame(
        keys(1)
            .seal(|stamp| Unsigned::message(stamp, &bowline::wire::bettensor::Kind::GameUpdate, &data).unwrap())
            .as_bytes(),
    );
    println!("{burst} frame(s) of {} bytes at a time to {count} miners, median of {REPEATS}:", frame.len());
    let frames = frame.repeat(burst);
    let (mut hub_costs, mut bare_costs) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        hub_costs.push(cost(count, burst, || {
            let (hub, data) = (Arc::clone(&hub), data.clone());
            smol::block_on(smol::spawn(async move {
                for _ in 0..burst {
                    let sent = hub.publish("game_update", &data, Publish::DEFAULT).unwrap();
                    assert_eq!(sent.reached as usize, count);
                }
            }));
        }));
        bare_costs.push(cost(count, burst, || {
            for socket in &mut bare {
                assert_eq!(socket.write(&frames).unwrap(), frames.len(), "the miners do not keep up");
            }
        }));
    }
    let (hub_cost, bare_cost) = (median(&mut hub_costs), median(&mut bare_costs));
    let stats = hub.stats();
    println!("  bare loop   {bare_cost:8.0} ns of CPU a delivery");
    println!(
        "  hub         {hub_cost:8.0} ns of CPU a delivery, {:.2} times as much; {} lost",
        hub_cost / bare_cost,
        stats.lost
    );
    end(&mut hub_miners);
    end(&mut bare_miners);
}

/// CPU time of a delivery, in nanoseconds.
fn cost(count: usize, burst: usize, mut round: impl FnMut()) -> f64 {
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu();
    let rounds = ROUNDS / burst as u32;
    for _ in 0..rounds {
        let next = Instant::now() + PACE * burst as u32;
        round();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    (cpu() - before).as_nanos() as f64 / f64::from(rounds) / (count * burst) as f64
}

fn idle(count: usize) {
    let hub = hub(count);
    // The first one brings everything that is there once.
    let mut first = start_miners("miner", hub.address(), 1);
    let before = resident();
    let mut others = begin_miners("miner", hub.address(), count - 1);
    await_word(&mut others, "ready");
    std::thread::sleep(Duration::from_secs(2));
    let after = resident();
    let health = hub.health();
    println!(
        "{} idle miners: {:.2} KiB resident each, session included ({} to {} KiB in all)",
        health.connections,
        (after - before) as f64 / (count - 1) as f64,
        before,
        after
    );
    let cpu_before = cpu();
    std::thread::sleep(Duration::from_secs(60));
    println!("  CPU in a minute with heartbeats every 60 s: {:.2} s", (cpu() - cpu_before).as_secs_f64());
    println!("  still connected: {}, active: {}", hub.health().connections, hub.health().active);
    end(&mut first);
    end(&mut others);
}

/// Memory at its largest, but for messages that are at the application, which have a limit of their own for all peers together.
/// Each may have what a validator gives one miner; nothing is signed, since signatures would take minutes and their nonces no
/// more than 6 KiB. The names are as long as names may be; all are confirmed in the same word.
fn full(count: usize) {
    let mut bytes = 0;
    let _ = HubSetup::validator("127.0.0.1:0", keys(0)).unwrap().configure(|config| bytes = config.session.inbox.bytes);
    let remembered = bytes / REMEMBERED;
    let hub = plain_hub(count, bytes);
    let send = |child: &mut Child, each: usize| {
        writeln!(child.stdin.as_mut().unwrap(), "{each}").unwrap();
        await_word(child, "done");
    };
    // The first one brings everything that is there once; what all send first brings what a line needs to be read and written.
    let mut first = start_miners("namer", hub.address(), 1);
    send(&mut first, remembered);
    let before = resident();
    let mut others = start_miners("namer", hub.address(), count - 1);
    send(&mut others, WINDOW);
    let begun = resident();
    send(&mut others, remembered - WINDOW);
    let filled = resident();
    // As many again as the hub lets lie before it throws away what was told of forgotten ones.
    send(&mut others, remembered / 4);
    let after = resident();
    let miners = (count - 1) as f64;
    println!(
        "{count} miners, {bytes} bytes for what is remembered of each, {remembered} messages: {after} KiB resident, {} at the most",
        status("VmHWM:")
    );
    println!(
        "  {:.1} KiB each, {:.1} of them before there was much to remember; {:.0} bytes for each remembered message",
        (after - before) as f64 / miners,
        (begun - before) as f64 / miners,
        (filled - begun) as f64 * 1024.0 / miners / (remembered - WINDOW) as f64
    );
    end(&mut first);
    end(&mut others);
}

/// The miners are ours, with a miner's own settings: 2.5 to 5 s before the first try, doubling.
fn reconnect(count: usize) {
    for window in [Duration::ZERO, Duration::from_secs(30)] {
        let hub = hub_at("127.0.0.1:0", count, window);
        let address = hub.address();
        let mut miners = begin_miners("whole", address, count);
        await_word(&mut miners, "ready");
        while hub.health().connections < count {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Killed: no drain, no close frames.
        drop(hub);
        std::thread::sleep(Duration::from_secs(2));
        let hub = hub_at(&address.to_string(), count, window);
        let back = Instant::now();
        let mut admitted = vec![0];
        while hub.health().connections < count && back.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(20));
            admitted.push(hub.stats().admitted);
        }
        // Of spans of 100 ms that begin every 20 ms.
        let busiest = admitted.windows(6).map(|span| span[5] - span[0]).max().unwrap_or_default();
        println!(
            "{count} miners after a killed hub, window {} s: all back after {:.1} s, busiest 100 ms {busiest} connections",
            window.as_secs(),
            back.elapsed().as_secs_f64()
        );
        end(&mut miners);
    }
}

/// The core alone, so in this process: the machine is told to publish, and says what is to be written to whom. Every session
/// is subscribed to something, ten to the topic in question. Beside it a broadcast to the same ten, for which every
/// connection is asked.
fn topics() {
    use bowline::hub::{Grows, Hub, HubOutput, Identity, Start, TopicName, Verdict};
    use bowline::{Instant as Moment, Origin};
    const RECEIVERS: usize = 10;
    const TIMES: u32 = 50_000;
    let news = TopicName::new("news").unwrap();
    let mut hubs = [100, 1000, 10_000].map(|sessions| {
        let mut config = HubConfig { sessions, connections: sessions, pending: sessions, ..HubConfig::DEFAULT };
        (config.addresses, config.handshakes) = (sessions, Rate::UNLIMITED);
        let mut hub: Hub<u64, Grows> = Hub::new(config.check().unwrap(), 1, Origin::new(1, 1), Moment::ZERO);
        for n in 0..sessions {
            let conn = hub.connect(Moment::ZERO, n as u64).unwrap();
            hub.hello(Moment::ZERO, 0, conn, Identity::from_bits(n as u128), None);
            hub.verified(Moment::ZERO, 0, conn, Verdict::Accept { http: false });
            let session = hub.session_of(conn).unwrap();
            let other = TopicName::new(&format!("other.{}", n % 1000)).unwrap();
            hub.subscribe(Moment::ZERO, session, &other.into(), Start::Now).unwrap();
            if n % (sessions / RECEIVERS) == 0 {
                hub.subscribe(Moment::ZERO, session, &news.into(), Start::Now).unwrap();
            }
        }
        while hub.poll().is_some() {}
        (sessions, hub)
    });
    let mut costs = [const { (Vec::new(), Vec::new()) }; 3];
    for _ in 0..REPEATS {
        for ((sessions, hub), (topic, broadcast)) in hubs.iter_mut().zip(&mut costs) {
            for (costs, by_topic) in [(topic, true), (broadcast, false)] {
                let before = cpu();
                for n in 0..TIMES {
                    let sent = if by_topic {
                        hub.publish_topic(Moment::ZERO, &news, u64::from(n), 1000)
                    } else {
                        let every = *sessions / RECEIVERS;
                        let to = |_, who: Identity| who.bits().is_multiple_of(every as u128);
                        hub.publish(Moment::ZERO, u64::from(n), 1000, Publish::DEFAULT, to)
                    };
                    assert_eq!(sent.reached as usize, RECEIVERS);
                    let mut came = 0;
                    while let Some(output) = hub.poll() {
                        came += usize::from(matches!(output, HubOutput::Topic { .. } | HubOutput::Broadcast { .. }));
                    }
                    assert_eq!(came, RECEIVERS);
                }
                costs.push((cpu() - before).as_nanos() as f64 / f64::from(TIMES));
            }
        }
    }
    println!("an item to {RECEIVERS} subscribers, published and given to the adapter, median of {REPEATS}:");
    let medians = costs.each_mut().map(|(topic, broadcast)| (median(topic), median(broadcast)));
    for ((sessions, _), (topic, broadcast)) in hubs.iter().zip(medians) {
        println!(
            "  {sessions:6} sessions: topic {topic:7.0} ns, {:5.2} times the first; broadcast to the same {broadcast:7.0} ns, {:5.2} times",
            topic / medians[0].0,
            broadcast / medians[0].1
        );
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Time on a CPU, of all threads.
fn cpu() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux");
    let nanos = |path: std::path::PathBuf| -> Option<u64> {
        std::fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(|thread| nanos(thread.path())).sum())
}

/// KiB.
fn resident() -> u64 {
    status("VmRSS:")
}

/// A line of what the system says of this process.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn begin_miners(kind: &str, address: SocketAddr, count: usize) -> Child {
    let job = format!("{kind} {address} {count}");
    let program = std::env::current_exe().unwrap();
    Command::new(program).env("BOWLINE_BENCH_MINERS", job).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn await_word(child: &mut Child, word: &str) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), word);
}

fn start_miners(kind: &str, address: SocketAddr, count: usize) -> Child {
    let mut child = begin_miners(kind, address, count);
    await_word(&mut child, "ready");
    child
}

fn end(child: &mut Child) {
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn accept_bare(listener: &TcpListener) -> TcpStream {
    let (mut socket, _) = listener.accept().unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        request.push(byte[0]);
    }
    socket.write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n").unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// An unmasked frame, as a server sends it.
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81, 126];
    frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    frame.extend(payload);
    frame
}

/// A masked frame, as a client sends it; the mask is zero.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(short) if short < 126 => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The other process: connects them all, says so, reads whatever comes, ends with its standard input.
fn miners(job: &str) {
    let words: Vec<&str> = job.split(' ').collect();
    let (signs, address, count) =
        (words[0] == "miner", words[1].parse::<SocketAddr>().unwrap(), words[2].parse::<usize>().unwrap());
    if words[0] == "whole" {
        let setup = |n| Setup::miner(&format!("ws://{address}/ws"), keys(n)).unwrap();
        let miners: Vec<Miner> = (0..count).map(|n| Miner::start(setup(n)).unwrap()).collect();
        println!("ready");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return drop(miners);
    }
    match words[0] {
        "sender" => return senders(address, count, SHORT),
        "namer" => return senders(address, count, LONG),
        _ => {}
    }
    smol::block_on(async {
        // The keys of two processes differ.
        let first = std::process::id() as usize * 100_000;
        for n in first..first + count {
            let socket =
                connect(address, signs.then(|| keys(n))).await.unwrap_or_else(|error| panic!("miner {n}: {error}"));
            smol::spawn(drink(socket)).detach();
        }
        println!("ready");
        smol::unblock(|| std::io::stdin().read_line(&mut String::new())).await.unwrap();
    });
}

/// Sends as many messages as each line of standard input says, by each client, and says when all are confirmed.
fn senders(address: SocketAddr, count: usize, digits: usize) {
    smol::block_on(async {
        let mut sockets = Vec::new();
        for _ in 0..count {
            sockets.push(connect(address, None).await.unwrap());
        }
        println!("ready");
        let mut first = 0;
        for line in std::io::stdin().lines() {
            let each: usize = line.unwrap().parse().unwrap();
            let tasks: Vec<_> =
                sockets.drain(..).map(|socket| smol::spawn(send(socket, first, each, digits))).collect();
            for task in tasks {
                sockets.push(task.await.unwrap());
            }
            first += each;
            println!("done");
        }
    });
}

/// Sends so many messages, with at most [`WINDOW`] under way.
async fn send(
    mut socket: Async<TcpStream>,
    first: usize,
    each: usize,
    digits: usize,
) -> std::io::Result<Async<TcpStream>> {
    let (mut sent, mut confirmed) = (0, 0);
    let mut buffer = Vec::new();
    while confirmed < each {
        let until = each.min(confirmed + WINDOW);
        let frames: Vec<u8> = (sent..until).flat_map(|n| masked(1, message(first + n, digits).as_bytes())).collect();
        sent = until;
        socket.write_all(&frames).await?;
        let held = buffer.len();
        buffer.resize(held + 64 * 1024, 0);
        let read = socket.read(&mut buffer[held..]).await?;
        buffer.truncate(held + read);
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let mut at = 0;
        while let Some((head, length)) = plain_head(&buffer[at..]) {
            let Some(payload) = buffer.get(at + head..at + head + length) else { break };
            match buffer[at] {
                0x81 => confirmed += 1,
                0x89 => socket.write_all(&masked(10, payload)).await?,
                _ => {}
            }
            at += head + length;
        }
        buffer.drain(..at);
    }
    Ok(socket)
}

async fn connect(address: SocketAddr, keys: Option<Keypair>) -> std::io::Result<Async<TcpStream>> {
    let mut socket = Async::<TcpStream>::connect(address).await?;
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).await?;
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    if let Some(keys) = keys {
        socket.write_all(&masked(1, keys.seal(Unsigned::auth).as_bytes())).await?;
        // The welcome.
        let mut head = [0; 2];
        socket.read_exact(&mut head).await?;
        assert_eq!(head[0], 0x81, "closed instead of welcomed");
        let mut length = [0; 2];
        socket.read_exact(&mut length).await?;
        socket.read_exact(&mut vec![0; usize::from(u16::from_be_bytes(length))]).await?;
    }
    Ok(socket)
}

/// Reads frames, answers pings.
async fn drink(mut socket: Async<TcpStream>) -> std::io::Result<()> {
    let mut buffer = vec![0; 8192];
    let mut held = 0;
    loop {
        held += match socket.read(&mut buffer[held..]).await? {
            0 => return Ok(()),
            read => read,
        };
        let mut at = 0;
        while let Some((head, length)) = plain_head(&buffer[at..held]) {
            let frame = &buffer[at..held];
            if frame.len() < head + length {
                break;
            }
            if frame[0] == 0x89 {
                let pong = masked(10, &frame[head..head + length]);
                socket.write_all(&pong).await?;
            }
            at += head + length;
        }
        buffer.copy_within(at..held, 0);
        held -= at;
    }
}
