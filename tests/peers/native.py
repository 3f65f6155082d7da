"""A peer of `bowline.1`, written from PROTOCOL.md (sections 1, 3 and 8) alone; needs `websockets`, and nothing of Bowline's.

    native.py PORT SCENARIO [ARGUMENT…]        what it sees is one JSON object a line; it exits 0, or 1 with the reason

What it asks of the hub's application, by the `kind` of a message: `up` {"i"} is completed; `reject` is rejected; `retry` is
given back once, then completed; `slow` {"ms"} is completed after that time; `ask` {"n"} has it send `down` {"i": 1…n};
`publish` {"topic", "n"} has it publish `tick` {"i": 1…n}; `stat` has it send `stat` {"got", "doubled", "disordered", "gaps"}
about the `up` it saw. The `auth` "no" is to be refused, any other accepted."""

import asyncio
import http.client
import json
import math
import random
import sys
import time
import traceback

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from common import LIMIT, tell

FRAME, SPAN, MOST = 1 << 20, 64, (1 << 48) - 1


class Malformed(Exception):
    pass


class Breach(Exception):
    pass


def text(frame):
    return json.dumps(frame, separators=(",", ":"), ensure_ascii=False)


def number(frame, name, least=0, most=MOST):
    value = frame.get(name)
    if type(value) is not int or not least <= value <= most:
        raise Malformed(f"{name} is no number from {least} to {most}")
    return value


def bits(frame, name):
    value = frame.get(name, "0")
    if type(value) is not str or not 1 <= len(value) <= 16 or value.strip("0123456789abcdefABCDEF"):
        raise Malformed(f"{name} is no map")
    return int(value, 16)


def message_id(origin, epoch, seq):
    """I2: 48 bits of identity, 26 of epoch, 48 of number, around the version and the variant of a UUID."""
    a, b, c = origin, f"8{epoch >> 14:03x}", f"{0x8000 | epoch & 0x3FFF:04x}"
    return f"{a[:8]}-{a[8:]}-{b}-{c}-{seq:012x}"


class Out:
    """One direction at its sender. A number is kept until it has ended; `here` are those sent on this connection."""

    def __init__(self, origin, epoch):
        self.origin, self.epoch, self.next, self.una, self.top = origin, epoch, 1, 1, 0
        self.kept, self.ended, self.arrived, self.here = {}, {}, set(), set()
        self.rcv, self.limit, self.budget, self.sent = 0, 0, 0, 0

    def add(self, kind, data):
        self.kept[self.next] = (kind, data)
        self.next += 1
        return self.next - 1

    def end(self, seq, how):
        if self.kept.pop(seq, None):
            self.ended[seq] = how
        while self.una < self.next and self.una not in self.kept:
            self.una += 1

    def begin(self, rx, win):
        """A connection begins: what was sent on the last one and has not arrived goes again, sixteen at first (R6)."""
        self.here = set()
        if rx and (rx.get("origin"), rx.get("epoch")) == (self.origin, self.epoch):
            self.settle({**rx, "win": win})
        else:
            self.arrived, self.rcv = set(), self.una - 1
        self.limit, self.budget = max(self.rcv, self.una - 1) + win, 16

    def settle(self, marks):
        """True if a message ended by them."""
        cum, sack, rcv, rsack = number(marks, "cum"), bits(marks, "sack"), number(marks, "rcv"), bits(marks, "rsack")
        win, rej = number(marks, "win", most=(1 << 32) - 1), marks.get("rej", [])
        if type(rej) is not list or len(rej) > SPAN or any(type(n) is not int for n in rej):
            raise Malformed("rej")
        if max(cum + sack.bit_length(), rcv + rsack.bit_length()) > max(self.top, self.una - 1):
            raise Breach("marks for what was never sent")
        before, told = len(self.ended), range(self.una, min(self.una + SPAN, self.next))
        for seq in told:
            if seq <= cum or sack >> (seq - cum - 1) & 1:
                self.end(seq, "rejected" if seq in rej else "done")
        # The newest marks count: what they no longer name was given back, though the nack may have been lost.
        self.arrived = {seq for seq in told if seq in self.kept and (seq <= rcv or rsack >> (seq - rcv - 1) & 1)}
        self.rcv, self.limit, self.budget = rcv, rcv + win, math.inf
        return len(self.ended) > before

    def again(self, seq):
        self.here.discard(seq)
        self.arrived.discard(seq)

    def frame(self, seq):
        self.top, self.sent = max(self.top, seq), self.sent + 1
        return {"type": "data", "seq": seq, "una": self.una, "kind": self.kept[seq][0], "data": self.kept[seq][1]}

    def ready(self):
        """The next frame that may go on this connection, or none."""
        for seq in range(self.una, min(self.una + SPAN, self.next, self.limit + 1)):
            if seq in self.kept and seq not in self.here and seq not in self.arrived and self.budget > 0:
                self.here.add(seq)
                self.budget -= 1
                return self.frame(seq)
        return None


class In:
    """One direction at its receiver: what arrived and is completed, from the sender's `una` up."""

    def __init__(self, win, order):
        self.win, self.order, self.name, self.gaps, self.copies = win, order, None, [], 0
        self.anew(None, 1, 1)

    def anew(self, name, una, maybe):
        self.name, self.una, self.turn, self.maybe = name, una, una, maybe
        self.arrived, self.done, self.rej, self.held = set(), set(), set(), {}

    def meet(self, name, tx, forgotten=False):
        """What the other side says of its numbers when a connection begins."""
        una, after = number(tx, "una", 1), number(tx, "next", 1)
        if self.name != name or forgotten or max(self.arrived, default=self.una - 1) >= after:
            self.anew(name, una, after)
        else:
            self.forget(una)

    def forget(self, una):
        if una <= self.una:
            return
        if self.upto(self.arrived) + 1 < una:
            self.gaps.append([self.upto(self.arrived) + 1, una - 1])
        self.una, self.turn = una, max(una, self.turn)
        self.arrived, self.done, self.rej = ({n for n in of if n >= una} for of in (self.arrived, self.done, self.rej))
        self.held = {n: frame for n, frame in self.held.items() if n >= una}

    def upto(self, of):
        n = self.una - 1
        while n + 1 in of:
            n += 1
        return n

    def take(self, frame):
        """new, copy, or busy"""
        seq, una, kind = number(frame, "seq", 1), number(frame, "una", 1), frame.get("kind")
        if type(kind) is not str or not 1 <= len(kind.encode()) <= 64 or "data" not in frame:
            raise Malformed("kind or data")
        if seq >= una + SPAN:
            raise Breach("a number above una + 63")
        self.forget(una)
        if seq < self.una or seq in self.arrived:
            self.copies += 1
            return "copy"
        if seq > self.upto(self.arrived) + self.win:
            return "busy"
        self.arrived.add(seq)
        self.held[seq] = frame
        return "new"

    def handed(self):
        """What the application gets now, in order if that was wanted."""
        for seq in sorted(self.held):
            if not self.order or seq <= self.turn:
                self.turn = max(self.turn, seq + 1)
                yield seq, self.held.pop(seq)

    def complete(self, seq, how):
        """False if it is to come again."""
        if seq in self.arrived and how == "retry":
            self.arrived.discard(seq)
            return False
        if seq in self.arrived:
            self.done.add(seq)
            self.rej |= {seq} if how == "reject" else set()
        return True

    def marks(self):
        cum, rcv = self.upto(self.done), self.upto(self.arrived)
        maps = [f"{sum(1 << n - top - 1 for n in of if n > top):x}" for of, top in ((self.done, cum), (self.arrived, rcv))]
        return {"cum": cum, "sack": maps[0], "rcv": rcv, "rsack": maps[1], "rej": sorted(self.rej), "win": self.win}

    def rx(self):
        return {"origin": self.name[0], "epoch": self.name[1]} | {k: v for k, v in self.marks().items() if k != "win"}


class Session:
    """Both directions, and one connection at a time; the same at a client and at a hub."""

    def __init__(self, origin, epoch, win, order):
        self.out, self.into = Out(origin, epoch), In(win, order)
        self.socket, self.replies, self.due, self.malformed, self.others = None, [], False, 0, []
        self.wake, self.news = asyncio.Event(), asyncio.Event()

    def judge(self, seq, frame, maybe):
        """The application: done, reject, retry, or nothing yet (`decide` says it later)."""
        return "done"

    def marks(self):
        return {**self.into.marks(), "una": self.out.una}

    def stir(self):
        self.wake.set()
        self.news.set()

    def say(self, kind, **members):
        self.replies.append({"type": kind, **members})
        self.stir()

    def send(self, kind, data):
        self.wake.set()
        return self.out.add(kind, data)

    def decide(self, seq, how):
        if not self.into.complete(seq, how):
            self.say("nack", seq=seq, code="retry", after=0, reason="given back")
        self.due = True
        self.stir()

    def hand_over(self):
        for seq, frame in self.into.handed():
            if how := self.judge(seq, frame, seq < self.into.maybe):
                self.decide(seq, how)

    def heard(self, frame):
        """One frame; true if it was useful."""
        kind, useful = frame["type"], False
        if kind == "data":
            took = self.into.take(frame)
            if took == "busy":
                self.say("nack", seq=frame["seq"], code="busy", after=10, reason="above the window")
            self.hand_over()
            self.due, useful = True, took == "new"
        elif kind in ("ack", "ping", "pong"):
            useful = self.out.settle(frame) or kind == "pong"
            self.into.forget(number(frame, "una", 1))
            self.hand_over()
            if kind == "ping":
                self.say("pong", n=number(frame, "n"), **self.marks())
        elif kind == "nack":
            seq, code = number(frame, "seq", 1), frame.get("code")
            if seq > self.out.top:
                raise Breach("nack for what was never sent")
            if code == "reject":
                self.out.end(seq, "rejected")
            elif code in ("retry", "busy"):
                self.out.here.add(seq)  # not before its time, though the marks name it no longer
                wait = number({"after": 0, **frame}, "after", most=(1 << 32) - 1) / 1000
                asyncio.get_running_loop().call_later(wait, lambda: (self.out.again(seq), self.stir()))
            else:
                raise Malformed("code")
        else:
            self.others.append(frame)
            self.other(frame)
        self.stir()
        return useful

    def other(self, frame):
        """Topics, tokens and whatever else is not about numbers."""

    def next_frame(self):
        if self.replies:
            return self.replies.pop(0)
        if self.due:
            self.due = False
            return {"type": "ack", **self.marks()}
        return self.out.ready()

    async def write(self, socket):
        while self.socket is socket:
            if frame := self.next_frame():
                await socket.send(text(frame))
            else:
                self.wake.clear()
                await self.wake.wait()

    async def read(self, socket, dead):
        """Until the connection ends; whoever breaks the protocol is told with 1002."""
        writer = asyncio.create_task(self.write(socket))
        try:
            while True:
                try:
                    frame = parse(await asyncio.wait_for(socket.recv(), dead))
                    if self.socket is not socket:
                        break  # replaced: what it still says belongs to no connection (R7)
                    self.malformed = 0 if self.heard(frame) else self.malformed
                except Malformed as why:
                    self.malformed += 1
                    self.say("error", message=str(why))
                    if self.malformed >= 16:
                        raise Breach("sixteen malformed frames") from why
        except Breach as why:
            await socket.close(1002, str(why))
        except (ConnectionClosed, TimeoutError, asyncio.TimeoutError):
            socket.transport.abort()
        finally:
            writer.cancel()
            if self.socket is socket:
                self.socket = None
            self.stir()


def parse(frame):
    try:
        value = json.loads(frame) if type(frame) is str else None
    except (ValueError, RecursionError):
        value = None
    if type(value) is not dict or type(value.get("type")) is not str:
        raise Malformed("no object with a type")
    return value


class Peer(Session):
    """A client: it dials, says hello and resumes, by WebSocket or by HTTP."""

    def __init__(self, port, cid, epoch=1, win=64, order=True, auth="yes"):
        super().__init__(f"{sum(cid.encode()) * 257:012x}", epoch, win, order)
        self.port, self.cid, self.auth, self.sid, self.token = port, cid, auth, None, None
        self.n, self.tasks, self.got, self.events, self.hold = 0, [], [], [], False
        self.max_life, self.slow, self.given_back = 3_600_000, 0, set()

    def hello(self, **lies):
        """What it knows; `lies` are put in their place, or left out where they are None."""
        out, into = self.out, self.into
        said = {"type": "hello", "v": 1, "cid": self.cid, "origin": out.origin, "epoch": out.epoch}
        said |= {"resume": self.sid is not None, "tx": {"next": out.next, "una": out.una}, "win": into.win}
        said |= {"max_life": self.max_life, "order": into.order, "auth": self.auth}
        if self.sid is not None:
            said |= {"sid": self.sid, "token": self.token}
        if into.name:
            said["rx"] = into.rx()
        return {name: value for name, value in (said | lies).items() if value is not None}

    def welcomed(self, said):
        if said["type"] != "welcome":
            return said
        self.sid, self.token, self.hb, self.dead = said["sid"], said["token"], said["hb"] / 1000, said["dead"] / 1000
        if said["dedupe_ttl"] < self.max_life:
            raise Breach("the hub forgets too early")
        self.into.meet((said["origin"], said["epoch"]), said["tx"], said.get("reason") in ("unknown_session", "expired"))
        self.out.begin(said.get("rx"), said["win"])
        self.hand_over()
        self.due = True
        self.stir()
        return said

    async def dial(self):
        return await connect(
            f"ws://127.0.0.1:{self.port}/bowline/1/socket", subprotocols=["bowline.1"], compression=None,
            ping_interval=None, max_size=FRAME, open_timeout=10, proxy=None,
        )  # fmt: skip

    async def connect(self, **lies):
        """The hub's first word, with the code of its close if it refused."""
        socket = await self.dial()
        assert socket.subprotocol == "bowline.1", "the hub does not speak it"
        await socket.send(text(self.hello(**lies)))
        said = self.welcomed(parse(await asyncio.wait_for(socket.recv(), 10)))
        if said["type"] != "welcome":
            await asyncio.wait_for(socket.wait_closed(), 10)
            return {**said, "code": socket.close_code}
        self.socket, self.replies = socket, []
        self.tasks = [asyncio.create_task(self.read(socket, self.dead)), asyncio.create_task(self.beat(socket))]
        return said

    async def insist(self):
        """Connects until it is welcome, whatever is cut off."""
        for n in range(200):
            try:
                return await self.connect()
            except (OSError, EOFError, ConnectionClosed, TimeoutError, asyncio.TimeoutError):
                await asyncio.sleep(random.random() * 0.02)
        raise Breach("never welcome")

    async def beat(self, socket):
        while self.socket is socket:
            await asyncio.sleep(self.hb * random.uniform(0.9, 1.1))
            self.ping()

    def ping(self):
        self.n += 1
        self.say("ping", n=self.n, **self.marks())
        return self.n

    async def cut(self):
        """The network is gone: no close frame, and what was not read is lost."""
        if self.socket:
            self.socket.transport.abort()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.socket, self.tasks = None, []

    async def until(self, holds, limit=20):
        end = time.monotonic() + limit * LIMIT / 60
        while not holds():
            self.news.clear()
            await asyncio.wait_for(self.news.wait(), max(0.001, end - time.monotonic()))

    async def ended(self, seq):
        await self.until(lambda: seq in self.out.ended)
        return self.out.ended[seq]

    async def word(self, kind):
        """The next frame of this type that is not about numbers."""
        await self.until(lambda: any(frame["type"] == kind for frame in self.others))
        frame = next(frame for frame in self.others if frame["type"] == kind)
        self.others.remove(frame)
        return frame

    def judge(self, seq, frame, maybe):
        self.got.append((seq, frame["kind"], frame["data"], maybe))
        if self.slow:
            how = "retry" if seq % 7 == 0 and seq not in self.given_back else "done"
            self.given_back |= {seq} if how == "retry" else set()
            return asyncio.get_running_loop().call_later(random.random() * self.slow, self.decide, seq, how) and None
        return None if self.hold else "done"

    def other(self, frame):
        if frame["type"] == "token":
            self.token = frame["token"]

    async def post(self, path, body, **headers):
        """One request on a connection of its own: status, headers, the JSON it brings."""
        def ask():
            line = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            more = {"Content-Type": "application/json", **headers}
            if path != "hello":
                more |= {"Authorization": f"Bearer {self.token}", "Bowline-Client": self.cid}
            line.request("POST", f"/bowline/1/{path}", text(body).encode(), more)
            answer = line.getresponse()
            read = answer.read()
            line.close()
            return answer.status, answer.headers, json.loads(read) if read else None

        return await asyncio.to_thread(ask)

    async def post_hello(self, **lies):
        status, _, said = await self.post("hello", self.hello(**lies))
        assert (status, said["type"]) in ((200, "welcome"), (403, "refused")), (status, said)
        return self.welcomed(said)

    async def post_message(self, seq):
        """One try: the status. What it says of the message is taken in."""
        key = message_id(self.out.origin, self.out.epoch, seq)
        status, headers, said = await self.post("messages", self.out.frame(seq), **{"Idempotency-Key": key})
        if status in (200, 422):
            self.heard(said)
        return status, headers.get("Retry-After")

    async def deliver(self, seq):
        """By HTTP until it has ended."""
        statuses = []
        while seq in self.out.kept:
            status, after = await self.post_message(seq)
            statuses.append(status)
            if status in (409, 503):
                await asyncio.sleep(float(after))
            elif status in (401, 404):
                await self.post_hello()
        return statuses

    async def poll(self, wait=0, take=True):
        self.n += 1
        status, _, said = await self.post("poll", {"type": "ping", "n": self.n, **self.marks(), "wait": wait})
        assert status == 200 and said["type"] == "batch", (status, said)
        for frame in said["frames"] if take else []:
            self.heard(frame)
        return said["frames"]


def check(holds, what):
    if not holds:
        raise AssertionError(what)


def short(said):
    return {name: said[name] for name in ("type", "resumed", "reason", "code") if name in said}


async def stat(peer):
    """What the hub's application saw of `up`."""
    peer.hold = False
    await peer.until(lambda: all(seq < peer.into.una or seq in peer.into.done for seq in peer.given_back), 2)
    await peer.ended(peer.send("stat", {}))
    await peer.until(lambda: any(kind == "stat" for _, kind, _, _ in peer.got))
    return next(data for _, kind, data, _ in reversed(peer.got) if kind == "stat")


def numbers(peer):
    return [data["i"] for _, kind, data, _ in peer.got if kind == "down"]


async def resume(port):
    peer = Peer(port, "py-resume")
    tell("welcome", **short(await peer.connect()))
    ends = [await peer.ended(peer.send(kind, {"i": i, "ms": 50})) for i, kind in enumerate(("up", "reject", "retry", "slow"))]
    tell("ends", ends=ends)
    check(ends == ["done", "rejected", "done", "done"], "the verdicts")
    peer.hold = True
    peer.send("ask", {"n": 6})
    await peer.until(lambda: len(peer.got) == 6)
    seqs = [seq for seq, _, _, _ in peer.got]
    for seq in seqs[:2] + seqs[4:5]:
        peer.decide(seq, "done")
    n = peer.ping()
    await peer.until(lambda: not peer.replies and not peer.due)
    await peer.until(lambda: not peer.out.kept)
    await asyncio.sleep(0.2)  # for the hub to hear of it
    await peer.cut()
    away = peer.send("up", {"i": 1})
    old, said = peer.token, await peer.connect()
    tell("welcome", **short(said), tx=said["tx"], rx=said["rx"], pinged=n)
    check(said["resumed"] and "reason" not in said and peer.token != old, "resumed, with a new token")
    check(await peer.ended(away) == "done", "what was sent while away")
    check(peer.into.copies == 0, "what had arrived is not sent again")
    for seq in seqs:
        peer.decide(seq, "retry" if seq == seqs[3] and seq not in peer.into.done else "done")
    await peer.until(lambda: len(peer.got) == 7)  # what was given back came again
    peer.decide(seqs[3], "done")
    check(numbers(peer) == [1, 2, 3, 4, 5, 6, 4], numbers(peer))
    peer.say("reauth", auth="yes")
    before, token = peer.token, await peer.word("token")
    check(token["token"] == peer.token != before, "a new token")
    await peer.cut()
    check((await peer.connect())["resumed"], "resumed by the token of the re-authentication")
    first, second = peer.socket, Peer(port, "py-resume")
    second.sid, second.token, second.into, second.out = peer.sid, peer.token, peer.into, peer.out
    await second.connect()
    await asyncio.wait_for(first.wait_closed(), 10)
    tell("replaced", code=first.close_code)
    check(first.close_code == 4003, "the older connection is told")
    second.say("reauth", auth="no")
    refused, socket = await second.word("refused"), second.socket
    await second.until(lambda: second.socket is None)
    tell("refused", **refused, code=socket.close_code if socket else None)


async def refusals(port, wait="0"):
    """Each of the six, and auth and horizon; after a welcome that is not a resumption messages go as before."""
    for name in ("unknown_session", "expired", "gap", "ahead", "ahead-tx", "epoch", "identity", "auth", "horizon"):
        if name == "expired" and not int(wait):
            continue
        peer = Peer(port, f"py-{name}", epoch=5)
        await peer.connect()
        for i in range(3):
            await peer.ended(peer.send("up", {"i": i}))
        peer.send("ask", {"n": 3})
        await peer.until(lambda: len(peer.got) == 3 and not peer.due and not peer.out.kept)
        await asyncio.sleep(0.2)  # for the hub to hear that they are completed
        await peer.cut()
        if name == "expired":
            await asyncio.sleep(int(wait) / 1000)
        rx = peer.hello()["rx"]
        false = lambda cum: {"rx": {"origin": rx["origin"], "epoch": rx["epoch"], "cum": cum, "rcv": cum}}  # noqa: E731
        lies = {
            "unknown_session": {"sid": "nobody's"},
            "expired": {},
            "gap": false(1),
            "ahead": false(rx["cum"] + 90),
            "ahead-tx": {"tx": {"next": 2, "una": 1}},
            "epoch": {"epoch": 4},
            "identity": {"token": "somebody-elses"},
            "auth": {"auth": "no"},
            "horizon": {"max_life": (1 << 32) - 1},
        }[name]
        said = await peer.connect(**lies)
        tell("refusal", asked=name, **short(said))
        check(said["reason"] == name.partition("-")[0], said)
        if name in ("epoch", "identity", "auth", "horizon"):
            check((said["type"], said["code"]) == ("refused", 1008), said)
            said = await peer.connect()
            check(said["type"] == "welcome" and said["resumed"], "a refusal harms nobody's session")
        else:
            check(said["type"] == "welcome" and not said["resumed"], said)
        if name != "ahead-tx":  # there we lied about numbers that we go on to use
            check(await peer.ended(peer.send("up", {"i": 3})) == "done", "life goes on")
        await peer.cut()


async def gap(port):
    """The client gives up three messages while it is away, and has forgotten what it completed: both gaps are told."""
    peer = Peer(port, "py-gap")
    await peer.connect()
    for i in range(3):
        await peer.ended(peer.send("up", {"i": i}))
    peer.send("ask", {"n": 5})
    await peer.until(lambda: len(peer.got) == 5 and not peer.due and not peer.out.kept)
    await asyncio.sleep(0.2)
    await peer.cut()
    for seq in [peer.send("up", {"i": 3}) for _ in range(3)]:
        peer.out.end(seq, "expired")
    last = peer.send("up", {"i": 4})
    said = await peer.connect()
    tell("welcome", **short(said))
    check((said["resumed"], said.get("reason")) == (False, "gap"), said)
    check(await peer.ended(last) == "done", "behind the gap")
    saw = await stat(peer)
    tell("stat", **saw)
    check(saw["gaps"] == [[last - 3, last - 1]], "the hub's application hears of exactly what is gone")
    await peer.cut()
    name = peer.into.name
    peer.into.anew(name, 1, 1)
    said = await peer.connect()
    tell("welcome", **short(said), gaps=peer.into.gaps)
    check(said["reason"] == "gap" and peer.into.gaps == [[1, said["tx"]["una"] - 1]], "what the hub has no longer is told")


async def both_ways(port, n, cuts="0", slow="0"):
    """N messages each way; the client cuts so many times, and whoever stands between may cut as well. With SLOW the
    application takes up to so many ms, decides in any order, and gives each seventh message back once."""
    n, cuts, peer, again, joined = int(n), int(cuts), Peer(port, "py-both"), 0, 0
    peer.slow = int(slow) / 1000
    await peer.insist()
    peer.send("ask", {"n": n})
    for i in range(n):
        peer.send("up", {"i": i + 1})
    marks = [(k + 1) * n // (cuts + 1) for k in range(cuts)]
    while peer.out.kept or len(set(numbers(peer))) < n:
        await peer.until(lambda: peer.socket is None or not peer.out.kept or (marks and len(peer.got) >= marks[0]))
        if marks and len(peer.got) >= marks[0]:
            marks.pop(0)
            await peer.cut()
        if peer.socket is None:
            again, joined = again + 1, joined + bool((await peer.insist())["resumed"])
        elif not peer.out.kept and len(set(numbers(peer))) < n:
            before = len(peer.got)
            await peer.until(lambda: peer.socket is None or len(peer.got) > before)
    while True:
        try:
            await asyncio.wait_for(peer.insist() if peer.socket is None else asyncio.sleep(0), 10)
            saw = await asyncio.wait_for(stat(peer), 2)
            break
        except (TimeoutError, asyncio.TimeoutError):
            pass
    tell("both-ways", n=n, reconnected=again, resumed=joined, sent=peer.out.sent, copies=peer.into.copies, **saw)
    firsts = list(dict.fromkeys(numbers(peer)))
    check(firsts == list(range(1, n + 1)), "all from the hub, in order, none lost")
    given_back = sum(kind == "down" and seq in peer.given_back for seq, kind in {(g[0], g[1]) for g in peer.got})
    check(len(numbers(peer)) == n + given_back, "none doubled but what was given back")
    check((saw["got"], saw["doubled"], saw["disordered"], saw["gaps"]) == (n, 0, 0, []), "all to the hub")
    check(again == joined and not peer.into.gaps, "each of them a resumption")


async def by_http(port, n):
    n, peer = int(n), Peer(port, "py-http")
    tell("welcome", **short(await peer.post_hello()))
    for i in range(n):
        seq = peer.send("up", {"i": i + 1})
        check(await peer.deliver(seq) == [200], "completed")
        if i % 2:
            peer.out.kept[seq] = ("up", {"i": i + 1})
            check((await peer.post_message(seq))[0] == 200, "a copy is answered alike")
    rejected, slow = peer.send("reject", {}), peer.send("slow", {"ms": 4500})
    tell("statuses", reject=await peer.deliver(rejected), slow=await peer.deliver(slow), ends=[peer.out.ended[rejected], peer.out.ended[slow]])
    check(peer.out.ended[rejected] == "rejected", "rejected")
    await peer.deliver(peer.send("ask", {"n": n}))
    lost = await peer.poll(take=False)
    kept = await peer.poll()
    check([f["seq"] for f in lost if f["type"] == "data"] == [f["seq"] for f in kept if f["type"] == "data"], "kept until confirmed")
    while len(numbers(peer)) < n:
        await peer.poll(1000)
    check(numbers(peer) == list(range(1, n + 1)), "all by polls, in order, once")
    older = asyncio.create_task(peer.poll(20_000))
    await asyncio.sleep(0.3)
    newer = asyncio.create_task(peer.poll(300))
    check(await older == [] and not older.cancelled(), "the newest poll counts")
    await newer
    await peer.connect()
    check(await peer.poll(20_000) == [], "while a WebSocket is up polls are empty")
    saw = await stat(peer)
    tell("stat", **saw)
    check((saw["got"], saw["doubled"]) == (n, 0), "none doubled over both paths")
    await peer.cut()
    peer.token = "wrong"
    statuses = [(await peer.post("poll", {"type": "ping", "n": 0, **peer.marks(), "wait": 0}))[0]]
    peer.cid = "nobody"
    statuses.append((await peer.post("poll", {"type": "ping", "n": 0, **peer.marks(), "wait": 0}))[0])
    tell("strangers", statuses=statuses)
    check(statuses == [401, 404], "401 for a token, 404 for a session")


async def topics(port, n="20"):
    """The second time more is published than the hub's history holds: `missed`, then what it holds."""
    n, peer = int(n), Peer(port, "py-topics")
    await peer.connect()
    ticks = lambda: [frame for frame in peer.others if frame["type"] == "event"]  # noqa: E731
    peer.say("subscribe", topic="py/clock", since="oldest")
    tell("subscribed", **await peer.word("subscribed"))
    await peer.ended(peer.send("publish", {"topic": "py/clock", "n": 3}))
    await peer.until(lambda: len(ticks()) == 3)
    last = ticks()[-1]
    await peer.cut()
    peer.others.clear()
    for count in (2, n):
        status = await peer.deliver(peer.send("publish", {"topic": "py/clock", "n": count}))
        await peer.connect()
        peer.say("subscribe", topic="py/clock", since={"epoch": last["epoch"], "offset": last["offset"]})
        await peer.word("subscribed")
        await peer.until(lambda: ticks() and ticks()[-1]["offset"] >= last["offset"] + count)
        lost = [frame for frame in peer.others if frame["type"] == "missed"]
        offsets = sorted({frame["offset"] for frame in ticks()})
        tell("since", statuses=status, asked=last["offset"], offsets=[offsets[0], offsets[-1]], missed=lost)
        first = lost[0]["to"] + 1 if lost else last["offset"] + 1
        check(offsets == list(range(first, last["offset"] + count + 1)), "what was missed, and no hole behind it")
        check(not lost or lost[0]["from"] == last["offset"] + 1, "missed from the first")
        last = ticks()[-1]
        await peer.cut()
        peer.others.clear()
    await peer.connect()
    peer.say("unsubscribe", topic="py/clock")
    await peer.word("unsubscribed")
    await peer.ended(peer.send("publish", {"topic": "py/clock", "n": 1}))
    check(not ticks(), "nothing after it has left")


async def hostile(port):
    """How each is ended: the code, how many `error` it was told before, and whether the next connection is served."""
    good = {"type": "data", "seq": 1, "una": 1, "kind": "up", "data": {"i": 1}}
    ack = {"type": "ack", "cum": 0, "sack": "0", "rcv": 0, "rsack": "0", "rej": [], "win": 64, "una": 1}
    attacks = {
        "no-hello": (None, [text(good)]),
        "no-version": ({"v": None}, []),
        "no-json": ({}, ["{"] * 16),
        "binary": ({}, [b"\0"] * 16),
        "an-array": ({}, ["[]"] * 16),
        "wrong-kinds": ({}, [text({**good, "seq": "1"}), text({**good, "seq": -1}), text({**good, "kind": ""})] * 6),
        "maps": ({}, [text({**ack, "sack": "xyz"}), text({**ack, "sack": "0" * 17}), text({**ack, "win": 1.5})] * 6),
        "deep": ({}, ["[" * 100_000] * 16),
        "unknown-types": ({}, [text({"type": "tomorrow", "x": n}) for n in range(40)]),
        "above-window": ({}, [text({**good, "seq": 65})]),
        "far-above": ({}, [text({**good, "seq": MOST})]),
        "una-far": ({}, [text({**good, "seq": MOST, "una": MOST})]),
        "never-sent-cum": ({}, [text({**ack, "cum": 1000, "rcv": 1000})]),
        "never-sent-sack": ({}, [text({**ack, "sack": "8" + "0" * 15, "rsack": "8" + "0" * 15})]),
        "never-sent-nack": ({}, [text({"type": "nack", "seq": 900, "code": "retry", "after": 0})]),
        "second-hello": ({}, [text({"type": "hello"})]),
        "wrong-token": ({"resume": True, "sid": "x", "token": "y"}, []),
        "oversize": ({}, [text({**good, "data": "x" * (FRAME + 10)})]),
        "large-auth": ({"auth": "x" * 5000}, []),
        "long-cid": ({"cid": "x" * 65}, []),
    }
    for name, (lies, frames) in attacks.items():
        peer, errors = Peer(port, f"py-{name}"), 0
        socket = await peer.dial()
        try:
            if lies is not None:
                await socket.send(text(peer.hello(**lies)))
                first = parse(await asyncio.wait_for(socket.recv(), 10))
                if first["type"] == "refused" or first.get("reason"):
                    tell("first", attack=name, **short(first))
            for frame in frames:
                await socket.send(frame)
            await socket.send(text({**ack, "type": "ping", "n": 7}))
            while True:
                said = parse(await asyncio.wait_for(socket.recv(), 10))
                errors += said["type"] == "error"
                if said["type"] == "pong":
                    tell("ended", attack=name, code=None, errors=errors)
                    break
        except ConnectionClosed:
            tell("ended", attack=name, code=socket.close_code, reason=socket.close_reason, errors=errors)
        await socket.close()
    peer = Peer(port, "py-after")
    await peer.connect()
    check(await peer.ended(peer.send("up", {"i": 1})) == "done", "the hub still serves")


SCENARIOS = {"resume": resume, "refusals": refusals, "gap": gap, "both-ways": both_ways, "http": by_http}
SCENARIOS |= {"topics": topics, "hostile": hostile}


def main():
    random.seed(1)
    try:
        asyncio.run(asyncio.wait_for(SCENARIOS[sys.argv[2]](int(sys.argv[1]), *sys.argv[3:]), 2 * LIMIT))
    except Exception as why:
        tell("failed", why=str(why) or type(why).__name__, where=traceback.format_exc().splitlines()[-6:])
        sys.exit(1)
    tell("end")


if __name__ == "__main__":
    main()
