//! TLS at both ends: over real sockets with both adapters and foreign peers, and, for what sockets cannot be made to do on
//! purpose, over a pipe of a few bytes.

#[macro_use]
mod real;

use bowline::{Cause, Event, Path, State};
use bowline_cli::proxy::{Fault, Proxy};
use bowline_smol::{Setup, Tls, TlsError};
use bowline_transport::http::Target;
use bowline_transport::{Channel, SetupError};
use core::mem::MaybeUninit;
use core::net::{Ipv4Addr, SocketAddr};
use real::ca::{Authority, Certified, File};
use real::peer;
use real::*;
use socket2::{Domain, Socket, Type};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::{io, slice};

scenarios! {
    both_paths_are_encrypted,
    batches_of_a_megabyte,
    who_asks_for_a_certificate_gets_one,
    who_has_no_certificate_is_refused,
    who_has_a_stranger_s_certificate_is_refused,
    a_stranger_s_listener_is_refused,
    an_old_certificate_is_refused,
    a_certificate_for_another_host_is_refused,
    callbacks_of_a_stranger_get_nothing,
    one_end_alone_is_refused,
    a_broken_connection_is_made_again,
}

mod alone {
    use super::*;

    with_both! {
        who_speaks_no_tls_harms_nobody,
        who_says_nothing_is_let_go,
        stop_is_prompt_in_the_middle_of_a_handshake,
        a_handshake_may_have_to_wait_until_it_can_write,
        python_s_api_node_by_wss,
        curl_posts_by_https,
    }
}

/// Trusts this authority, and shows nothing.
fn trust(authority: &Authority) -> Tls {
    Tls::new().roots(authority.pem()).unwrap()
}

fn serve(tls: Tls, certified: &Certified) -> Tls {
    tls.server(&certified.certificate, &certified.key).unwrap()
}

fn show(tls: Tls, certified: &Certified) -> Tls {
    tls.identity(&certified.certificate, &certified.key).unwrap()
}

/// A sender that listens by `wss` and posts by `https`, and a receiver the other way round; a proxy between them where
/// the WebSocket goes.
struct Safe {
    sender: Node,
    receiver: Node,
    ws: Proxy,
}

impl Safe {
    /// Perhaps not connected yet.
    fn start(pair: Pair, sender: &Tls, receiver: &Tls) -> Self {
        let port = Port::reserve();
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(sender).unwrap();
        let setup = setup.fallback(&format!("https://{}/v1/poc-batches", port.address)).unwrap();
        let sender = Node::start(pair.sends, setup.configure(quick).drain(DRAIN));
        let ws = Proxy::start(sender.address()).unwrap();
        // A name here, an address there.
        let setup = Setup::api_node(&format!("wss://localhost:{}", ws.addr().port())).unwrap().tls(receiver).unwrap();
        let setup = setup.callbacks(&port.address.to_string()).unwrap();
        let receiver = Node::start(pair.receives, setup.configure(quick).drain(DRAIN));
        Self { sender, receiver, ws }
    }

    fn trusting(pair: Pair) -> Self {
        let authority = Authority::new();
        let tls = serve(trust(&authority), &authority.here());
        Self::start(pair, &tls, &tls)
    }

    #[track_caller]
    fn carries(&self, json: &str, path: Path) {
        eventually("the sender uses the path", || self.sender.status().path == path);
        let receipt = self.sender.send(json);
        let message = self.receiver.receive();
        assert_eq!((message.path(), message.json().len()), (path, json.len()));
        assert_eq!(&message.json()[..], json.as_bytes());
        assert!(message.complete());
        assert_delivered(receipt, path);
    }

    #[track_caller]
    fn carries_on_both_paths(&self, json: impl Fn(u64) -> String) {
        self.carries(&json(1), Path::WebSocket);
        self.ws.set(Fault::Refuse);
        self.carries(&json(2), Path::Http);
        self.ws.set(Fault::Calm);
        self.carries(&json(3), Path::WebSocket);
    }

    /// Not by WebSocket.
    #[track_caller]
    fn does_not_connect(&self, cause: Cause) {
        let refused = |event: &&Event| matches!(event, Event::Down { cause: is, .. } if *is == cause);
        eventually("it was refused twice", || self.receiver.events().iter().filter(refused).count() >= 2);
        let up = |event: &Event| matches!(event, Event::State { to: State::Up, .. });
        assert!(!self.receiver.events().iter().any(up) && !self.sender.events().iter().any(up));
    }

    #[track_caller]
    fn stop(self) {
        self.sender.stop();
        self.receiver.stop();
    }
}

fn both_paths_are_encrypted(pair: Pair) {
    let safe = Safe::trusting(pair);
    safe.carries_on_both_paths(batch);
    let stats = safe.sender.stats();
    assert_eq!((stats.delivered_websocket, stats.delivered_http, stats.posts), (2, 1, 1));
    for node in [&safe.sender, &safe.receiver] {
        let mut socket = TcpStream::connect(node.address()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(b"GET /api/v1/pow/ws HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut said = Vec::new();
        let _ = socket.read_to_end(&mut said);
        assert!(!said.starts_with(b"HTTP"), "{said:?}");
    }
    safe.stop();
}

fn batches_of_a_megabyte(pair: Pair) {
    let safe = Safe::trusting(pair);
    safe.carries_on_both_paths(|n| big_batch(n, 1 << 20));
    assert_eq!(safe.receiver.stats().duplicates, 0);
    safe.stop();
}

/// Everybody has a certificate, and asks for one.
fn who_asks_for_a_certificate_gets_one(pair: Pair) {
    let authority = Authority::new();
    let tls = serve(show(trust(&authority), &authority.here()), &authority.here());
    let tls = tls.client_roots(authority.pem()).unwrap();
    let safe = Safe::start(pair, &tls, &tls);
    safe.carries_on_both_paths(batch);
    safe.stop();
}

fn who_has_no_certificate_is_refused(pair: Pair) {
    let authority = Authority::new();
    let receiver = serve(trust(&authority), &authority.here());
    let sender = serve(trust(&authority), &authority.here()).client_roots(authority.pem()).unwrap();
    refused(pair, &sender, &receiver);
}

fn who_has_a_stranger_s_certificate_is_refused(pair: Pair) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let receiver = serve(show(trust(&authority), &stranger.here()), &authority.here());
    let sender = serve(trust(&authority), &authority.here()).client_roots(authority.pem()).unwrap();
    refused(pair, &sender, &receiver);
}

fn a_stranger_s_listener_is_refused(pair: Pair) {
    let authority = Authority::new();
    let sender = serve(trust(&authority), &Authority::new().here());
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver);
}

fn an_old_certificate_is_refused(pair: Pair) {
    let authority = Authority::new();
    let old = authority.certify(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let sender = serve(trust(&authority), &old);
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver);
}

fn a_certificate_for_another_host_is_refused(pair: Pair) {
    let authority = Authority::new();
    let sender = serve(trust(&authority), &authority.certify(&["127.0.0.1", "elsewhere"], |_| ()));
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver);
}

/// The WebSocket does not come about, and HTTP goes on.
fn refused(pair: Pair, sender: &Tls, receiver: &Tls) {
    let safe = Safe::start(pair, sender, receiver);
    safe.does_not_connect(Cause::Refused);
    safe.carries(&batch(1), Path::Http);
    safe.stop();
}

/// Nothing is sent before it is known who listens: such a request is *unreached*, and no callback arrives.
fn callbacks_of_a_stranger_get_nothing(pair: Pair) {
    let authority = Authority::new();
    let sender = serve(trust(&authority), &authority.here());
    let receiver = serve(trust(&authority), &Authority::new().here());
    let safe = Safe::start(pair, &sender, &receiver);
    eventually("it is connected", || safe.sender.status().path == Path::WebSocket);
    safe.ws.set(Fault::Refuse);
    eventually("it goes by HTTP", || safe.sender.status().path == Path::Http);
    let receipt = safe.sender.send(batch(1));
    safe.sender.until("it was posted in vain", |stats| stats.posts >= 2);
    assert_eq!((receipt.try_settled(), safe.receiver.stats().delivered), (None, 0));
    safe.ws.set(Fault::Calm);
    let message = safe.receiver.receive();
    assert_eq!((message.path(), message.maybe_dup()), (Path::WebSocket, false));
    assert!(message.complete());
    assert_delivered(receipt, Path::WebSocket);
    assert_eq!(safe.receiver.stats().duplicates, 0);
    safe.stop();
}

/// TLS to a listener that speaks none, and the other way round.
fn one_end_alone_is_refused(pair: Pair) {
    let authority = Authority::new();
    let (plain, tls) = (Tls::new(), serve(trust(&authority), &authority.here()));
    for (listens, scheme) in [(&plain, "wss"), (&tls, "ws")] {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(listens).unwrap();
        let sender = Node::start(pair.sends, setup.configure(quick).drain(DRAIN));
        let dial = |scheme: &str, tls: &Tls| {
            let setup = Setup::api_node(&format!("{scheme}://{}", sender.address())).unwrap().tls(tls).unwrap();
            Node::start(pair.receives, setup.configure(quick).drain(DRAIN))
        };
        let lost = dial(scheme, &trust(&authority));
        let refused = |event: &&Event| matches!(event, Event::Down { cause: Cause::Refused, .. });
        eventually("it was refused twice", || lost.events().iter().filter(refused).count() >= 2);
        let found = dial(if scheme == "ws" { "wss" } else { "ws" }, &trust(&authority));
        eventually("another is connected", || sender.status().path == Path::WebSocket);
        let receipt = sender.send(batch(1));
        assert!(found.receive().complete());
        assert_delivered(receipt, Path::WebSocket);
        for node in [sender, lost, found] {
            node.stop();
        }
    }
}

fn a_broken_connection_is_made_again(pair: Pair) {
    let safe = Safe::trusting(pair);
    for n in 0..5 {
        safe.carries(&big_batch(n, 100_000), Path::WebSocket);
        let before = safe.receiver.stats().attempts;
        safe.ws.set(Fault::Reset);
        safe.ws.set(Fault::Calm);
        safe.receiver.until("it dials again", |stats| stats.attempts > before);
    }
    safe.carries(&batch(5), Path::WebSocket);
    assert_eq!(safe.receiver.stats().duplicates, 0);
    safe.stop();
}

/// Listens by TLS.
fn start(adapter: Adapter, authority: &Authority) -> (Node, String) {
    let tls = serve(Tls::new(), &authority.here());
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(&tls).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    let url = format!("wss://{}", node.address());
    (node, url)
}

fn who_speaks_no_tls_harms_nobody(adapter: Adapter) {
    let authority = Authority::new();
    let (node, url) = start(adapter, &authority);
    for nonsense in [
        &b"GET /api/v1/pow/ws HTTP/1.1\r\nHost: here\r\n\r\n"[..],
        b"\x16\x03\x01\xff\xff",
        b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
        b"\x15\x03\x03\x00\x02\x02\x28",
        &[0; 70_000],
        b"",
    ] {
        let mut socket = TcpStream::connect(node.address()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let _ = socket.write_all(nonsense);
        let _ = socket.shutdown(Shutdown::Write);
        let mut said = Vec::new();
        match socket.read_to_end(&mut said) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("{nonsense:?}"),
            _ => assert!(said.len() < 100, "an alert at most: {said:?}"),
        }
    }
    is_well(adapter, node, &url, &authority);
}

/// Neither who says nothing nor who stops in the middle of a handshake stays for ever.
fn who_says_nothing_is_let_go(adapter: Adapter) {
    let authority = Authority::new();
    let (node, url) = start(adapter, &authority);
    let silent = [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"].map(|said| {
        let mut socket = TcpStream::connect(node.address()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(said).unwrap();
        socket
    });
    for mut socket in silent {
        let mut said = Vec::new();
        let end = socket.read_to_end(&mut said);
        let waits = |kind| matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!end.is_err_and(|error| waits(error.kind())), "it is still connected");
    }
    is_well(adapter, node, &url, &authority);
}

/// Of the WebSocket, of a request, and of a peer's.
fn stop_is_prompt_in_the_middle_of_a_handshake(adapter: Adapter) {
    let authority = Authority::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let begun = || {
        let mut socket = silent.accept().unwrap().0;
        socket.read_exact(&mut [0; 5]).unwrap();
        socket
    };

    let dials = Setup::api_node(&format!("wss://{address}")).unwrap().tls(&trust(&authority)).unwrap();
    let dials = Node::start(adapter, dials.configure(quick).drain(DRAIN));
    let _dialled = begun();
    dials.stop();

    let tls = serve(trust(&authority), &authority.here());
    let posts = Setup::ml_node("127.0.0.1:0").unwrap().tls(&tls).unwrap();
    let posts = posts.fallback(&format!("https://{address}")).unwrap();
    let posts = Node::start(adapter, posts.configure(quick).drain(DRAIN));
    let _peer = TcpStream::connect(posts.address()).unwrap();
    let receipt = posts.send(batch(1));
    let _posted = begun();
    assert_eq!(receipt.try_settled(), None);
    posts.stop();
}

/// A chain of certificates that does not fit into what a peer takes before it reads.
fn a_handshake_may_have_to_wait_until_it_can_write(adapter: Adapter) {
    let authority = Authority::new();
    let here = authority.here();
    let chain = [here.certificate.clone(), authority.pem().repeat(110)].concat();
    let tls = serve(trust(&authority), &here).identity(chain, &here.key).unwrap();
    let tls = tls.client_roots(authority.pem()).unwrap();

    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // With small segments the other side's buffer stays small, too.
    #[cfg(target_os = "linux")]
    listener.set_tcp_mss(88).unwrap();
    listener.set_recv_buffer_size(2000).unwrap();
    listener.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    listener.listen(1).unwrap();
    let port = listener.local_addr().unwrap().as_socket().unwrap().port();
    let setup = Setup::api_node(&format!("wss://localhost:{port}")).unwrap().tls(&tls).unwrap();
    let listens = bowline_transport::Node::new(&setup, || ()).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));

    let (socket, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut channel = listens.security().accept(socket).unwrap();
    let heard = |channel: &mut Channel<Socket>| channel.socket().peek(&mut [MaybeUninit::uninit()]).is_ok();
    eventually("it says hello", || heard(&mut channel));
    while heard(&mut channel) {
        assert!(waits(&channel.read(&mut [0])));
    }
    eventually("it begins to show its certificates, and cannot end", || heard(&mut channel));
    channel.socket().set_nonblocking(false).unwrap();
    channel.socket().set_read_timeout(Some(PROMPT)).unwrap();
    let mut request = [0; 4];
    channel.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"GET ");
    node.stop();
}

#[track_caller]
fn is_well(adapter: Adapter, node: Node, url: &str, authority: &Authority) {
    let setup = Setup::api_node(url).unwrap().tls(&trust(authority)).unwrap();
    let peer = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    let receipt = node.send(batch(1));
    assert!(peer.receive().complete());
    assert_delivered(receipt, Path::WebSocket);
    node.stop();
    peer.stop();
}

fn python_s_api_node_by_wss(adapter: Adapter) {
    let authority = Authority::new();
    let roots = File::new(&authority.pem());
    let Some(mut peer) = peer::python_with("api_node.py", "acks", &[("SSL_CERT_FILE", roots.path())]) else { return };
    let (node, url) = start(adapter, &authority);
    peer.tell(format!("{url}/api/v1/pow/ws"));
    peer.saw("open");
    for n in 0..7 {
        let receipt = node.send(batch(n));
        peer.saw("batch");
        assert_delivered(receipt, Path::WebSocket);
    }
    node.stop();
    assert_eq!(peer.saw("closed")["code"], 1000);
}

fn curl_posts_by_https(adapter: Adapter) {
    let Some(()) = peer::need_curl() else { return };
    let authority = Authority::new();
    let tls = serve(Tls::new(), &authority.here()).client_roots(authority.pem()).unwrap();
    let setup = Setup::api_node("127.0.0.1:9").unwrap().callbacks("127.0.0.1:0").unwrap().tls(&tls).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    let url = format!("https://localhost:{}/v1/poc-batches/generated", node.address().port());
    let (roots, shown) = (File::new(&authority.pem()), authority.here());
    let (certificate, key) = (File::new(&shown.certificate), File::new(&shown.key));
    let resolve = format!("localhost:{}:127.0.0.1", node.address().port());
    let body = batch(1);
    let stranger = ["--cacert", roots.path(), "--resolve", &resolve, "--data-binary", &body, &url];
    assert_eq!(peer::curl(&stranger).status, 0, "without a certificate");
    let known = ["--cert", certificate.path(), "--key", key.path()].map(str::to_owned);
    let known: Vec<_> = known.into_iter().chain(stranger.map(str::to_owned)).collect();
    let said = begin("curl", move || peer::curl(&known.iter().map(String::as_str).collect::<Vec<_>>()));
    let message = node.receive();
    assert_eq!((message.path(), json(&message)), (Path::Http, body.as_str()));
    assert!(message.complete());
    let said = said.wait();
    assert_eq!(said.status, 200, "{}", said.log);
    assert_eq!(node.stats().delivered, 1);
    node.stop();
}

#[test]
fn settings_that_make_no_sense_say_which() {
    let authority = Authority::new();
    let (one, other) = (authority.here(), authority.here());
    let broken = one.certificate.replace("MII", "M!!");
    for (tls, said) in [
        (Tls::new().roots(""), "roots: there is no certificate"),
        (Tls::new().roots(&one.key), "roots: there is no certificate"),
        (Tls::new().client_roots(""), "client_roots: there is no certificate"),
        (Tls::new().identity(&one.certificate, &one.certificate), "identity: there is no private key"),
        (Tls::new().server(&broken, &one.key), "server: not PEM"),
    ] {
        let error = tls.unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    let setup = || Setup::ml_node("127.0.0.1:0").unwrap();
    for (tls, said) in [
        (Tls::new().server(&one.certificate, &other.key), "bad TLS setting: server: "),
        (Tls::new().identity(&one.certificate, &other.key), "bad TLS setting: identity: "),
        (Tls::new().client_roots(authority.pem()), "bad TLS setting: server: there is no certificate"),
    ] {
        let error = setup().tls(&tls.unwrap()).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    let nameless = Setup::api_node("wss://a..b").unwrap();
    let error = bowline_transport::Node::new(&nameless, || ()).unwrap_err();
    assert!(matches!(error, SetupError::Tls(TlsError::Name { .. })), "{error}");
}

/// One direction of a pipe.
#[derive(Default)]
struct Way {
    bytes: VecDeque<u8>,
    room: usize,
    ended: bool,
}

/// One end of a pipe that never blocks and takes a few bytes at a time.
struct Pipe {
    reads: Arc<Mutex<Way>>,
    writes: Arc<Mutex<Way>>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut way = self.reads.lock().unwrap();
        if way.bytes.is_empty() {
            return if way.ended { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) };
        }
        way.bytes.read(buffer)
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut way = self.writes.lock().unwrap();
        let fits = bytes.len().min(way.room - way.bytes.len());
        way.bytes.extend(&bytes[..fits]);
        if fits == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(fits) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.writes.lock().unwrap().ended = true;
    }
}

/// A dialer and a listener with so many bytes between them, before the handshake.
fn pipe(room: usize) -> (Channel<Pipe>, Channel<Pipe>) {
    let authority = Authority::new();
    between(room, &serve(trust(&authority), &authority.here()))
}

fn between(room: usize, tls: &Tls) -> (Channel<Pipe>, Channel<Pipe>) {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(tls).unwrap();
    let node = bowline_transport::Node::new(&setup, || ()).unwrap();
    let [one, other] = [(); 2].map(|()| Arc::new(Mutex::new(Way { room, ..Way::default() })));
    let dialer = Pipe { reads: Arc::clone(&one), writes: Arc::clone(&other) };
    let target = Target::http("https://localhost").unwrap();
    let dialer = node.security().dial(dialer, &target).unwrap();
    (dialer, node.security().accept(Pipe { reads: other, writes: one }).unwrap())
}

/// True: it has to wait.
#[track_caller]
fn waits<T>(done: &io::Result<T>) -> bool {
    done.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// After the handshake.
fn open(room: usize) -> (Channel<Pipe>, Channel<Pipe>) {
    let (mut dialer, mut listener) = pipe(room);
    for _ in 0..100_000 {
        let done = dialer.handshake();
        assert!(waits(&listener.read(&mut [0])), "nothing was written");
        assert!(waits(&done) || done.is_ok(), "{done:?}");
        // The listener may have more to say, such as tickets.
        if done.is_ok() && waits(&dialer.read(&mut [0])) && !listener.wants_write() {
            return (dialer, listener);
        }
    }
    panic!("no end of the handshake");
}

#[test]
fn everything_goes_through_a_keyhole() {
    for room in [1, 13, 40_000] {
        let (mut near, mut far) = open(room);
        let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
        let (mut rest, mut seen) = (&sent[..], Vec::new());
        let mut piece = [0; 5000];
        loop {
            match near.write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            match far.read(&mut piece) {
                Ok(n) => seen.extend_from_slice(&piece[..n]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            if rest.is_empty() && near.flush().is_ok() && seen.len() == sent.len() {
                break;
            }
        }
        assert_eq!(seen, sent);
    }
}

#[test]
fn a_flush_says_that_something_waits() {
    let (mut near, mut far) = open(100);
    assert_eq!(near.write(&[7; 200]).unwrap(), 200);
    assert!(near.wants_write() && waits(&near.flush()));
    assert!(waits(&near.write(&[7])), "no second record while the first one waits");
    let mut seen = 0;
    while seen < 200 {
        let _ = near.flush();
        seen += far.read(&mut [0; 64]).unwrap_or(0);
    }
    near.flush().unwrap();
    assert!(!near.wants_write());
}

#[test]
fn at_most_one_record_is_buffered() {
    let (mut near, _far) = open(100);
    assert_eq!(near.write(&vec![7; 1 << 20]).unwrap(), 16 * 1024);
}

/// Both ends have more to say than the other one takes.
#[test]
fn a_read_goes_on_while_writes_cannot() {
    let (mut near, mut far) = open(100);
    let hello = [b'h'; 300];
    for end in [&mut near, &mut far] {
        assert_eq!(end.write(&hello).unwrap(), 300);
        assert!(waits(&end.flush()));
    }
    let mut seen = [0, 0];
    for _ in 0..100 {
        for (end, seen) in [&mut near, &mut far].into_iter().zip(&mut seen) {
            *seen += end.read(&mut [0; 64]).unwrap_or(0);
        }
    }
    assert_eq!(seen, [300, 300]);
}

#[test]
fn an_end_is_orderly_only_if_it_was_announced() {
    let read = |end: &mut Channel<Pipe>| end.read(slice::from_mut(&mut 0_u8)).map_err(|error| error.kind());
    // Dropped.
    let (mut near, far) = open(1000);
    drop(far);
    assert_eq!(read(&mut near), Ok(0));
    // Closed.
    let (mut near, mut far) = open(1000);
    far.close().unwrap();
    assert_eq!(read(&mut near), Ok(0));
    // Dropped with something unsent.
    let (mut near, mut far) = open(30);
    far.write_all(b"cut off in the middle").unwrap();
    drop(far);
    assert_eq!(read(&mut near), Err(ErrorKind::UnexpectedEof));
    // Cut.
    let (mut near, _far) = open(1000);
    near.socket().reads.lock().unwrap().ended = true;
    assert_eq!(read(&mut near), Err(ErrorKind::UnexpectedEof));
    // In the handshake.
    let (mut near, far) = pipe(1000);
    drop(far);
    assert_eq!(near.handshake().unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

/// Both ends are told why, and nothing that the dialer wrote has left.
#[test]
fn a_stranger_fails_the_handshake_and_is_told() {
    let (mut near, mut far) = between(10_000, &serve(trust(&Authority::new()), &Authority::new().here()));
    near.write_all(b"a secret").unwrap();
    assert!(waits(&near.handshake()));
    assert!(waits(&far.read(&mut [0; 64])));
    let why = near.handshake().unwrap_err();
    assert_eq!(
        (why.kind(), why.to_string().as_str()),
        (ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer")
    );
    let told = far.read(&mut [0; 64]).unwrap_err();
    assert_eq!((told.kind(), told.to_string().as_str()), (ErrorKind::InvalidData, "received fatal alert: UnknownCA"));
}
