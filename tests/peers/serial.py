"""Plays Gonka's original API node at work, which is written in Go: one batch is read, submitted and acknowledged, and only
then the next is read, so that a ping, too, is answered when the batches before it are done. It remembers nothing of what it
has had. Callbacks are submitted side by side.

The first line of its input says how: {"work": seconds a batch takes, "silent": [batches that it never acknowledges on the
WebSocket], "answers": {batch: [statuses of its callbacks, the last one for good]}}; other batches are answered with 200.
Then one of these a line: "dial URL", which it does again whenever a connection has ended; "leave"; "work SECONDS"; "books",
which it answers with how every batch came."""

import collections
import http.server
import json
import socket
import sys
import threading
import time
import traceback

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from common import tell

REDIAL = 0.3  # seconds; the original 3 to 5

how = {}
arrivals = collections.defaultdict(list)
lock = threading.Lock()


def submit(batch, path):
    n = batch["block_height"]
    with lock:
        arrivals[n].append(path)
    tell(path, batch=n)
    time.sleep(how["work"])
    return n


class Callback(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        n = submit(batch, "http")
        with lock:
            answers = how["answers"].get(str(n), [200])
            status = answers.pop(0) if len(answers) > 1 else answers[0]
        body = b"" if status == 200 else b'{"error":"failed to submit the batch"}'
        self.send_response(status)
        if body:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Callbacks(http.server.ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_):
        pass  # who asked is gone


def one_frame(stream):
    """No byte more: what follows stays where it is until this one is done."""
    head = stream.read(2)
    if len(head) < 2:
        return b""
    length = head[1] & 127
    more = stream.read({126: 2, 127: 8}.get(length, 0))
    return head + more + stream.read(int.from_bytes(more, "big") if more else length)


class Visit:
    def __init__(self, url):
        self.url, self.left, self.socket = url, threading.Event(), None
        threading.Thread(target=self.again_and_again, daemon=True).start()

    def leave(self):
        self.left.set()
        if self.socket:
            try:
                self.socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def again_and_again(self):
        while not self.left.is_set():
            try:
                self.once()
            except OSError as error:
                tell("failed", what=repr(error))
            except Exception:  # noqa: BLE001
                tell("error", what=traceback.format_exc())
            self.left.wait(REDIAL)

    def once(self):
        uri = parse_uri(self.url)
        self.socket = socket.create_connection((uri.host, uri.port), 10)
        with self.socket, self.socket.makefile("rb") as stream:
            self.socket.settimeout(None)
            self.visit(ClientProtocol(uri, max_size=None), stream)

    def visit(self, protocol, stream):
        def flush():
            for data in protocol.data_to_send():
                if data:
                    self.socket.sendall(data)

        protocol.send_request(protocol.connect())
        flush()
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            line = stream.readline()
            if line:
                protocol.receive_data(line)
            else:
                protocol.receive_eof()
        if protocol.handshake_exc:
            return tell("refused", what=repr(protocol.handshake_exc))
        tell("open")
        while data := one_frame(stream):
            protocol.receive_data(data)
            flush()
            for event in protocol.events_received():
                if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                    self.frame(protocol, json.loads(event.data))
                    flush()
        protocol.receive_eof()
        tell("closed", code=protocol.close_code)

    def frame(self, protocol, frame):
        if frame["type"] == "keepalive":
            return
        n = submit(frame["batch"], "websocket")
        if n not in how["silent"]:
            protocol.send_text(json.dumps({"type": "ack", "id": frame["id"]}).encode())


def main():
    how.update({"work": 0, "silent": [], "answers": {}, **json.loads(sys.stdin.readline())})
    server = Callbacks(("127.0.0.1", 0), Callback)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell("callbacks", port=server.server_port)
    visit = None
    for line in sys.stdin:
        deed, _, more = line.strip().partition(" ")
        if deed == "dial":
            visit = Visit(more)
        elif deed == "leave":
            visit.leave()
        elif deed == "work":
            how["work"] = float(more)
        elif deed == "books":
            with lock:
                tell("books", arrivals=arrivals)


main()
