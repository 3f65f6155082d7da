//! HTTP over smol: sockets that wait in the reactor.

#[macro_use]
mod suite;

use bowline::{HttpTimeouts, RetryHint};
use bowline_transport::Explanation;
use bowline_transport::http::{
    Answer, Bytes, Callback, Deadline, GONKA_CALLBACKS, Limits, Post, Posted, Routes, Served, Target, Timed, dial,
    post, refuse, serve,
};
use core::time::Duration;
use smol::{Async, net};
use smol_hyper::rt::{FuturesIo, SmolTimer};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use suite::{Driver, PATIENCE};

type Io = Timed<FuturesIo<net::TcpStream>, SmolTimer>;

fn io(socket: TcpStream, deadline: Deadline) -> Io {
    // Not the `Async` itself: its shutdown does nothing.
    let socket = net::TcpStream::from(Async::new(socket).unwrap());
    Timed::new(FuturesIo::new(socket), SmolTimer::new(), deadline)
}

fn plain(io: Io) -> TcpStream {
    let shared: Arc<Async<TcpStream>> = io.into_inner().into_inner().into();
    let socket = shared.get_ref().try_clone().unwrap();
    socket.set_nonblocking(false).unwrap();
    socket
}

/// So that the futures can be spawned.
fn send<F: Future + Send>(future: F) -> F {
    future
}

struct Smol;

impl Driver for Smol {
    fn post(socket: TcpStream, request: Post<'_>) -> Posted {
        let deadline = Deadline::after(request.timeouts.progress);
        smol::block_on(send(async { post(io(socket, deadline.clone()), &deadline, request).await }))
    }

    fn dial(
        socket: TcpStream,
        target: &Target,
        subprotocol: Option<&'static str>,
        deadline: Deadline,
    ) -> Result<(TcpStream, Bytes), (Explanation, RetryHint)> {
        smol::block_on(send(async {
            let (io, read_buf) = dial(io(socket, deadline.clone()), target, subprotocol, &deadline).await?;
            Ok((plain(io), read_buf))
        }))
    }

    fn refuse(socket: TcpStream, limits: &Limits, answer: Answer) {
        let deadline = Deadline::after(limits.linger);
        smol::block_on(send(async { refuse(io(socket, deadline.clone()), &deadline, limits, answer).await }));
    }

    fn serve<H, F>(socket: TcpStream, limits: &Limits, routes: &Routes<'_>, handler: H) -> Option<(TcpStream, Bytes)>
    where
        H: Fn(Callback) -> F + Send + Sync,
        F: Future<Output = Answer> + Send,
    {
        let deadline = Deadline::after(limits.head);
        smol::block_on(send(async {
            match serve(io(socket, deadline.clone()), &deadline, limits, routes, handler).await {
                Served::Done => None,
                Served::Upgraded { io, read_buf } => Some((plain(io), read_buf)),
            }
        }))
    }
}

run_with!(Smol);

#[test]
fn a_dropped_request_closes_its_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.set_read_timeout(Some(PATIENCE)).unwrap();
    let target = Target::http("http://api/").unwrap();
    let timeouts = HttpTimeouts { progress: PATIENCE, thinking: PATIENCE };
    let request = Post { target: &target, headers: &[], body: "{}".into(), read: 0, timeouts };
    smol::block_on(async {
        let asked = async {
            let deadline = Deadline::after(PATIENCE);
            post(io(socket, deadline.clone()), &deadline, request).await;
            unreachable!("nobody answers");
        };
        // The race of an adapter that wants to stop: it is lost as soon as the request has arrived.
        let arrived = smol::unblock({
            let mut far = far.try_clone().unwrap();
            move || {
                let mut head = Vec::new();
                while !head.ends_with(b"{}") {
                    let mut byte = [0];
                    far.read_exact(&mut byte).unwrap();
                    head.push(byte[0]);
                }
            }
        });
        smol::future::or(asked, arrived).await;
    });
    assert_eq!(far.read(&mut [0; 16]).unwrap(), 0);
}

#[test]
fn a_dropped_connection_stops_its_handler() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let (socket, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut peer, b"POST /v1/poc-batches/generated HTTP/1.1\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let (called, wait) = smol::channel::bounded(1);
    let limits = Limits { head: Duration::from_secs(20), ..Limits::DEFAULT };
    let routes = Routes { callbacks: GONKA_CALLBACKS, ..Routes::default() };
    let deadline = Deadline::after(limits.head);
    smol::block_on(async {
        let served = async {
            let handler = |_| async {
                called.send(()).await.unwrap();
                core::future::pending().await
            };
            serve(io(socket, deadline.clone()), &deadline, &limits, &routes, handler).await;
        };
        smol::future::or(served, async { wait.recv().await.unwrap() }).await;
    });
    assert_eq!(peer.read(&mut [0; 16]).unwrap(), 0);
}
