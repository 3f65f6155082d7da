//! What stands between two peers and answers in the place of one: portals, proxies, balancers, with bytes as they were seen
//! and with nginx itself, over real sockets and with both adapters. None of their words ends a message (H8).
//!
//! Where nginx is not installed its tests say so and pass, unless the environment has `BOWLINE_REQUIRE_PEERS=1`.

#[macro_use]
mod real;

use bowline::{Config, Outcome, Path, Reason};
use bowline_smol::{Receipt, Setup};
use core::net::SocketAddr;
use core::time::Duration;
use real::ca::{Authority, File};
use real::peer;
use real::*;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

#[path = "../../adapters/smol/examples/device/wire.rs"]
mod device;

with_both! {
    h8_a_portal_delivers_to_nobody_and_then_all_is_delivered_once,
    h8_a_proxy_that_has_lost_its_peer_ends_nothing,
    h8_a_redirect_is_not_followed_and_told_with_its_target,
    h8_a_page_in_place_of_a_wire_of_one_s_own,
    f4_a_proxy_s_413_leaves_the_message_to_the_websocket,
    h8_nginx_passes_on_what_the_peer_said,
    h8_nginx_without_its_peer_ends_nothing,
    h8_nginx_at_a_tls_port_ends_nothing,
    f4_nginx_with_its_limit_of_a_megabyte,
}

const PORTAL: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 45\r\nConnection: close\r\n\r\n\
    <html><body>Log in to the WiFi</body></html>\n";
const NGINX_413: &str = "HTTP/1.1 413 Request Entity Too Large\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\
    Content-Length: 183\r\nConnection: close\r\n\r\n<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n\
    <body>\r\n<center><h1>413 Request Entity Too Large</h1></center>\r\n<hr><center>nginx/1.22.1</center>\r\n</body>\r\n\
    </html>\r\n";
const NGINX_400: &str = "HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\
    Connection: close\r\n\r\n<html>\r\n<head><title>400 The plain HTTP request was sent to HTTPS port</title></head>\r\n\
    <body>\r\n<center><h1>400 Bad Request</h1></center>\r\n<center>The plain HTTP request was sent to HTTPS port</center>\r\n\
    </body>\r\n</html>\r\n";
const NGINX_502: &str = "HTTP/1.1 502 Bad Gateway\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\
    Connection: close\r\n\r\n<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n</html>\r\n";
const NGINX_504: &str = "HTTP/1.1 504 Gateway Time-out\r\nServer: nginx/1.22.1\r\nContent-Type: text/html\r\n\
    Connection: close\r\n\r\n<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n</html>\r\n";
const WAF_422: &str =
    "HTTP/1.1 422 Unprocessable\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\nblocked by a rule";

/// Something on the way: it says this to everybody, or, if it has nothing to say, passes everything on.
struct GoBetween {
    address: SocketAddr,
    says: Arc<Mutex<Option<&'static str>>>,
}

impl GoBetween {
    fn start(target: SocketAddr, says: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(says));
        let said = Arc::clone(&says);
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let says = *said.lock().unwrap();
                thread::spawn(move || match says {
                    Some(answer) => drop(answer_all(socket, answer)),
                    None => drop(pass_on(&socket, target)),
                });
            }
        });
        Self { address, says }
    }

    fn says(&self, answer: Option<&'static str>) {
        *self.says.lock().unwrap() = answer;
    }
}

/// Answers once the head and something of the body have come, as a proxy does that has seen enough.
fn answer_all(mut socket: TcpStream, answer: &str) -> io::Result<()> {
    let mut seen = Vec::new();
    while !seen.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let got = socket.read(&mut piece)?;
        if got == 0 {
            return Ok(());
        }
        seen.extend_from_slice(&piece[..got]);
    }
    socket.write_all(answer.as_bytes())?;
    socket.shutdown(Shutdown::Write)?;
    while socket.read(&mut [0; 4096])? > 0 {}
    Ok(())
}

fn pass_on(near: &TcpStream, target: SocketAddr) -> io::Result<()> {
    let far = TcpStream::connect(target)?;
    let pipe = |mut from: TcpStream, mut to: TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let (from, to) = (far.try_clone()?, near.try_clone()?);
    let back = thread::spawn(move || pipe(from, to));
    pipe(near.try_clone()?, far);
    let _ = back.join();
    Ok(())
}

/// A receiver of batches that never finds its ML node.
fn receiver(adapter: Adapter, port: &Port) -> Node {
    let setup = Setup::api_node("ws://127.0.0.1:9").unwrap().callbacks(&port.address.to_string()).unwrap();
    Node::start(adapter, setup.configure(quick).drain(DRAIN))
}

/// An ML node that nobody dials, whose batches go here.
fn sender(adapter: Adapter, callbacks: SocketAddr, configure: fn(&mut Config)) -> Node {
    let setup = Setup::ml_node("127.0.0.1:0").unwrap();
    let setup = setup.fallback(&format!("http://{callbacks}/v1/poc-batches")).unwrap();
    Node::start(adapter, setup.configure(configure).drain(DRAIN))
}

/// The receiver gets each of these batches, each once, and their senders hear of it.
#[track_caller]
fn all_once(receiver: Node, receipts: Vec<Receipt>, path: Path) {
    let count = receipts.len();
    let mut got = Vec::new();
    for _ in 0..count {
        let message = receiver.receive();
        got.push(json(&message).to_owned());
        assert!(message.complete());
    }
    for receipt in receipts {
        assert_delivered(receipt, path);
    }
    got.sort();
    got.dedup();
    assert_eq!(got.len(), count, "each once");
    assert_eq!(receiver.stop().stats.delivered, count as u64, "and no more");
}

/// The batches are posted while it says each of these, none of them ends, and then all are delivered.
fn nothing_ends_then_all(adapter: Adapter, answers: &[&'static str]) {
    let port = Port::reserve();
    let way = GoBetween::start(port.address, Some(answers[0]));
    let node = sender(adapter, way.address, quick);
    let receipts: Vec<_> = (0..3).map(|n| node.send(batch(n))).collect();
    for answer in answers {
        way.says(Some(answer));
        let before = node.stats().requests_failed;
        node.until("it was answered so", |stats| stats.requests_failed >= before + 2);
        assert!(receipts.iter().all(|receipt| receipt.try_settled().is_none()), "nobody has it: {answer}");
    }
    let receiver = receiver(adapter, &port);
    way.says(None);
    all_once(receiver, receipts, Path::Http);
    assert_eq!(node.stop().stats.rejected, 0);
}

fn h8_a_portal_delivers_to_nobody_and_then_all_is_delivered_once(adapter: Adapter) {
    nothing_ends_then_all(adapter, &[PORTAL]);
}

fn h8_a_proxy_that_has_lost_its_peer_ends_nothing(adapter: Adapter) {
    nothing_ends_then_all(adapter, &[NGINX_400, NGINX_502, NGINX_504, WAF_422]);
}

fn h8_a_redirect_is_not_followed_and_told_with_its_target(adapter: Adapter) {
    const REDIRECT: &str = "HTTP/1.1 302 Found\r\nLocation: http://portal.example/login?from=batch\r\n\
        Content-Length: 0\r\nConnection: close\r\n\r\n";
    let port = Port::reserve();
    let way = GoBetween::start(port.address, Some(REDIRECT));
    let node = sender(adapter, way.address, quick);
    let receipt = node.send(batch(1));
    node.until("it was sent elsewhere", |stats| stats.requests_failed >= 2);
    eventually("it is told", || !node.explanations().is_empty());
    let told = node.explanations().remove(0);
    assert_eq!(told.reason, Reason::Foreign(302));
    assert_eq!(told.text.unwrap().as_str(), "to http://portal.example/login");
    let receiver = receiver(adapter, &port);
    way.says(None);
    all_once(receiver, vec![receipt], Path::Http);
    node.stop();
}

fn f4_a_proxy_s_413_leaves_the_message_to_the_websocket(adapter: Adapter) {
    let port = Port::reserve();
    let way = GoBetween::start(port.address, Some(NGINX_413));
    refused_by_http_then_by_websocket(adapter, &way.address);
}

/// A large batch is refused on the way of HTTP, and goes over the WebSocket when there is one; a small one is not held up.
fn refused_by_http_then_by_websocket(adapter: Adapter, callbacks: &SocketAddr) {
    let node = sender(adapter, *callbacks, quick);
    let receipt = node.send(big_batch(1, 1_500_000));
    node.until_event("it is refused on the way", |event| {
        matches!(event, bowline::Event::RequestFailed { reason: Reason::Foreign(413), .. })
    });
    assert_eq!(receipt.try_settled(), None);
    let setup = Setup::api_node(&node.address().to_string()).unwrap();
    let receiver = Node::start(adapter, setup.configure(quick).drain(DRAIN));
    all_once(receiver, vec![receipt], Path::WebSocket);
    assert_eq!(node.stop().stats.rejected, 0);
}

/// The gateway's own words are marked; the page is not.
fn h8_a_page_in_place_of_a_wire_of_one_s_own(adapter: Adapter) {
    use device::Thermometer;
    let gateway = bowline_transport::Setup::acceptor("127.0.0.1:0", Config::DEFAULT, Thermometer).unwrap();
    let gateway = bowline_blocking::Node::start(gateway).unwrap();
    let way = GoBetween::start(gateway.address().unwrap(), Some(PORTAL));
    let mut config = Config::DEFAULT;
    config.route.grace = Duration::ZERO;
    config.route.backoff = bowline::BackoffConfig::range(millis(20), millis(60));
    let device = bowline_transport::Setup::dialer("ws://127.0.0.1:9/device", config, Thermometer).unwrap();
    let device = device.fallback(&format!("http://{}/device/readings", way.address)).unwrap();
    let reading = r#"{"sensor":4,"celsius":21.5}"#;
    let settle = |stats: &dyn Fn() -> u64, receipt: Receipt| {
        eventually("the page has come", || stats() >= 2);
        assert_eq!(receipt.try_settled(), None, "nobody has it");
        way.says(None);
        assert!(gateway.receive().unwrap().complete());
        assert_delivered(receipt, Path::Http);
        assert_eq!(gateway.status().stats.delivered, 1, "once");
    };
    match adapter {
        Adapter::Blocking => {
            let device = bowline_blocking::Node::start(device).unwrap();
            let receipt = device.try_send((), reading).unwrap();
            settle(&|| device.status().stats.requests_failed, receipt);
        }
        Adapter::Smol => {
            let device = bowline_smol::Node::start(device).unwrap();
            let receipt = device.try_send((), reading).unwrap();
            settle(&|| device.status().stats.requests_failed, receipt);
        }
    }
}

/// nginx, as Debian has it, on ports of its own: one for plain HTTP, one for TLS.
struct Nginx {
    child: Child,
    plain: SocketAddr,
    tls: SocketAddr,
    _folder: Folder,
}

/// A folder that goes with its test.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Nginx {
    /// In front of this address, with its defaults.
    fn start(upstream: SocketAddr) -> Option<Self> {
        let there = |path: &&&str| Command::new(path).arg("-v").stderr(Stdio::null()).status().is_ok();
        let Some(nginx) = ["nginx", "/usr/sbin/nginx"].iter().find(there) else { return peer::missing("nginx") };
        let (plain, tls) = (Port::reserve().address, Port::reserve().address);
        let name = format!("bowline-nginx-{}-{}", std::process::id(), plain.port());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).unwrap();
        let here = Authority::new().here();
        let (chain, key) = (File::new(&here.certificate), File::new(&here.key));
        let path = folder.0.display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {path}/pid; error_log {path}/error.log;\n\
             events {{ worker_connections 64; }}\n\
             http {{ access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             server {{ listen {plain}; location / {{ proxy_pass http://{upstream}; }} }}\n\
             server {{ listen {tls} ssl; ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ proxy_pass http://{upstream}; }} }} }}\n",
            chain.path(),
            key.path(),
        );
        std::fs::write(folder.0.join("nginx.conf"), config).unwrap();
        let child = Command::new(nginx)
            .args(["-p", &path.to_string(), "-c", &format!("{path}/nginx.conf"), "-e", &format!("{path}/error.log")])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("nginx listens", || TcpStream::connect(plain).is_ok() && TcpStream::connect(tls).is_ok());
        Some(Self { child, plain, tls, _folder: folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn h8_nginx_passes_on_what_the_peer_said(adapter: Adapter) {
    let port = Port::reserve();
    let Some(nginx) = Nginx::start(port.address) else { return };
    let receiver = receiver(adapter, &port);
    let node = sender(adapter, nginx.plain, quick);
    let receipts = (0..3).map(|n| node.send(batch(n))).collect();
    all_once(receiver, receipts, Path::Http);
    // An original's 400 is its own word, too.
    let refuses = GoBetween::start(
        port.address,
        Some(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=UTF-8\r\nConnection: close\r\n\r\n\
              {\"error\":\"code=400, message=Syntax error\"}\n",
        ),
    );
    let Some(nginx) = Nginx::start(refuses.address) else { return };
    let node = sender(adapter, nginx.plain, quick);
    let outcome = settled(node.send(batch(4))).outcome;
    assert_eq!(outcome, Outcome::Rejected(bowline::Rejection::Status(400)));
}

fn h8_nginx_without_its_peer_ends_nothing(adapter: Adapter) {
    let port = Port::reserve();
    let Some(nginx) = Nginx::start(port.address) else { return };
    let node = sender(adapter, nginx.plain, quick);
    let receipt = node.send(batch(1));
    node.until_event("nginx finds nobody", |event| {
        matches!(event, bowline::Event::RequestFailed { reason: Reason::Foreign(502), .. })
    });
    assert_eq!(receipt.try_settled(), None);
    all_once(receiver(adapter, &port), vec![receipt], Path::Http);
    node.stop();
}

fn h8_nginx_at_a_tls_port_ends_nothing(adapter: Adapter) {
    let port = Port::reserve();
    let Some(nginx) = Nginx::start(port.address) else { return };
    let node = sender(adapter, nginx.tls, quick);
    let receipt = node.send(batch(1));
    node.until_event("nginx wants TLS", |event| {
        matches!(event, bowline::Event::RequestFailed { reason: Reason::SpeaksTls, .. })
    });
    assert_eq!(receipt.try_settled(), None);
    node.stop();
}

fn f4_nginx_with_its_limit_of_a_megabyte(adapter: Adapter) {
    let port = Port::reserve();
    let Some(nginx) = Nginx::start(port.address) else { return };
    refused_by_http_then_by_websocket(adapter, &nginx.plain);
}
