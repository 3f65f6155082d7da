"""Plays Gonka's API node: dials the ML node, acknowledges its batches, takes its callbacks.

The first line of its input is the ML node's WebSocket URL."""

import asyncio
import http.server
import json
import threading
import uuid

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from common import run, tell, told


class Callback(http.server.BaseHTTPRequestHandler):
    status = 200
    posted = None  # called for every post, before its answer

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        said = {"body": body if len(body) < 10_000 else len(body)}
        for name in ("Content-Type", "Idempotency-Key", "Expect", "Transfer-Encoding"):
            said[name.lower()] = self.headers[name]
        tell("post", path=self.path, **said)
        if Callback.posted:
            Callback.posted()
        self.send_response(Callback.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def serve_callbacks():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Callback)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tell("callbacks", port=server.server_port)


async def dial(url, **options):
    """As the library does it by default: permessage-deflate is offered. And two subprotocols, to be ignored."""
    peer = await connect(url, subprotocols=["a", "b"], **options)
    tell("open", extensions=[str(e) for e in peer.protocol.extensions], subprotocol=peer.subprotocol)
    return peer


async def batch(peer):
    """The next batch."""
    while True:
        frame = await peer.recv()
        message = json.loads(frame)
        if message["type"] == "keepalive":
            tell("keepalive", text=isinstance(frame, str))
            continue
        if len(frame) > 10_000:
            message["batch"] = len(frame)
        tell("batch", text=isinstance(frame, str), raw=frame if len(frame) < 10_000 else None, **message)
        return message


def ack_of(message, **more):
    return json.dumps({"type": "ack", "id": message["id"], **more}, separators=(",", ":"))


async def until_closed(peer):
    try:
        while True:
            await batch(peer)
    except ConnectionClosed as closed:
        tell("closed", code=closed.rcvd.code if closed.rcvd else None, reason=closed.rcvd.reason if closed.rcvd else "")


async def acks(lines):
    """Every way to spell an acknowledgement, one a batch."""
    peer = await dial(await told(lines))

    async def plain():
        await peer.send(ack_of(await batch(peer)))

    await plain()
    await peer.send(ack_of(await batch(peer)) + "\n")
    await peer.send(" " + ack_of(await batch(peer), node="n1", nested={"type": ["batch"], "id": 7}) + " ")
    ack = ack_of(await batch(peer))
    await peer.send([ack[:9], ack[9:20], "", ack[20:]])
    message = await batch(peer)
    await peer.send(ack_of(message))
    await peer.send(ack_of(message))
    message = await batch(peer)
    await peer.send(ack_of({"id": str(uuid.uuid4())}))
    await peer.send(ack_of({"id": "no uuid at all"}))
    await peer.send(ack_of(message).replace('"ack"', '"\\u0061ck"'))
    await plain()
    await until_closed(peer)


async def silent(lines):
    """Acknowledges the first batch only after its callback was answered, the others at once."""
    peer = await dial(await told(lines))
    message = await batch(peer)
    await told(lines)
    await peer.send(ack_of(message))
    while True:
        await peer.send(ack_of(await batch(peer)))


async def late(lines):
    """Refuses callbacks, and acknowledges when the first one comes."""
    loop, posted = asyncio.get_running_loop(), asyncio.Event()
    Callback.status = 503
    Callback.posted = lambda: loop.call_soon_threadsafe(posted.set)
    peer = await dial(await told(lines))
    message = await batch(peer)
    await posted.wait()
    await peer.send(ack_of(message))
    await until_closed(peer)


async def noise(lines):
    """What means nothing, then the acknowledgement."""
    peer = await dial(await told(lines))
    message = await batch(peer)
    for frame in (
        ack_of(message).encode(),  # binary: the original would drop the connection
        b"\xff\x00",
        "",
        "hello",
        "[]",
        '{"type":"ack"}',
        '{"type":"ack","id":7}',
        '{"type":"ack","id":' + '"' + "x" * 65 + '"}',
        '{"type":"surprise","id":"' + message["id"] + '"}',
        "{}",
        '{"id":"' + message["id"] + '"}',
        '{"type":"generated","batch":{},"id":"1"}',
    ):
        await peer.send(frame)
    await (await peer.ping())
    tell("pong")
    await told(lines)
    await peer.send(ack_of(message))
    await until_closed(peer)


async def flaky(lines):
    """Leaves in several ways with a batch in flight, and acknowledges it in the end."""
    url = await told(lines)
    peer = await dial(url)
    await batch(peer)
    await peer.close(1008, "changed my mind")
    peer = await dial(url)
    await batch(peer)
    peer.transport.abort()
    peer = await dial(url)
    await batch(peer)
    await peer.close()
    peer = await dial(url)
    await peer.send(ack_of(await batch(peer)))
    await until_closed(peer)


async def huge(lines):
    """One byte more than an ML node reads."""
    peer = await dial(await told(lines))
    try:
        await peer.send("x" * ((16 << 20) + 1))
    except ConnectionClosed:
        pass
    await until_closed(peer)
    peer = await dial(await told(lines))
    await peer.send(ack_of(await batch(peer)))
    await until_closed(peer)


async def narrow(lines):
    """Reads no more than a megabyte, the library's default: what is larger is closed on with 1009."""
    url = await told(lines)
    while True:
        peer = await dial(url)
        try:
            while True:
                await peer.send(ack_of(await batch(peer)))
        except ConnectionClosed as closed:
            tell("closed", sent=closed.sent.code if closed.sent else None)


async def deadline(lines):
    """Drops a connection on which no data frame came in time, whatever the pings: the Go client's read deadline."""
    url, seconds = (await told(lines)).split()
    peer = await dial(url, ping_interval=None)
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while loop.time() - begin < 1.1 * float(seconds):
        frame = json.loads(await asyncio.wait_for(peer.recv(), float(seconds)))
        tell("frame", type=frame["type"], after=loop.time() - begin)
    tell("still open")
    await peer.send(ack_of(await batch(peer)))
    await until_closed(peer)


async def visitors(lines):
    """A second client, a wrong path, a request that is no upgrade."""
    url = await told(lines)
    peer = await dial(url)
    await peer.send(ack_of(await batch(peer)))
    answer = asyncio.create_task(until_closed(peer))
    second = await dial(url)
    await until_closed(second)
    for wrong in (url + "/", url.replace("/ws", "")):
        try:
            await connect(wrong)
            tell("open")
        except InvalidStatus as refused:
            tell("refused", status=refused.response.status_code)
    tell("served")
    await answer


run(
    {f.__name__: f for f in (acks, silent, late, noise, flaky, huge, narrow, deadline, visitors)},
    prepare=serve_callbacks,
)
