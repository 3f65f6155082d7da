//! TLS at both ends: over real sockets with both adapters and foreign peers. What sockets cannot be made to do on purpose is
//! in `tls_channel.rs`.

#[macro_use]
mod real;

use bowline::{Event, Path, Reason, State, TlsFault};
use bowline_cli::proxy::{Fault, Proxy};
use bowline_smol::{Setup, Tls, TlsError};
use bowline_transport::{Channel, SetupError};
use core::mem::MaybeUninit;
use core::net::{Ipv4Addr, SocketAddr};
use real::ca::{Authority, File, serve, show, trust, waits};
use real::peer;
use real::*;
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

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
    fn does_not_connect(&self, reason: Reason) {
        let refused = |event: &&Event| matches!(event, Event::Down { reason: is, .. } if *is == reason);
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
    refused(pair, &sender, &receiver, Reason::Tls(TlsFault::Refused));
}

fn who_has_a_stranger_s_certificate_is_refused(pair: Pair) {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let receiver = serve(show(trust(&authority), &stranger.here()), &authority.here());
    let sender = serve(trust(&authority), &authority.here()).client_roots(authority.pem()).unwrap();
    refused(pair, &sender, &receiver, Reason::Tls(TlsFault::Refused));
}

fn a_stranger_s_listener_is_refused(pair: Pair) {
    let authority = Authority::new();
    let sender = serve(trust(&authority), &Authority::new().here());
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver, Reason::Tls(TlsFault::UnknownIssuer));
}

fn an_old_certificate_is_refused(pair: Pair) {
    let authority = Authority::new();
    let old = authority.certify(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let sender = serve(trust(&authority), &old);
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver, Reason::Tls(TlsFault::Expired));
}

fn a_certificate_for_another_host_is_refused(pair: Pair) {
    let authority = Authority::new();
    let sender = serve(trust(&authority), &authority.certify(&["127.0.0.1", "elsewhere"], |_| ()));
    let receiver = serve(trust(&authority), &authority.here());
    refused(pair, &sender, &receiver, Reason::Tls(TlsFault::WrongName));
}

/// The WebSocket does not come about, and HTTP goes on.
fn refused(pair: Pair, sender: &Tls, receiver: &Tls, reason: Reason) {
    let safe = Safe::start(pair, sender, receiver);
    safe.does_not_connect(reason);
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
    for (listens, scheme, reason) in [(&plain, "wss", Reason::Tls(TlsFault::NotTls)), (&tls, "ws", Reason::SpeaksTls)] {
        let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(listens).unwrap();
        let sender = Node::start(pair.sends, setup.configure(quick).drain(DRAIN));
        let dial = |scheme: &str, tls: &Tls| {
            let setup = Setup::api_node(&format!("{scheme}://{}", sender.address())).unwrap().tls(tls).unwrap();
            Node::start(pair.receives, setup.configure(quick).drain(DRAIN))
        };
        let lost = dial(scheme, &trust(&authority));
        let refused = |event: &&Event| matches!(event, Event::Down { reason: is, .. } if *is == reason);
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
    // The hello, in small segments; so few reads cannot take all the certificates as well.
    for _ in 0..6 {
        if heard(&mut channel) {
            assert!(waits(&channel.read(&mut [0])));
        }
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
