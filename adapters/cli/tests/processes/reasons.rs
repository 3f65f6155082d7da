//! Why a peer is not reached, as the program says it: a line with reason, whose it is, what was said and what to do, and on
//! stderr the same for a person, once.

use super::ca::{Authority, File, serve};
use super::process::{Process, key, place};
use bowline_smol::hub::{Admission, Hub, HubSetup, Keypair};
use bowline_smol::{Node, Setup, Tls};
use core::net::SocketAddr;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::thread;

/// The first `down` line of a receiver that dials this, and the first words on stderr, by either adapter.
#[track_caller]
fn dials(url: &str, more: &[&str], check: impl Fn(&Value, &str)) {
    for adapter in ["smol", "blocking"] {
        let args = [&["connect", "--profile", "gonka-api-node", url, "--accept", "--adapter", adapter], more].concat();
        let mut process = Process::start(&args);
        let line = process.next("down");
        check(&line, &process.error());
        // It is tried again, and told in a line again, but not to the person.
        assert_eq!(process.next("down")["reason"], line["reason"]);
        assert_eq!(process.said(), [""; 0]);
    }
}

/// Which reason, whose, a part of what was said, and the advice.
#[track_caller]
fn is(line: &Value, stderr: &str, url: &str, [reason, by, said, advice]: [&str; 4]) {
    let field = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    assert_eq!([field("reason"), field("by"), field("advice")], [reason, by, advice], "{line}");
    assert!(field("said").contains(said), "{line}");
    assert!(stderr.starts_with(&format!("bowline: {url}: {reason}")) && stderr.contains(advice), "{stderr}");
}

/// A listener of this library, perhaps with a certificate.
fn listens(tls: &Tls) -> (Node, SocketAddr) {
    let node = Node::start(Setup::ml_node("127.0.0.1:0").unwrap().tls(tls).unwrap()).unwrap();
    let address = node.address().unwrap();
    (node, address)
}

/// A listener that answers every connection with this.
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

#[test]
fn e3_an_expired_certificate_and_an_unknown_issuer() {
    let authority = Authority::new();
    let roots = File::new(&authority.pem());
    let old = authority.certify(&["localhost"], |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
    let advice = "renew the peer's certificate, or set this machine's clock";
    let expired = ["the peer's certificate has expired", "TLS", "expired", advice];
    let advice = "trust its root, or have the peer send its intermediate certificates";
    let unknown = ["no trusted root has issued the peer's certificate", "TLS", "UnknownIssuer", advice];
    for (shown, told) in [(old, expired), (Authority::new().here(), unknown)] {
        let (_node, address) = listens(&serve(Tls::new(), &shown));
        let url = format!("wss://localhost:{}", address.port());
        dials(&url, &["--tls-roots", roots.path()], |line, stderr| is(line, stderr, &url, told));
    }
}

#[test]
fn e3_plain_text_to_a_tls_port_and_tls_to_a_plain_one() {
    let authority = Authority::new();
    let (_node, address) = listens(&serve(Tls::new(), &authority.here()));
    let url = format!("ws://{address}");
    let told = ["the peer speaks TLS", "peer", "", "use wss:// or https://"];
    dials(&url, &[], |line, stderr| is(line, stderr, &url, told));
    let (_node, address) = listens(&Tls::new());
    let url = format!("wss://{address}");
    let told = ["the peer does not speak TLS", "TLS", "corrupt", "use ws:// or http://"];
    dials(&url, &[], |line, stderr| is(line, stderr, &url, told));
}

#[test]
fn e3_no_such_name_and_a_closed_port() {
    dials("ws://no-such-name.invalid:9", &[], |line, stderr| {
        assert_eq!(line["by"], "resolver", "{line}");
        assert!(line["said"].as_str().unwrap().contains("lookup") && stderr.contains("lookup"), "{line} {stderr}");
    });
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("ws://{closed}");
    let told = ["nothing listens there", "system", "refused", "check the port, and that the peer runs"];
    dials(&url, &[], |line, stderr| is(line, stderr, &url, told));
}

#[test]
fn e3_a_close_frame_s_text_and_a_refusal_s_body() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for socket in listener.incoming() {
            let mut websocket = tungstenite::accept(socket.unwrap()).unwrap();
            let code = tungstenite::protocol::frame::coding::CloseCode::from(1008);
            let frame = tungstenite::protocol::CloseFrame { code, reason: "PoW is not running".into() };
            websocket.close(Some(frame)).unwrap();
            while websocket.read().is_ok() {}
        }
    });
    let url = format!("ws://{address}");
    let told = ["closed with 1008", "peer", "PoW is not running", ""];
    dials(&url, &[], |line, stderr| is(line, stderr, &url, told));

    let address =
        says(b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nno \x1b[31mentry");
    // A token in the URL is nobody's business.
    let url = format!("ws://{address}/ws");
    let told = ["answered with 403", "peer", r"text/plain: no \u{1b}[31mentry", "check the credentials"];
    dials(&format!("{url}?token=open-sesame"), &[], |line, stderr| {
        is(line, stderr, &url, told);
        assert!(!stderr.contains("open-sesame"), "{stderr}");
    });
}

#[test]
fn e3_a_validator_with_another_key() {
    let place = place("another-key");
    let keys = |byte: &str| Keypair::from_seed_hex(&byte.repeat(32)).unwrap();
    let setup = HubSetup::validator("127.0.0.1:0", keys("0b")).unwrap().authorize(|_| Admission::accept());
    let hub = Hub::start(setup).unwrap();
    let (url, miner, expected) =
        (format!("ws://{}", hub.address()), key(&place, "07"), keys("0c").hotkey().to_string());
    let other = keys("0b").hotkey().to_string();
    for adapter in ["smol", "blocking"] {
        let mut process =
            Process::start(&["connect", &url, "--key", &miner, "--validator", &expected, "--adapter", adapter]);
        let line = process.next("down");
        assert_eq!((&line["by"], &line["said"]), (&"peer".into(), &other.as_str().into()), "{line}");
        let stderr = process.error();
        assert!(stderr.starts_with(&format!("bowline: {url}: ")) && stderr.contains(&other), "{stderr}");
    }
}

#[test]
fn e4_the_program_s_hub_says_whom_it_turned_away() {
    let place = place("turned-away");
    let allow = place.join("allow");
    let (validator, miner) = (key(&place, "0b"), key(&place, "07"));
    // Somebody else.
    std::fs::write(&allow, Keypair::from_seed_hex(&"0c".repeat(32)).unwrap().hotkey().to_string()).unwrap();
    let args = ["hub", "--listen", "127.0.0.1:0", "--key", &validator, "--allow", allow.to_str().unwrap()];
    let mut hub = Process::start(&args);
    let url = format!("ws://{}", hub.next("start")["address"].as_str().unwrap());
    let mut dials = Process::start(&["connect", &url, "--key", &miner]);
    let line = hub.next("turned_away");
    let hotkey = Keypair::from_seed_hex(&"07".repeat(32)).unwrap().hotkey().to_string();
    assert_eq!((&line["address"], &line["hotkey"]), (&"127.0.0.1".into(), &hotkey.as_str().into()), "{line}");
    assert_eq!((&line["reason"], &line["untold"]), (&"nobody known".into(), &0.into()), "{line}");
    assert!(line["said"].is_string(), "{line}");
    let line = dials.next("down");
    assert_eq!(line["reason"], "closed with 1008", "{line}");
    assert!(line["said"].is_string(), "{line}");
}
