"""Plays whoever wants a hub to fall over: each scenario is one attack, on bare sockets, since no library would do this.

The first line of its input is a JSON object: the hub's `port`, the `source` address to come from, `seed`s of hotkeys it may
use and the `victim`'s address. When the hub has ended everything, or after `seconds`, it tells what happened to it."""

import asyncio
import collections
import json
import random
import socket
import sys
import time

from common import run, tell, told
from signed import Keys, auth, canonical, envelope, moment, nonce, prediction

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CHUNK = 64 << 10

# The first flight of a TLS client.
HELLO = bytes.fromhex("16030100c6010000c20303") + bytes(range(32)) + bytes.fromhex("00000213010100")


def frame(opcode, payload=b"", fin=True, declared=None, masked=True, reserved=0):
    """As a client sends it; `declared`: another length than its own."""
    length = len(payload) if declared is None else declared
    flag = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | reserved | opcode])
    if length < 126:
        head += bytes([flag | length])
    elif length < 1 << 16:
        head += bytes([flag | 126]) + length.to_bytes(2, "big")
    else:
        head += bytes([flag | 127]) + length.to_bytes(8, "big")
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Assault:
    """What is known of all connections together."""

    def __init__(self, port, source="127.0.0.1", seeds=(), victim=None, n=50, seconds=3, narrow=False):
        self.port, self.source, self.victim, self.n, self.seconds = port, source, victim, n, seconds
        self.narrow = narrow
        self.keys = [Keys(seed) for seed in seeds]
        self.began = time.monotonic()
        self.connections = self.open = self.sent = self.received = self.frames = 0
        self.ends, self.heard = collections.Counter(), collections.Counter()
        self.last = 0

    def left(self):
        return self.began + self.seconds - time.monotonic()

    async def all(self, one, n=None, at_once=1000):
        """So many of them, each until its end or the end of the time."""
        gate = asyncio.Semaphore(at_once)

        async def limited(i):
            async with gate:
                if self.left() > 0:
                    try:
                        await asyncio.wait_for(one(i), self.left())
                    except TimeoutError:
                        pass

        await asyncio.gather(*(limited(i) for i in range(n or self.n)))


class Conn:
    def __init__(self, assault):
        self.of = assault
        self.over = asyncio.Event()
        self.answered = asyncio.Event()

    async def __aenter__(self):
        self.of.connections += 1
        self.of.open += 1
        try:
            self.reader, self.writer = await asyncio.open_connection(sock=await self.connect(), limit=CHUNK)
        except OSError:
            self.end("not accepted")
            self.reading = None
        else:
            self.reading = asyncio.create_task(self.read())
        return self

    async def connect(self):
        sock = socket.socket()
        sock.setblocking(False)
        if self.of.narrow:
            # Else what is not read fits into the system's buffers: by the size of a segment they are megabytes on loopback.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((self.of.source, 0))
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.of.port))
        except OSError:
            sock.close()
            raise
        return sock

    async def __aexit__(self, *_):
        if self.reading:
            self.reading.cancel()
            self.writer.transport.abort()
        if not self.over.is_set():
            self.end("left open")

    def end(self, how):
        if not self.over.is_set():
            self.over.set()
            self.answered.set()
            self.of.open -= 1
            self.of.ends[how] += 1
            if how != "left open":
                self.of.last = time.monotonic() - self.of.began

    async def some(self, n):
        data = await self.reader.readexactly(n)
        self.of.received += n
        return data

    async def read(self):
        try:
            line = await self.reader.readline()
            self.of.received += len(line)
            if not line:
                return self.end("dropped")
            status = int(line.split(b" ")[1])
            while line not in (b"\r\n", b""):
                line = await self.reader.readline()
                self.of.received += len(line)
            if status != 101:
                if status == 401:
                    self.heard["HTTP 401"] += 1
                    return await self.read_answers()
                return self.end(f"HTTP {status}")
            self.answered.set()
            while True:
                first, length = await self.some(2)
                if length > 125:
                    length = int.from_bytes(await self.some(2 if length == 126 else 8), "big")
                payload = await self.some(length)
                if first & 15 == CLOSE:
                    self.heard[f"close {int.from_bytes(payload[:2], 'big')}"] += 1
                    code = int.from_bytes(payload[:2], "big")
                    return self.end(f"closed with {code}")
                self.note(first & 15, payload)
        except (OSError, asyncio.IncompleteReadError):
            self.end("dropped")
        except (ValueError, IndexError):
            self.end("no HTTP")

    async def read_answers(self):
        """The rest of a series, by their status lines."""
        while line := await self.reader.readline():
            self.of.received += len(line)
            if b"HTTP/1.1 " in line:
                self.heard["HTTP " + line.split(b"HTTP/1.1 ")[1][:3].decode()] += 1
        self.end("dropped")

    @property
    def heard(self):
        return self.of.heard

    def note(self, opcode, payload):
        if opcode == TEXT:
            message = json.loads(payload)
            word = message.get("type") or message.get("status")
            self.heard[word] += 1
            if word == "welcome":
                self.answered.set()
        else:
            self.heard[{PING: "ping", PONG: "pong"}.get(opcode, "other")] += 1

    async def send(self, data, frames=0):
        """False: it is over."""
        if self.over.is_set():
            return False
        self.writer.write(data)
        try:
            await self.writer.drain()
        except OSError:
            self.end("dropped")
            return False
        # A flood lets the answers in.
        await asyncio.sleep(0)
        self.of.sent += len(data)
        self.of.frames += frames
        return True

    async def upgrade(self):
        head = b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        await self.send(head + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
        await self.answered.wait()
        return not self.over.is_set()

    async def text(self, text):
        return await self.send(frame(TEXT, text.encode()), 1)

    async def enter(self, keys):
        """Authenticated."""
        if not await self.upgrade():
            return False
        self.answered.clear()
        await self.text(auth(keys))
        await self.answered.wait()
        return not self.over.is_set()

    async def drip(self, data, pause=0.05):
        for byte in data:
            if not await self.send(bytes([byte])):
                return
            await asyncio.sleep(pause)
        await self.over.wait()

    async def flood(self, data, frames):
        while await self.send(data, frames):
            pass

    def deaf(self):
        """Reads no more."""
        self.reading.cancel()
        self.writer.transport.pause_reading()


def on_connection(attack):
    """The same on `n` connections at once."""

    async def assault(of):
        async def one(i):
            async with Conn(of) as conn:
                await attack(of, conn, i)

        await of.all(one)

    return assault


def inside(attack):
    """The same by every hotkey it may use."""

    async def assault(of):
        async def one(i):
            async with Conn(of) as conn:
                if await conn.enter(of.keys[i]):
                    await attack(of, conn, of.keys[i])

        await of.all(one, len(of.keys))

    return assault


def outside(attack):
    """The same after the upgrade, without a word about who it is."""

    async def one(of, conn, i):
        if await conn.upgrade():
            await attack(of, conn, i)

    return on_connection(one)


async def never_speaks(of, conn, _):
    await conn.over.wait()


async def drips_a_head(of, conn, _):
    await conn.drip(b"GET /ws HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 10_000)


async def drips_a_frame(of, conn, _):
    await conn.drip(frame(TEXT, b'{"hotkey": "' + b"a" * 400))


async def drips_a_body(of, conn, _):
    await conn.send(b"POST /ws/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n")
    await conn.drip(b"a" * 10_000)


async def endless_head(of, conn, _):
    await conn.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    await conn.flood(b"X-Y: " + b"a" * 1000 + b"\r\n", 0)


async def fragments(of, conn, _):
    """Of one byte each, of a message that never ends."""
    await conn.send(frame(TEXT, b"{", fin=False), 1)
    await conn.flood(frame(0, b" ", fin=False) * 1000, 1000)


async def empty_fragments(of, conn, _):
    await conn.send(frame(TEXT, b"", fin=False), 1)
    await conn.flood(frame(0, b"", fin=False) * 1000, 1000)


async def pings(of, conn, _):
    await conn.flood(frame(PING, b"x" * 125) * 100, 100)


async def pings_unread(of, conn, _):
    conn.deaf()
    await conn.flood(frame(PING, b"x" * 125) * 100, 100)


async def speaks_and_never_reads(of, conn, keys):
    conn.deaf()
    for _ in range(2000):
        if not await conn.text(envelope(keys, "heartbeat", {})):
            return
    while await conn.send(frame(PING), 1):
        await asyncio.sleep(0.1)


async def is_silent(of, conn, _):
    """It answers no ping."""
    await conn.over.wait()


async def junk(of, conn, i):
    await conn.send(random.Random(i).randbytes(4096))
    await conn.over.wait()


async def tls(of, conn, _):
    await conn.send(HELLO.ljust(203, b"\0"))
    await conn.over.wait()


async def declares_too_much(of, conn, _):
    await conn.send(frame(TEXT, b"{", declared=1 << 62), 1)
    await conn.over.wait()


async def sends_too_much(of, conn, _):
    await conn.send(frame(TEXT, b"", declared=200 << 20), 1)
    await conn.flood(b"a" * CHUNK, 0)


async def posts_too_much(of, conn, _):
    await conn.send(b"POST /ws/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 209715200\r\n\r\n")
    await conn.flood(b"a" * CHUNK, 0)


async def malformed(of, conn, i):
    """Everything RFC 6455 forbids a client."""
    bad = [
        frame(TEXT, b"{}", masked=False),
        frame(TEXT, b"{}", reserved=0x40),
        frame(3, b"{}"),
        frame(PING, b"x" * 126),
        frame(PING, b"x", fin=False),
        frame(0, b"{}"),
        frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"),
        frame(TEXT, b"\xff\xfe"),
        frame(CLOSE, b"\x03"),
        frame(CLOSE, (1005).to_bytes(2, "big")),
    ]
    await conn.send(bad[i % len(bad)], 1)
    await conn.over.wait()


def nested(text):
    deep = (1 << 20) - len(text) - 10
    return text.replace("HERE", "[" * (deep // 2) + "]" * (deep // 2))


async def nests_first(of, conn, _):
    await conn.text(nested('{"hotkey": HERE}'))
    await conn.over.wait()


async def nests(of, conn, keys):
    """Deep, and correct in everything that a signature does not need to look at."""
    message = {"type": "prediction", "sender": keys.address, "data": {"prediction_id": "d", "deep": 0}}
    text = json.dumps({**message, "timestamp": moment(), "nonce": nonce(), "signature": "00" * 64})
    while await conn.text(nested(text.replace('"deep": 0', '"deep": HERE'))):
        pass


async def nests_by_post(of, conn, _):
    body = nested('{"type": "prediction", "data": HERE}').encode()
    await conn.send(b"POST /ws/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await conn.over.wait()


async def floods_with_bad_signatures(of, conn, i):
    if not await conn.upgrade():
        return
    keys = of.keys[i % len(of.keys)]
    first = json.loads(auth(keys))
    await conn.text(json.dumps({**first, "signature": random.Random(i).randbytes(64).hex()}))
    await conn.over.wait()


async def is_a_stranger(of, conn, i):
    """A good signature by a key that nobody has registered."""
    if await conn.upgrade():
        await conn.text(auth(Keys(f"{i + 1:064x}")))
        await conn.over.wait()


async def steals_an_identity(of, conn, i):
    """The victim's hotkey under a signature of one's own, under none, and under another's sender."""
    if not await conn.upgrade():
        return
    first = auth(of.keys[0], claims=of.victim)
    if i % 2:
        first = json.dumps({**json.loads(first), "signature": ""})
    await conn.text(first)
    await conn.over.wait()


async def speaks_for_another(of, conn, keys):
    for n in range(1000):
        if not await conn.text(envelope(keys, "prediction", prediction(f"stolen{n}_1"), claims=of.victim)):
            return
    await conn.over.wait()


async def repeats_an_envelope(of, conn, keys):
    once = envelope(keys, "prediction", prediction("again_1"))
    while await conn.text(once):
        pass


async def speaks_of_the_past(of, conn, keys):
    for n in range(1000):
        if not await conn.text(envelope(keys, "prediction", prediction(f"old{n}_1"), age=301)):
            return
    await conn.over.wait()


async def floods_with_bad_posts(of, conn, i):
    """Whole requests, one behind the other on one connection, whose signature costs a verification."""
    keys = of.keys[i % len(of.keys)]
    message = json.loads(envelope(keys, "prediction", prediction("forged_1")))
    body = json.dumps({**message, "nonce": "0"}).encode()
    await conn.flood(b"POST /ws/messages HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body, 1)


async def repeats_an_auth(of):
    """One frame, taken from the wire, for every connection."""
    once = auth(of.keys[0])

    async def one(_):
        async with Conn(of) as conn:
            if await conn.upgrade():
                await conn.text(once)
                await conn.over.wait()

    async with Conn(of) as owner:
        if await owner.upgrade():
            owner.answered.clear()
            await owner.text(once)
            await owner.answered.wait()
            await of.all(one)


async def floods_with_predictions(of, conn, keys):
    for n in range(100_000):
        if not await conn.text(envelope(keys, "prediction", prediction(f"flood{n}_1"))):
            return


async def forges(of, conn, keys):
    """Frames that cost a verification each, as many as go through."""
    message = json.loads(envelope(keys, "prediction", prediction("forged_1")))
    message["nonce"] += "0"
    assert canonical(message)
    while await conn.send(frame(TEXT, json.dumps(message).encode()) * 50, 50):
        pass


async def nothing(of):
    await asyncio.sleep(of.seconds)


ATTACKS = {
    "nothing": nothing,
    "silent connections": on_connection(never_speaks),
    "slow head": on_connection(drips_a_head),
    "slow first frame": outside(drips_a_frame),
    "slow body": on_connection(drips_a_body),
    "endless head": on_connection(endless_head),
    "silent after the upgrade": outside(is_silent),
    "silent after authentication": inside(is_silent),
    "never reads": inside(speaks_and_never_reads),
    "fragments, unauthenticated": outside(fragments),
    "fragments": inside(fragments),
    "empty fragments": inside(empty_fragments),
    "pings, unauthenticated": outside(pings),
    "pings": inside(pings),
    "pings, pongs unread": inside(pings_unread),
    "junk": on_connection(junk),
    "TLS on a plain port": on_connection(tls),
    "declared length 2^62, unauthenticated": outside(declares_too_much),
    "declared length 2^62": inside(declares_too_much),
    "200 MiB frame, unauthenticated": outside(sends_too_much),
    "200 MiB frame": inside(sends_too_much),
    "200 MiB body": on_connection(posts_too_much),
    "malformed frames": outside(malformed),
    "deep JSON, unauthenticated": outside(nests_first),
    "deep JSON": inside(nests),
    "deep JSON by POST": on_connection(nests_by_post),
    "bad signatures": on_connection(floods_with_bad_signatures),
    "bad signatures by POST": on_connection(floods_with_bad_posts),
    "strangers": on_connection(is_a_stranger),
    "stolen identity": on_connection(steals_an_identity),
    "somebody else's sender": inside(speaks_for_another),
    "replayed auth": repeats_an_auth,
    "replayed envelope": inside(repeats_an_envelope),
    "old timestamps": inside(speaks_of_the_past),
    "prediction flood": inside(floods_with_predictions),
    "forged envelopes": inside(forges),
}


async def scenario(lines):
    of = Assault(**json.loads(await told(lines)))
    await ATTACKS[sys.argv[1]](of)
    counts = {"connections": of.connections, "ends": of.ends, "heard": of.heard}
    sums = {"frames": of.frames, "sent": of.sent, "received": of.received}
    tell("result", **counts, **sums, seconds=round(of.last, 3))


run({name: scenario for name in ATTACKS})
