//! HTTP over blocking sockets: threads that wait in the system.

#[macro_use]
#[path = "../../transport/tests/suite/mod.rs"]
mod suite;

use bowline::RetryHint;
use bowline_blocking::io::{BlockingIo, block_on};
use bowline_transport::Explanation;
use bowline_transport::http::{
    Answer, Bytes, Callback, Deadline, Limits, Post, Posted, Routes, Served, Target, dial, post, refuse, serve,
};
use std::net::TcpStream;
use std::sync::Arc;
use suite::Driver;

struct Threads;

impl Driver for Threads {
    fn post(socket: TcpStream, request: Post<'_>) -> Posted {
        let deadline = Deadline::after(request.timeouts.progress);
        block_on(post(BlockingIo::new(socket, deadline.clone()).unwrap(), &deadline, request))
    }

    fn dial(
        socket: TcpStream,
        target: &Target,
        subprotocol: Option<&'static str>,
        deadline: Deadline,
    ) -> Result<(TcpStream, Bytes), (Explanation, RetryHint)> {
        let io = BlockingIo::new(socket, deadline.clone()).unwrap();
        let (io, read_buf) = block_on(dial(io, target, subprotocol, &deadline))?;
        Ok((io.into_inner().unwrap(), read_buf))
    }

    fn refuse(socket: TcpStream, limits: &Limits, answer: Answer) {
        let deadline = Deadline::after(limits.linger);
        block_on(refuse(BlockingIo::new(Arc::new(socket), deadline.clone()).unwrap(), &deadline, limits, answer));
    }

    fn serve<H, F>(socket: TcpStream, limits: &Limits, routes: &Routes<'_>, handler: H) -> Option<(TcpStream, Bytes)>
    where
        H: Fn(Callback) -> F + Send + Sync,
        F: Future<Output = Answer> + Send,
    {
        let deadline = Deadline::after(limits.head);
        let io = BlockingIo::new(Arc::new(socket), deadline.clone()).unwrap();
        match block_on(serve(io, &deadline, limits, routes, handler)) {
            Served::Done => None,
            Served::Upgraded { io, read_buf } => {
                let socket = io.into_inner().unwrap();
                assert_eq!((socket.read_timeout().unwrap(), socket.write_timeout().unwrap()), (None, None));
                Some((Arc::into_inner(socket).unwrap(), read_buf))
            }
        }
    }
}

run_with!(Threads);
