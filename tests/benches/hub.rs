//! What a hub costs beside a bare loop, and what an idle miner costs. Not a test: it asserts nothing and takes minutes.
//!
//! ```text
//! cargo bench -p bowline-tests --bench hub                       all of them, as below
//! cargo bench -p bowline-tests --bench hub -- broadcast 1000     a broadcast of 1 KB to so many miners
//! cargo bench -p bowline-tests --bench hub -- idle 5000          memory and CPU of so many idle miners
//! cargo bench -p bowline-tests --bench hub -- reconnect 1000     the hub is killed and comes back after 2 s: the busiest
//!                                                                100 ms, with and without the announced window
//! cargo bench -p bowline-tests --bench hub -- topics             an item to ten subscribers among 100, 1,000 and 10,000
//!                                                                sessions, by the core alone
//! ```
//!
//! The miners live in a process of their own (this program again), so what is measured is the server's alone: CPU by the
//! scheduler's books, memory by what is resident. The bare loop writes the same pre-built frames to as many sockets of the
//! same kind, in the same process, turn by turn with the hub; only the ratio means anything on a shared machine.

use bowline::hub::{HubConfig, Publish, Rate};
use bowline::wire::bettensor::Unsigned;
use bowline_smol::hub::{Admission, Hub, HubSetup, Validator};
use bowline_smol::{Miner, Setup};
use bowline_transport::Keypair;
use core::fmt::Write as _;
use core::net::SocketAddr;
use core::time::Duration;
use smol::Async;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Rounds of a measurement, and their pace: the miners on the other core must keep up.
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
        Some("broadcast") => broadcast(count(1000)),
        Some("idle") => idle(count(5000)),
        Some("reconnect") => reconnect(count(1000)),
        Some("topics") => topics(),
        _ => {
            broadcast(1000);
            idle(5000);
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

/// A hub that lets in as many as there are, as fast as they come, all from one address.
fn hub(miners: usize) -> Hub<Validator> {
    hub_at("127.0.0.1:0", miners, HubConfig::DEFAULT.reconnect_window)
}

fn hub_at(address: &str, miners: usize, window: Duration) -> Hub<Validator> {
    let setup = HubSetup::validator(address, keys(usize::MAX >> 8)).unwrap();
    let setup = setup.authorize(|_| Admission::accept()).configure(|config| {
        config.sessions = miners;
        config.connections = miners + 100;
        config.per_address_connections = u32::MAX;
        config.handshakes = Rate::UNLIMITED;
        config.per_address.handshakes = Rate::UNLIMITED;
        config.reconnect_window = window;
    });
    Hub::start(setup).unwrap()
}

fn broadcast(count: usize) {
    let hub = hub(count);
    let mut hub_miners = start_miners("miner", hub.address(), count);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bare_miners = begin_miners("plain", listener.local_addr().unwrap(), count);
    let mut bare: Vec<TcpStream> = (0..count).map(|_| accept_bare(&listener)).collect();
    await_ready(&mut bare_miners);

    let data = format!(r#"{{"games":"{}"}}"#, "x".repeat(700));
    let frame = text_frame(
        keys(1)
            .seal(|stamp| Unsigned::message(stamp, &bowline::wire::bettensor::Kind::GameUpdate, &data).unwrap())
            .as_bytes(),
    );
    println!("a frame of {} bytes to {count} miners, {ROUNDS} rounds, median of {REPEATS}:", frame.len());
    let (mut hub_costs, mut bare_costs) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        hub_costs.push(cost(count, || {
            let sent = hub.publish("game_update", &data, Publish::DEFAULT).unwrap();
            assert_eq!(sent.reached as usize, count);
        }));
        bare_costs.push(cost(count, || {
            for socket in &mut bare {
                assert_eq!(socket.write(&frame).unwrap(), frame.len(), "the miners do not keep up");
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
fn cost(count: usize, mut round: impl FnMut()) -> f64 {
    std::thread::sleep(Duration::from_millis(200));
    let before = cpu();
    for _ in 0..ROUNDS {
        let next = Instant::now() + PACE;
        round();
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    (cpu() - before).as_nanos() as f64 / f64::from(ROUNDS) / count as f64
}

fn idle(count: usize) {
    let hub = hub(count);
    // The first one brings everything that is there once.
    let mut first = start_miners("miner", hub.address(), 1);
    let before = resident();
    let mut others = begin_miners("miner", hub.address(), count - 1);
    await_ready(&mut others);
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

/// The miners are ours, with a miner's own settings: 2.5 to 5 s before the first try, doubling.
fn reconnect(count: usize) {
    for window in [Duration::ZERO, Duration::from_secs(30)] {
        let hub = hub_at("127.0.0.1:0", count, window);
        let address = hub.address();
        let mut miners = begin_miners("whole", address, count);
        await_ready(&mut miners);
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
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn begin_miners(kind: &str, address: SocketAddr, count: usize) -> Child {
    let job = format!("{kind} {address} {count}");
    let program = std::env::current_exe().unwrap();
    Command::new(program).env("BOWLINE_BENCH_MINERS", job).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn await_ready(child: &mut Child) {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
}

fn start_miners(kind: &str, address: SocketAddr, count: usize) -> Child {
    let mut child = begin_miners(kind, address, count);
    await_ready(&mut child);
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
        loop {
            let frame = &buffer[at..held];
            let (head, length) = match frame {
                [_, short, ..] if *short < 126 => (2, usize::from(*short)),
                [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                _ => break,
            };
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
