//! Why a peer is not reached, over real sockets and with both adapters: each cause by a reason of its own, in the events, in
//! the status and with what was said; by servers of the tests' own, and by servers of Python in [`with_pythons`]. The ninth, a
//! validator with another key, is in `miner/`; the program's lines are in `adapters/cli/tests/processes`.

#[macro_use]
mod real;

use bowline::{Party, Reason, TlsFault};
use bowline_smol::{Excerpt, Explanation, Setup, Tls};
use core::net::{Ipv4Addr, SocketAddr};
use real::ca::{Authority, Certified, File, serve, trust};
use real::peer::{self, Peer};
use real::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;
use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

with_both! {
    e1_an_expired_certificate,
    e1_an_unknown_issuer,
    e1_no_such_name,
    e1_a_closed_port,
    e1_plain_text_to_a_tls_port,
    e1_plain_text_to_a_tls_port_of_nginx,
    e1_tls_to_a_plain_port,
    e2_a_close_frame_s_text,
    e2_the_body_of_a_refusal,
    e2_the_target_of_a_redirect,
    e2_a_secret_that_comes_back_is_masked,
    e3_a_path_that_works_again_is_not_blocked,
    e3_a_message_that_is_rejected_says_why,
}

/// Dials this URL until it has failed twice; every time for this reason. What was said then.
#[track_caller]
fn dial(adapter: Adapter, url: &str, tls: &Tls, reason: Reason) -> String {
    let setup = Setup::api_node(url).unwrap().tls(tls).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    eventually("it has failed twice", || node.explanations().len() >= 2);
    let said = check(&node.explanations(), reason);
    let status = node.status();
    let last = check(&[status.websocket.last.expect("it has failed")], reason);
    assert_eq!(last.is_empty(), said.is_empty(), "the status says it, too");
    assert!(status.websocket.failing_since.is_some(), "since the first failure");
    assert_eq!(status.http.last, None, "nothing was asked by HTTP");
    node.stop();
    said
}

/// Posts to this URL until it has failed twice; every time for this reason. What was said then.
#[track_caller]
fn post_to(adapter: Adapter, url: &str, tls: &Tls, reason: Reason) -> String {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(tls).unwrap().fallback(url).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    let receipt = node.send(batch(1));
    eventually("it has failed twice", || node.explanations().len() >= 2);
    let said = check(&node.explanations(), reason);
    let status = node.status();
    let last = check(&[status.http.last.expect("it has failed")], reason);
    assert_eq!(last.is_empty(), said.is_empty(), "the status says it, too");
    assert!(status.http.failing_since.is_some(), "since the first failure");
    node.stop();
    assert!(settled(receipt).reason.is_some(), "a message that was abandoned says why");
    said
}

/// Each is for this reason, and short. What the first one says.
#[track_caller]
fn check(explanations: &[Explanation], reason: Reason) -> String {
    for explanation in explanations {
        assert_eq!(explanation.reason, reason, "{explanation}");
        assert!(explanation.text.as_ref().is_none_or(|text| text.as_str().len() <= Excerpt::LONGEST), "{explanation}");
    }
    explanations.first().and_then(|first| first.text.as_ref()).map(ToString::to_string).unwrap_or_default()
}

/// Both ways to reach a listener: `wss` and `https`, or `ws` and `http`.
#[track_caller]
fn both_ways(adapter: Adapter, secure: bool, address: SocketAddr, tls: &Tls, reason: Reason) -> [String; 2] {
    let secure = if secure { "s" } else { "" };
    let port = address.port();
    let dialled = dial(adapter, &format!("ws{secure}://localhost:{port}"), tls, reason);
    [dialled, post_to(adapter, &format!("http{secure}://localhost:{port}/v1/poc-batches"), tls, reason)]
}

/// A listener of this library with this certificate.
fn listens(adapter: Adapter, tls: &Tls) -> Node {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().tls(tls).unwrap();
    Node::start(adapter, setup.configure(quick).drain(DRAIN))
}

/// A server that reads something and says this to everybody.
fn says(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let _ = socket.read(&mut [0; 4096]);
            let _ = socket.write_all(answer);
        }
    });
    address
}

fn e1_an_expired_certificate(adapter: Adapter) {
    let authority = Authority::new();
    let old = authority.certify(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let node = listens(adapter, &serve(Tls::new(), &old));
    let reason = Reason::Tls(TlsFault::Expired);
    for said in both_ways(adapter, true, node.address(), &trust(&authority), reason) {
        assert!(said.contains("expired"), "{said}");
    }
    assert!(reason.advice().is_some());
    node.stop();
}

fn e1_an_unknown_issuer(adapter: Adapter) {
    let node = listens(adapter, &serve(Tls::new(), &Authority::new().here()));
    let reason = Reason::Tls(TlsFault::UnknownIssuer);
    for said in both_ways(adapter, true, node.address(), &trust(&Authority::new()), reason) {
        assert!(said.contains("UnknownIssuer"), "{said}");
    }
    assert!(reason.advice().is_some());
    node.stop();
}

/// A resolver that cannot be asked says something else than one that knows the name is not there; both are the resolver's.
fn e1_no_such_name(adapter: Adapter) {
    let setup = Setup::api_node("ws://no-such-name.invalid:9").unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    eventually("it has failed", || !node.explanations().is_empty());
    let explanation = node.explanations().remove(0);
    assert_eq!(explanation.reason.by(), Party::Resolver, "{explanation}");
    assert!(explanation.text.unwrap().as_str().contains("lookup"));
    node.stop();
}

fn e1_a_closed_port(adapter: Adapter) {
    let port = Port::reserve();
    for said in both_ways(adapter, false, port.address, &Tls::new(), Reason::PortClosed) {
        assert!(said.contains("refused"), "{said}");
    }
}

fn e1_plain_text_to_a_tls_port(adapter: Adapter) {
    let node = listens(adapter, &serve(Tls::new(), &Authority::new().here()));
    both_ways(adapter, false, node.address(), &Tls::new(), Reason::SpeaksTls);
    assert_eq!(Reason::SpeaksTls.advice(), Some("use wss:// or https://"));
    node.stop();
}

fn e1_plain_text_to_a_tls_port_of_nginx(adapter: Adapter) {
    let address = says(
        b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n\
          <html>\r\n<center>The plain HTTP request was sent to HTTPS port</center>\r\n</html>\r\n",
    );
    let said = dial(adapter, &format!("ws://{address}"), &Tls::new(), Reason::SpeaksTls);
    assert_eq!(said, "text/html: <html> <center>The plain HTTP request was sent to HTTPS port</center> </html>");
}

fn e1_tls_to_a_plain_port(adapter: Adapter) {
    let node = listens(adapter, &Tls::new());
    let tls = trust(&Authority::new());
    let reason = Reason::Tls(TlsFault::NotTls);
    for said in both_ways(adapter, true, node.address(), &tls, reason) {
        assert!(said.contains("corrupt"), "{said}");
    }
    assert_eq!(reason.advice(), Some("use ws:// or http://"));
    node.stop();
}

fn e2_a_close_frame_s_text(adapter: Adapter) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut websocket = tungstenite::accept(socket.unwrap()).unwrap();
            let code = CloseCode::from(1008);
            websocket.close(Some(CloseFrame { code, reason: "PoW is\nnot running".into() })).unwrap();
            while websocket.read().is_ok() {}
        }
    });
    let setup = Setup::api_node(&format!("ws://{address}")).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    eventually("it was closed", || !node.explanations().is_empty());
    let explanation = node.explanations().remove(0);
    assert_eq!(explanation.to_string(), "closed with 1008 (PoW is not running)");
    node.stop();
}

fn e2_the_body_of_a_refusal(adapter: Adapter) {
    let address = says(
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"not yet\"}",
    );
    let said = dial(adapter, &format!("ws://{address}"), &Tls::new(), Reason::Status(403));
    assert_eq!(said, r#"application/json: {"error":"not yet"}"#);
    // A page is nobody's but a go-between's.
    let address = says(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<h1>WAF</h1>");
    let said = dial(adapter, &format!("ws://{address}"), &Tls::new(), Reason::Foreign(403));
    assert_eq!(said, "text/html: <h1>WAF</h1>");
}

fn e2_the_target_of_a_redirect(adapter: Adapter) {
    let address =
        says(b"HTTP/1.1 302 Found\r\nLocation: https://login.example/in?state=x\r\nConnection: close\r\n\r\n");
    let said = dial(adapter, &format!("ws://{address}"), &Tls::new(), Reason::Status(302));
    assert_eq!(said, "to https://login.example/in");
}

fn e2_a_secret_that_comes_back_is_masked(adapter: Adapter) {
    let address = says(b"HTTP/1.1 401 Who\r\nConnection: close\r\n\r\nI do not know open-sesame, nor \x1b]0;you\x07.");
    let url = format!("ws://{address}/api/v1/pow/ws?key=open-sesame");
    let said = dial(adapter, &url, &Tls::new(), Reason::Status(401));
    assert_eq!(said, r"I do not know ***, nor \u{1b}]0;you\u{7}.");
}

fn e3_a_message_that_is_rejected_says_why(adapter: Adapter) {
    let address = says(
        b"HTTP/1.1 422 No\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{\"error\":\"block_height\"}",
    );
    let setup = Setup::ml_node("127.0.0.1:0").unwrap().fallback(&format!("http://{address}")).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    let settlement = settled(node.send(batch(1)));
    assert!(matches!(settlement.outcome, bowline::Outcome::Rejected(_)), "{settlement:?}");
    assert_eq!(settlement.reason, Some(Reason::Status(422)));
    node.stop();
}

fn e3_a_path_that_works_again_is_not_blocked(adapter: Adapter) {
    let port = Port::reserve();
    let setup = Setup::api_node(&format!("ws://{}", port.address)).unwrap();
    let node = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    eventually("it has failed", || node.status().websocket.failing_since.is_some());
    eventually("it says when it tries again", || node.status().websocket.next_attempt.is_some());
    let listener = Setup::ml_node(&port.address.to_string()).unwrap();
    let listener = Node::start(adapter, listener.configure(quick).drain(DRAIN));
    eventually("it is connected", || node.status().state == bowline::State::Up);
    let websocket = node.status().websocket;
    assert_eq!((websocket.failing_since, websocket.next_attempt), (None, None));
    assert_eq!(websocket.last.map(|last| last.reason), Some(Reason::PortClosed), "the last reason stays");
    node.stop();
    listener.stop();
}

mod with_pythons {
    //! The same at servers of Python, by the library `websockets`, whose TLS is asyncio's, and by `http.server`. A closed port
    //! and a name that is not there need no peer: they are above.

    use super::*;

    with_both! {
        e1_an_expired_certificate,
        e1_an_unknown_issuer,
        e1_plain_text_to_a_tls_port,
        e1_tls_to_a_plain_port,
        e2_a_close_frame_s_text,
        e2_the_body_of_a_refusal,
    }

    /// Both servers, as long as this lives.
    struct Refuser {
        websockets: SocketAddr,
        http_server: SocketAddr,
        _peer: Peer,
    }

    impl Refuser {
        fn plain() -> Option<Self> {
            Self::start(&["plain"])
        }

        fn tls(shown: &Certified) -> Option<Self> {
            let (certificate, key) = (File::new(&shown.certificate), File::new(&shown.key));
            Self::start(&["tls", certificate.path(), key.path()])
        }

        fn start(arguments: &[&str]) -> Option<Self> {
            let mut peer = peer::python_as("refuser.py", arguments, &[])?;
            let mut address = |server: &str| {
                let port = peer.port(server).try_into().unwrap();
                SocketAddr::from((Ipv4Addr::LOCALHOST, port))
            };
            let (websockets, http_server) = (address("websockets"), address("http.server"));
            Some(Self { websockets, http_server, _peer: peer })
        }
    }

    /// Neither server is reached by a WebSocket or a request, because of TLS.
    #[track_caller]
    fn both_fail(adapter: Adapter, refuser: &Refuser, tls: &Tls, fault: TlsFault, word: &str) {
        let reason = Reason::Tls(fault);
        assert_eq!(reason.by(), Party::Tls);
        for server in [refuser.websockets, refuser.http_server] {
            for said in both_ways(adapter, true, server, tls, reason) {
                assert!(said.contains(word), "{said}");
            }
        }
    }

    fn e1_an_expired_certificate(adapter: Adapter) {
        let authority = Authority::new();
        let old = authority.certify(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        let Some(refuser) = Refuser::tls(&old) else { return };
        both_fail(adapter, &refuser, &trust(&authority), TlsFault::Expired, "expired");
    }

    fn e1_an_unknown_issuer(adapter: Adapter) {
        let authority = Authority::new();
        let Some(refuser) = Refuser::tls(&authority.here()) else { return };
        both_fail(adapter, &refuser, &trust(&Authority::new()), TlsFault::UnknownIssuer, "UnknownIssuer");
        // It is that alone: to one who trusts it, it talks.
        let url = format!("wss://localhost:{}", refuser.http_server.port());
        dial(adapter, &url, &trust(&authority), Reason::Status(403));
    }

    /// No alert and no words: one ends the connection without a byte, the other resets it. So it is not told that they speak
    /// TLS, but how it ended.
    fn e1_plain_text_to_a_tls_port(adapter: Adapter) {
        let Some(refuser) = Refuser::tls(&Authority::new().here()) else { return };
        for (server, word) in [(refuser.websockets, "without an answer"), (refuser.http_server, "reset")] {
            for said in both_ways(adapter, false, server, &Tls::new(), Reason::Closed(1006)) {
                assert!(said.contains(word), "{said}");
            }
        }
    }

    /// `websockets` gives no byte either, and no byte is no proof that it speaks no TLS.
    fn e1_tls_to_a_plain_port(adapter: Adapter) {
        let Some(refuser) = Refuser::plain() else { return };
        let tls = trust(&Authority::new());
        for said in both_ways(adapter, true, refuser.websockets, &tls, Reason::Tls(TlsFault::Other)) {
            assert!(said.starts_with("no answer to the handshake"), "{said}");
        }
        for said in both_ways(adapter, true, refuser.http_server, &tls, Reason::Tls(TlsFault::NotTls)) {
            assert!(said.contains("corrupt"), "{said}");
        }
    }

    fn e2_a_close_frame_s_text(adapter: Adapter) {
        let Some(refuser) = Refuser::plain() else { return };
        let reason = Reason::Closed(1008);
        assert_eq!(reason.by(), Party::Peer);
        let url = format!("ws://{}", refuser.websockets);
        assert_eq!(dial(adapter, &url, &Tls::new(), reason), "PoW läuft nicht");
    }

    fn e2_the_body_of_a_refusal(adapter: Adapter) {
        let Some(refuser) = Refuser::plain() else { return };
        let reason = Reason::Status(403);
        assert_eq!((reason.by(), reason.advice()), (Party::Peer, Some("check the credentials")));
        for said in both_ways(adapter, false, refuser.http_server, &Tls::new(), reason) {
            assert!(said.starts_with(r#"application/json: {"error": "not while PoC is off, so so"#), "{said}");
            assert!(said.ends_with('…') && said.len() > Excerpt::LONGEST - 8, "{said}");
        }
    }
}
