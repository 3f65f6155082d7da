//! Every fault of the proxy over real loopback sockets. Whatever waits here has a limit.

use core::net::SocketAddr;
use core::time::Duration;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use bowline_cli::proxy::{Counts, Direction, Fault, Proxy};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message};

const LIMIT: Duration = Duration::from_secs(5);
const FAULTS: [Fault; 7] = [
    Fault::Calm,
    Fault::Reset,
    Fault::Silence(Direction::Both),
    Fault::Slow { bytes_per_second: 1 },
    Fault::CloseEarly { code: 1008, reason: "" },
    Fault::Refuse,
    Fault::LoseAnswers,
];

/// Runs a test with a hard limit on the whole of it.
fn limited(test: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let run = thread::spawn(move || {
        test();
        let _ = done.send(());
    });
    match wait.recv_timeout(4 * LIMIT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the test hangs"),
        _ => run.join().expect("the test failed"),
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn patient(socket: TcpStream) -> TcpStream {
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket.set_write_timeout(Some(LIMIT)).unwrap();
    socket
}

fn connect(addr: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&addr, LIMIT).unwrap())
}

/// A server that only accepts, and the proxy before it.
struct Setup {
    server: TcpListener,
    proxy: Proxy,
}

impl Setup {
    fn new() -> Self {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        server.set_nonblocking(true).unwrap();
        let proxy = Proxy::start(server.local_addr().unwrap()).unwrap();
        Self { server, proxy }
    }

    fn connect(&self) -> TcpStream {
        connect(self.proxy.addr())
    }

    fn accept(&self) -> TcpStream {
        let mut accepted = None;
        eventually("the server accepts", || {
            accepted = self.server.accept().ok();
            accepted.is_some()
        });
        patient(accepted.unwrap().0)
    }

    /// Both ends of one connection through the proxy that the client begins with these bytes.
    fn pair_after(&self, first: &[u8]) -> (TcpStream, TcpStream) {
        let mut client = self.connect();
        client.write_all(first).unwrap();
        let mut server = self.accept();
        let mut read = vec![0; first.len()];
        server.read_exact(&mut read).unwrap();
        assert_eq!(read, first);
        (client, server)
    }

    /// Both ends of one connection through the proxy.
    fn pair(&self) -> (TcpStream, TcpStream) {
        (self.connect(), self.accept())
    }

    fn eventually(&self, what: &str, holds: impl Fn(Counts) -> bool) {
        eventually(what, || holds(self.proxy.counts()));
    }
}

#[track_caller]
fn pass(mut from: &TcpStream, mut to: &TcpStream, bytes: &[u8]) {
    from.write_all(bytes).unwrap();
    let mut read = vec![0; bytes.len()];
    to.read_exact(&mut read).unwrap();
    assert_eq!(read, bytes);
}

#[track_caller]
fn assert_reset(mut socket: &TcpStream) {
    let read = socket.read(&mut [0; 8]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

/// A new connection is reset, at once or while it still connects.
fn assert_turned_away(addr: SocketAddr) {
    match TcpStream::connect_timeout(&addr, LIMIT) {
        Ok(socket) => assert_reset(&patient(socket)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[track_caller]
fn assert_nothing_comes(mut socket: &TcpStream) {
    socket.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
    let read = socket.read(&mut [0; 8]);
    assert!(matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock), "{read:?}");
    socket.set_read_timeout(Some(LIMIT)).unwrap();
}

/// Bytes that show a loss or a change of order.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

#[test]
fn calm_forwards_both_ways_and_half_closes() {
    limited(|| {
        let setup = Setup::new();
        let (mut client, mut server) = setup.pair();
        assert_eq!(setup.proxy.fault(), Fault::Calm);
        pass(&client, &server, b"request");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 0);
        // The other half still works, for more than a buffer.
        let big = pattern(300_000);
        let (mut sender, bytes) = (server, big.clone());
        let sending = thread::spawn(move || sender.write_all(&bytes));
        let mut read = Vec::new();
        client.read_to_end(&mut read).unwrap();
        sending.join().unwrap().unwrap();
        assert!(read == big);
        setup.eventually("the line has ended", |counts| counts.open == 0);
        let expected = Counts { accepted: 1, to_server: 7, to_client: 300_000, ..Counts::default() };
        assert_eq!(setup.proxy.counts(), expected);
    });
}

#[test]
fn reset_ends_all_connections_now_and_lets_new_ones_pass() {
    limited(|| {
        let setup = Setup::new();
        let mut pairs: Vec<_> = (0..3).map(|_| setup.pair()).collect();
        pass(&pairs[0].0, &pairs[0].1, b"x");
        pairs[1].0.shutdown(Shutdown::Write).unwrap();
        assert_eq!(pairs[1].1.read(&mut [0; 8]).unwrap(), 0);
        // Not waited for: `set` knows who connected before it, accepted or not.
        let late: Vec<_> = (0..30).map(|_| setup.connect()).collect();
        setup.proxy.set(Fault::Reset);
        let expected = Counts { accepted: 33, reset: 33, ..setup.proxy.counts() };
        assert_eq!(setup.proxy.counts(), Counts { open: 0, ..expected });
        late.iter().for_each(assert_reset);
        // After an end of stream, only a write shows a reset.
        let error = pairs[1].1.write(b"x").unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error:?}");
        assert_reset(&pairs.swap_remove(1).0);
        for (client, server) in &pairs {
            assert_reset(client);
            assert_reset(server);
        }
        // The server may have seen the late ones come and go.
        while setup.server.accept().is_ok() {}
        let (client, server) = setup.pair();
        pass(&client, &server, b"new");
    });
}

#[test]
fn silence_holds_one_direction_and_loses_nothing() {
    limited(|| {
        for (held, other) in [(Direction::ToServer, Direction::ToClient), (Direction::ToClient, Direction::ToServer)] {
            let setup = Setup::new();
            let ends = |(client, server)| if held == Direction::ToServer { (client, server) } else { (server, client) };
            let (mut from, mut to) = ends(setup.pair());
            pass(&from, &to, b"before");
            setup.proxy.set(Fault::Silence(held));
            let (mut new_from, mut new_to) = ends(setup.pair());
            from.write_all(b"held").unwrap();
            new_from.write_all(b"new held").unwrap();
            new_from.shutdown(Shutdown::Write).unwrap();
            assert_nothing_comes(&to);
            assert_nothing_comes(&new_to);
            pass(&to, &from, b"passes");
            pass(&new_to, &new_from, b"passes");
            // Another silence releases this one.
            setup.proxy.set(Fault::Silence(other));
            let mut read = [0; 4];
            to.read_exact(&mut read).unwrap();
            assert_eq!(&read, b"held");
            setup.proxy.set(Fault::Silence(Direction::Both));
            from.write_all(b"1").unwrap();
            to.write_all(b"2").unwrap();
            assert_nothing_comes(&from);
            assert_nothing_comes(&to);
            setup.proxy.set(Fault::Calm);
            pass(&from, &to, b"");
            assert_eq!((from.read(&mut [0; 8]).unwrap(), to.read(&mut [0; 8]).unwrap()), (1, 1));
            let mut read = String::new();
            new_to.read_to_string(&mut read).unwrap();
            assert_eq!(read, "new held");
        }
    });
}

#[test]
fn silence_is_felt_by_a_sender_and_releases_everything_in_order() {
    limited(|| {
        let setup = Setup::new();
        let (mut client, mut server) = setup.pair();
        setup.proxy.set(Fault::Silence(Direction::ToServer));
        client.set_nonblocking(true).unwrap();
        let bytes = pattern(16 << 20);
        let mut sent = 0;
        let full = loop {
            match client.write(&bytes[sent..]) {
                Ok(written) => sent += written,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert_eq!(setup.proxy.counts().to_server, 0);
        setup.proxy.set(Fault::Calm);
        client.shutdown(Shutdown::Write).unwrap();
        let mut read = Vec::new();
        server.read_to_end(&mut read).unwrap();
        assert!(read == bytes[..sent]);
    });
}

#[test]
fn slow_is_slow_and_ends_when_it_is_lifted() {
    limited(|| {
        let setup = Setup::new();
        let (mut client, mut server) = setup.pair();
        setup.proxy.set(Fault::Slow { bytes_per_second: 10_000 });
        let start = Instant::now();
        pass(&client, &server, &pattern(3000));
        pass(&server, &client, &pattern(1000));
        let took = start.elapsed();
        // The first portion of each direction, a fiftieth of a second's worth, goes at once.
        assert!(took >= Duration::from_millis(280 + 80), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        // A byte a second; then the rest at once.
        setup.proxy.set(Fault::Slow { bytes_per_second: 1 });
        client.write_all(&pattern(3000)).unwrap();
        setup.eventually("a byte", |counts| counts.to_server > 3000);
        let start = Instant::now();
        setup.proxy.set(Fault::Calm);
        server.read_exact(&mut [0; 3000]).unwrap();
        assert!(start.elapsed() < Duration::from_secs(1));
        // Nothing a second is a silence, not a division by zero.
        setup.proxy.set(Fault::Slow { bytes_per_second: 0 });
        client.write_all(b"x").unwrap();
        assert_nothing_comes(&server);
        setup.proxy.set(Fault::Slow { bytes_per_second: u64::MAX });
        assert_eq!(server.read(&mut [0; 8]).unwrap(), 1);
    });
}

#[test]
fn close_early_completes_the_handshake_and_closes() {
    limited(|| {
        let setup = Setup::new();
        let (before, _server) = setup.pair();
        setup.proxy.set(Fault::CloseEarly { code: 1008, reason: "not welcome" });
        assert_reset(&before);
        for offered in [None, Some("bowline.1, other")] {
            let mut request = format!("ws://{}/ws", setup.proxy.addr()).into_client_request().unwrap();
            if let Some(offered) = offered {
                request.headers_mut().insert("Sec-WebSocket-Protocol", offered.parse().unwrap());
            }
            let (mut socket, response) = tungstenite::client(request, setup.connect()).unwrap();
            let agreed = response.headers().get("Sec-WebSocket-Protocol").map(|agreed| agreed.to_str().unwrap());
            assert_eq!(agreed, offered.map(|_| "bowline.1"));
            let Message::Close(Some(frame)) = socket.read().unwrap() else { panic!("not a close") };
            assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Policy, "not welcome"));
            let end = socket.read().unwrap_err();
            assert!(matches!(end, Error::ConnectionClosed), "{end:?}");
        }
        assert_eq!(setup.server.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "the server heard of it");
        // HTTP still works; what only looks like a WebSocket does not.
        let (client, server) = setup.pair_after(b"POST /");
        pass(&server, &client, b"HTTP/1.1 200 OK");
        let mut other = setup.connect();
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        assert_eq!(other.read_to_end(&mut answer).unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
}

#[test]
fn refuse_closes_the_port_and_opens_the_same_again() {
    limited(|| {
        let setup = Setup::new();
        let addr = setup.proxy.addr();
        for after in [Fault::Calm, Fault::Reset, Fault::Silence(Direction::ToClient)] {
            let (client, server) = setup.pair();
            setup.proxy.set(Fault::Refuse);
            assert_reset(&client);
            assert_reset(&server);
            for _ in 0..20 {
                let refused = TcpStream::connect_timeout(&addr, LIMIT);
                assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            }
            setup.proxy.set(Fault::Refuse);
            assert_eq!(setup.proxy.addr(), addr);
            setup.proxy.set(after);
            let (client, server) = setup.pair();
            pass(&client, &server, b"again");
            setup.proxy.set(Fault::Calm);
        }
    });
}

#[test]
fn lose_answers_lets_the_work_be_done_and_loses_the_answer() {
    limited(|| {
        let setup = Setup::new();
        let (old_client, old_server) = setup.pair();
        setup.proxy.set(Fault::LoseAnswers);
        let (client, mut server) = setup.pair();
        pass(&client, &server, b"POST /generated");
        assert_nothing_comes(&client);
        server.write_all(b"H").unwrap();
        assert_reset(&client);
        setup.eventually("the line is gone", |counts| counts.open == 1);
        assert_eq!(setup.proxy.counts().to_client, 0);
        pass(&old_client, &old_server, b"request");
        pass(&old_server, &old_client, b"answer");
    });
}

#[test]
fn a_failed_end_resets_the_other_one() {
    limited(|| {
        let setup = Setup::new();
        for fails in 0..2 {
            let (client, server) = setup.pair();
            let (failing, mut other) = if fails == 0 { (client, server) } else { (server, client) };
            // A socket closed with bytes unread resets its peer.
            other.write_all(b"unread").unwrap();
            eventually("it has arrived", || failing.peek(&mut [0; 6]).unwrap() == 6);
            drop(failing);
            assert_reset(&other);
        }
        setup.eventually("both are gone", |counts| counts.open == 0 && counts.reset == 2);
    });
}

#[test]
fn an_absent_server_is_a_reset_and_is_counted() {
    limited(|| {
        let Setup { server, proxy } = Setup::new();
        drop(server);
        for n in 1..=3 {
            assert_turned_away(proxy.addr());
            eventually("counted", || proxy.counts().reset == n);
        }
        let expected = Counts { accepted: 3, refused_upstream: 3, reset: 3, ..Counts::default() };
        assert_eq!(proxy.counts(), expected);
    });
}

#[test]
fn connections_are_limited() {
    limited(|| {
        let setup = Setup::new();
        let mut pairs: Vec<_> = (0..64).map(|_| setup.pair()).collect();
        assert_turned_away(setup.proxy.addr());
        assert_eq!(setup.proxy.counts(), Counts { accepted: 65, open: 64, reset: 1, ..Counts::default() });
        pairs.truncate(32);
        setup.eventually("room again", |counts| counts.open == 32);
        let (client, server) = setup.pair();
        pass(&client, &server, b"welcome");
    });
}

/// Sends until neither end takes anything any more: the proxy's writer is stuck.
fn stuff(mut from: &TcpStream) {
    from.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let full = from.write_all(&vec![0; 64 << 20]).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_stuck_writer_does_not_delay_a_reset() {
    limited(|| {
        let setup = Setup::new();
        let (mut client, server) = setup.pair();
        stuff(&server);
        // A byte that comes in wakes a stuck write, too, which then finds a little room: until it finds none.
        let mut before = 0;
        eventually("the writer is stuck for good", || {
            client.write_all(b"x").unwrap();
            thread::sleep(Duration::from_millis(50));
            let now = setup.proxy.counts().to_client;
            core::mem::replace(&mut before, now) == now
        });
        let start = Instant::now();
        setup.proxy.set(Fault::Reset);
        assert_eq!(setup.proxy.counts().open, 0);
        assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
        drop(client);
    });
}

#[test]
fn every_fault_can_follow_every_other() {
    limited(|| {
        let setup = Setup::new();
        for first in FAULTS {
            for second in FAULTS {
                setup.proxy.set(first);
                let _client = TcpStream::connect_timeout(&setup.proxy.addr(), LIMIT);
                setup.proxy.set(second);
                assert_eq!(setup.proxy.fault(), second);
            }
        }
        setup.proxy.set(Fault::Reset);
        while setup.server.accept().is_ok() {}
        let (client, server) = setup.pair();
        pass(&client, &server, b"still here");
    });
}

#[test]
fn dropping_leaves_nothing_behind_whatever_the_fault() {
    limited(|| {
        for fault in FAULTS {
            let setup = Setup::new();
            let (mut client, server) = setup.pair();
            stuff(&server);
            let reader = setup.connect();
            setup.proxy.set(fault);
            let _new = TcpStream::connect_timeout(&setup.proxy.addr(), LIMIT);
            let Setup { server: _listener, proxy } = setup;
            let addr = proxy.addr();
            let start = Instant::now();
            drop(proxy);
            assert!(start.elapsed() < Duration::from_secs(1), "{fault:?}: {:?}", start.elapsed());
            assert_reset(&reader);
            let mut rest = Vec::new();
            assert_eq!(client.read_to_end(&mut rest).unwrap_err().kind(), ErrorKind::ConnectionReset);
            let refused = TcpStream::connect_timeout(&addr, LIMIT);
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
            drop(TcpListener::bind(addr).expect("the port is free"));
            #[cfg(target_os = "linux")]
            eventually("its threads have ended", || linux::threads(addr).unwrap().is_empty());
        }
    });
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// The threads of the proxy at this address, found by their name.
    pub(super) fn threads(proxy: SocketAddr) -> io::Result<Vec<PathBuf>> {
        let name = format!("proxy {}\n", proxy.port());
        let tasks = fs::read_dir("/proc/self/task")?.map(|task| task.map(|task| task.path()));
        let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm == name);
        tasks.filter(|task| task.as_ref().map_or(true, named)).collect()
    }

    fn switches(proxy: SocketAddr) -> Vec<String> {
        let status = |task: PathBuf| fs::read_to_string(task.join("status")).unwrap();
        let statuses = threads(proxy).unwrap().into_iter().map(status);
        statuses.map(|status| status.lines().find(|line| line.starts_with("voluntary")).unwrap().to_owned()).collect()
    }

    #[test]
    fn nothing_wakes_at_idle() {
        limited(|| {
            for fault in [Fault::Calm, Fault::Silence(Direction::Both), Fault::Refuse] {
                let setup = Setup::new();
                let (mut client, server) = setup.pair();
                pass(&client, &server, b"x");
                setup.proxy.set(fault);
                if fault != Fault::Refuse {
                    client.write_all(b"y").unwrap();
                }
                let expected = if fault == Fault::Refuse { 1 } else { 3 };
                eventually("the threads are there", || threads(setup.proxy.addr()).unwrap().len() == expected);
                // They have settled when two looks agree; then they must agree after a longer while, too.
                let mut before = Vec::new();
                eventually("the threads have settled", || {
                    thread::sleep(Duration::from_millis(20));
                    let now = switches(setup.proxy.addr());
                    core::mem::replace(&mut before, now.clone()) == now
                });
                thread::sleep(Duration::from_millis(200));
                assert_eq!(switches(setup.proxy.addr()), before, "{fault:?}");
            }
        });
    }
}
