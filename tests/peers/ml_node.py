"""Plays Gonka's ML node: accepts an API node, sends it batches, posts what is not acknowledged.

It first tells the port it serves WebSockets on; posts go to the URL of its input's first line."""

import asyncio
import json
import urllib.error
import urllib.request
import uuid

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import run, tell, told


UUIDS = ("00000000-0007-4000-8001-00000000000A", "00000000-0007-4000-8001-00000000000b")


def numbered(n):
    batch = {"public_key": "02a1", "block_hash": "77", "block_height": n}
    return {**batch, "nonces": [3, 13], "dist": [0.5, 0.25], "node_id": 3}


def frame(n, id=None, type="generated", **more):
    id = id or str(uuid.uuid4())
    return json.dumps({"type": type, "batch": numbered(n), "id": id, **more}, separators=(",", ":"))


async def post(url, body):
    """As the original: the bare batch, no id. The answer's status."""

    def request():
        request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    status = await asyncio.to_thread(request)
    tell("answer", status=status)


async def listen(visit, **options):
    """Serves one visitor after the other."""

    async def handler(peer):
        request = peer.request
        extensions = [str(e) for e in peer.protocol.extensions]
        headers = [name.lower() for name, _ in request.headers.raw_items()]
        tell("open", path=request.path, extensions=extensions, headers=headers)
        try:
            await visit(peer)
        except ConnectionClosed:
            pass
        except Exception as error:  # noqa: BLE001
            tell("error", what=repr(error))
        closed = peer.protocol.close_rcvd
        tell("closed", code=closed.code if closed else None)

    server = await serve(handler, "127.0.0.1", 0, max_size=None, **options)
    tell("listening", port=server.sockets[0].getsockname()[1])
    return server


async def ack(peer):
    said = await peer.recv()
    tell("ack", raw=said if isinstance(said, str) else None)
    return said


async def hears(peer):
    """Whatever comes, until the end."""
    while True:
        await ack(peer)


async def acks(lines):
    """Every way to spell a batch, each acknowledged under its id, as it was spelt."""

    async def visit(peer):
        n = 0
        for id in (*UUIDS, "a-1", "\u00e4 \"q\"", "7"):
            n += 1
            await peer.send(frame(n, id))
            await ack(peer)
        await peer.send(frame(n + 1, "v", type="validated"))
        await ack(peer)
        await peer.send(frame(n + 2, "more", version=2, nested={"id": "x", "type": "ack"}))
        await ack(peer)
        await peer.send(json.dumps({"id": "spaced", "batch": numbered(n + 3), "type": "generated"}, indent=2))
        await ack(peer)
        text = frame(n + 4, "fragments")
        await peer.send([text[:10], text[10:11], "", text[11:]])
        await ack(peer)
        # Without an id it is processed and not acknowledged.
        await peer.send(json.dumps({"type": "generated", "batch": numbered(n + 5)}))
        await peer.send(frame(n + 6, "last"))
        await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def duplicates(lines):
    """The same id twice while it is processed, again afterwards, and the same batch under new ids, as the original."""

    async def visit(peer):
        await peer.send(frame(1, "first"))
        await peer.send(frame(1, "first"))
        await peer.send(frame(1, "second"))
        await told(lines)
        for _ in range(2):
            await ack(peer)
        await peer.send(frame(1, "first"))
        await ack(peer)
        await peer.send(frame(1, "third"))
        await ack(peer)
        # An id that was used for another batch is not acknowledged, and the batch is not delivered.
        await peer.send(frame(2, "first"))
        await peer.send(frame(3, "end"))
        await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def noise(lines):
    async def visit(peer):
        for sent in (
            frame(1, "binary").encode(),
            "",
            "hello",
            "[]",
            "{}",
            '{"type":"surprise"}',
            '{"type":"ack","id":"1"}',
            '{"type":"generated","id":"1"}',
            '{"type":"generated","batch":null,"id":"1"}',
            '{"type":"generated","batch":[],"id":"1"}',
            frame(1, "1").replace('"node_id":3', '"node_id":-1'),
            frame(1, "1").replace("[3,13]", '"3"'),
        ):
            await peer.send(sent)
        await (await peer.ping())
        tell("pong")
        await peer.send(frame(2, "good"))
        await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def unanswered(lines):
    """As the original: a frame, no acknowledgement in time, the same batch by HTTP."""

    async def visit(peer):
        url = await told(lines)
        await peer.send(frame(1, "one"))
        await told(lines)
        await post(url + "/generated", json.dumps(numbered(1)))
        await ack(peer)
        await post(url + "/generated", json.dumps(numbered(2), separators=(",", ":")))
        await peer.send(frame(2, "two"))
        await ack(peer)
        await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def flaky(lines):
    """Accepts and closes, in several ways, then serves."""
    visits = 0

    async def visit(peer):
        nonlocal visits
        visits += 1
        if visits <= 3:
            await peer.close(1008, "PoW is not running")
        elif visits == 4:
            peer.transport.abort()
        elif visits == 5:
            await peer.close()
        elif visits == 6:
            await peer.send(frame(1, "one"))
            await told(lines)
            peer.transport.abort()
        else:
            await peer.send(frame(1, "another"))
            await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def refusing(lines):
    """Answers the upgrade with a status first."""
    statuses = [503, 404, 500, 200]

    def refuse(peer, request):
        if statuses:
            status = statuses.pop(0)
            tell("refuses", status=status)
            response = peer.respond(status, "not now\n")
            if status == 503:
                response.headers["Retry-After"] = "1"
            return response

    async def visit(peer):
        await peer.send(frame(1, "one"))
        await hears(peer)

    await listen(visit, process_request=refuse)
    await asyncio.Event().wait()


async def large(lines):
    """A frame larger than an ML node itself would read, and one larger than an API node reads."""

    async def visit(peer):
        text = frame(1, "large").replace("02a1", "a" * (17 << 20))
        await peer.send([text[: 1 << 20], text[1 << 20 :]])
        await ack(peer)
        await peer.send("x" * ((64 << 20) + 1))
        await hears(peer)

    await listen(visit)
    await asyncio.Event().wait()


async def pings(lines):
    """The server's own heartbeat: whoever does not answer is dropped."""

    async def visit(peer):
        for _ in range(10):
            await (await peer.ping())
        tell("pongs")
        await asyncio.sleep(1.5)
        await peer.send(frame(1, "one"))
        await hears(peer)

    await listen(visit, ping_interval=0.2, ping_timeout=10)
    await asyncio.Event().wait()


async def stopped(lines):
    """As the original after stop and init (wire facts 1.8.3, 1.8.4): the old connection stays open and mute, though its
    library answers pings; one flag says that somebody is connected, and whichever connection ends clears it; batches leave
    only while it is set."""
    flag, run, sent = False, 0, 0

    async def sender(peer, mine):
        nonlocal sent
        while run == mine:
            if flag and sent < 2 + run:
                sent += 1
                await peer.send(frame(sent, f"batch {sent}"))
            await asyncio.sleep(0.1)

    async def visit(peer):
        nonlocal flag
        if flag:
            return await peer.close(1008, "Another client is already connected")
        flag = True
        sending = asyncio.create_task(sender(peer, run))
        try:
            await hears(peer)
        finally:
            sending.cancel()
            flag = False

    await listen(visit, ping_interval=0.2, ping_timeout=10)
    while True:
        await told(lines)
        run, flag = run + 1, False
        if run == 2:
            await asyncio.sleep(2)
            tell("still here")


run({f.__name__: f for f in (acks, duplicates, noise, unanswered, flaky, refusing, large, pings, stopped)})
