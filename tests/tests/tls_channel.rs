//! TLS over a pipe that never blocks, takes a few bytes at a time and is cut where a test wants it.

mod real;

use bowline_smol::{Setup, Tls};
use bowline_transport::Channel;
use bowline_transport::http::Target;
use real::ca::{Authority, serve, trust, waits};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::sync::{Arc, Mutex};
use std::{io, slice};

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
