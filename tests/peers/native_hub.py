"""A hub of `bowline.1` in as few lines as it can be, from PROTOCOL.md alone; its application is the one `native.py` asks for.

    native_hub.py [port=0] [life=3600000] [win=64] [history=8] [slow=0] [cut=0] [cuts=20]

`life`: milliseconds that a session lives without a connection. `slow`: an `up` is decided within so many milliseconds, in any
order. `cut`: of the WebSocket's bytes, both ways, about so many
pass, then both ends are reset in the middle of whatever it is; `cuts` times. It ends with its standard input."""

import asyncio
import itertools
import os
import random
import sys
import threading
import time

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import tell
from native import FRAME, Breach, Malformed, Session, bits, message_id, number, parse, text

ORIGIN, TTL = "00000000c0de", 3_600_000
OPTIONS = {"port": 0, "life": TTL, "win": 64, "history": 8, "slow": 0, "cut": 0, "cuts": 20}
EPOCHS = itertools.count(1)  # a session has counters of its own, so it has an epoch of its own (I1)


class Client(Session):
    """One session: what the hub keeps of a client."""

    def __init__(self, hub, cid):
        super().__init__(ORIGIN, next(EPOCHS), hub.win, True)
        self.hub, self.cid, self.sid, self.tokens, self.gone = hub, cid, os.urandom(9).hex(), [], time.monotonic()
        self.topics, self.newest, self.ups, self.retried = set(), 0, [], set()

    def fresh_token(self):
        """The one before stays valid until this one is used (R9)."""
        self.tokens = [*self.tokens[-1:], os.urandom(9).hex()]
        return self.tokens[-1]

    def knows(self, token):
        if token in self.tokens:
            self.tokens = self.tokens[self.tokens.index(token) :]
        return token in self.tokens

    def judge(self, seq, frame, maybe):
        kind, data = frame["kind"], frame["data"]
        if kind == "up":
            self.ups.append(data["i"])
            if self.hub.slow:
                wait = random.random() * self.hub.slow
                return asyncio.get_running_loop().call_later(wait, self.decide, seq, "done") and None
        elif kind == "reject":
            return "reject"
        elif kind == "retry" and seq not in self.retried:
            self.retried.add(seq)
            return "retry"
        elif kind == "slow":
            return asyncio.get_running_loop().call_later(data["ms"] / 1000, self.decide, seq, "done") and None
        elif kind == "ask":
            for i in range(data["n"]):
                self.send("down", {"i": i + 1})
        elif kind == "publish":
            for i in range(data["n"]):
                self.hub.publish(data["topic"], "tick", {"i": i + 1})
        elif kind == "stat":
            order = [b for a, b in zip(self.ups, self.ups[1:]) if b < a]
            doubled = len(self.ups) - len(set(self.ups))
            self.send("stat", {"got": len(self.ups), "doubled": doubled, "disordered": len(order), "gaps": self.into.gaps})
        return "done"

    def other(self, frame):
        topic = frame.get("topic")
        if frame["type"] in ("subscribe", "unsubscribe") and type(topic) is not str:
            raise Malformed("topic")
        if frame["type"] == "subscribe":
            self.topics.add(topic)
            self.say("subscribed", topic=topic, ok=True)
            log, since = self.hub.logs.setdefault(topic, []), frame.get("since")
            if since is not None and log:
                oldest = log[0]["offset"]
                behind = 0 if since == "oldest" else since["offset"] if since["epoch"] == self.hub.epoch else 0
                if since != "oldest" and behind + 1 < oldest:
                    self.say("missed", topic=topic, epoch=self.hub.epoch, **{"from": behind + 1, "to": oldest - 1})
                self.replies += [event for event in log if event["offset"] > behind]
        elif frame["type"] == "unsubscribe":
            self.topics.discard(topic)
            self.say("unsubscribed", topic=topic, ok=True)
        elif frame["type"] == "reauth":
            if frame.get("auth") == "no":
                self.say("refused", reason="auth")
                asyncio.get_running_loop().call_later(0.05, lambda s=self.socket: asyncio.ensure_future(s.close(1008)))
            else:
                self.say("token", token=self.fresh_token())


class Hub:
    def __init__(self, life, win, history, slow, cut, cuts, **_):
        self.slow = slow / 1000
        self.life, self.win, self.history, self.cut, self.cuts = life / 1000, win, history, cut, cuts
        self.clients, self.former, self.epochs, self.logs, self.counts, self.epoch = {}, set(), {}, {}, {}, 1

    def publish(self, topic, kind, data):
        offset = self.counts[topic] = self.counts.get(topic, 0) + 1
        event = {"type": "event", "topic": topic, "epoch": self.epoch, "offset": offset, "kind": kind, "data": data}
        self.logs[topic] = [*self.logs.get(topic, []), event][-self.history :]
        for client in self.clients.values():
            if client.socket and topic in client.topics:
                client.replies.append(event)
                client.stir()

    def greet(self, said):
        """The session and the welcome, or no session and what is refused."""
        cid, origin, epoch, auth = (said.get(name) for name in ("cid", "origin", "epoch", "auth"))
        if said["type"] != "hello" or said.get("v") != 1 or type(cid) is not str or not 1 <= len(cid.encode()) <= 64:
            raise Malformed("hello")
        if type(origin) is not str or len(origin) != 12 or origin.strip("0123456789abcdef") or len(text(auth)) > 4096 + 2:
            raise Malformed("origin or auth")
        number(said, "epoch", most=(1 << 26) - 1)
        tx, rx, win, client = said.get("tx"), said.get("rx") or {"cum": 0}, number(said, "win"), self.clients.get(cid)
        if type(tx) is not dict or type(rx) is not dict or number(tx, "una", 1) > number(tx, "next", 1):
            raise Malformed("tx or rx")
        number(rx, "cum"), bits(rx, "sack"), number({"rcv": 0, **rx}, "rcv"), bits(rx, "rsack")
        over = client and not client.socket and time.monotonic() > client.gone + self.life
        if over:
            self.former.add(client.sid)
            del self.clients[cid]
        reason, resume = None, said.get("resume") is True
        if auth == "no":
            return None, {"type": "refused", "reason": "auth"}
        if number(said, "max_life", most=(1 << 32) - 1) > TTL:
            return None, {"type": "refused", "reason": "horizon"}
        if resume and client and client.sid == said.get("sid") and not client.knows(said.get("token")):
            return None, {"type": "refused", "reason": "identity"}
        if epoch < self.epochs.get(cid, 0):
            return None, {"type": "refused", "reason": "epoch"}
        client, self.epochs[cid] = self.clients.get(cid), epoch
        if resume and said.get("sid") in self.former:
            reason = "expired"
        elif resume and (client is None or client.sid != said.get("sid")):
            reason = "unknown_session"
        elif resume:
            mine, theirs = client.out, client.into
            known = theirs.name in (None, (origin, epoch)) and ("epoch" not in rx or rx["epoch"] == mine.epoch)
            if rx["cum"] >= mine.next or max(theirs.arrived, default=theirs.una - 1) >= tx["next"]:
                reason = "ahead"
            elif not known or tx["una"] > theirs.upto(theirs.arrived) + 1 or mine.una > rx["cum"] + 1:
                reason = "gap"
        if client is None:
            client = self.clients[cid] = Client(self, cid)
        client.into.meet((origin, epoch), tx)
        client.out.begin(rx if "epoch" in rx and reason != "ahead" else None, win)
        client.into.order, client.gone = True, time.monotonic()
        welcome = {"type": "welcome", "v": 1, "sid": client.sid, "token": client.fresh_token()}
        welcome |= {"resumed": resume and reason is None, **({"reason": reason} if reason else {})}
        welcome |= {"origin": ORIGIN, "epoch": client.out.epoch, "tx": {"next": client.out.next, "una": client.out.una}}
        welcome |= {"rx": client.into.rx()}
        welcome |= {"win": self.win, "hb": 20000, "dead": 45000, "window": 5000, "dedupe_ttl": TTL}
        return client, welcome | {"frame": FRAME, "order": True}

    async def socket(self, socket):
        try:
            client, said = self.greet(parse(await asyncio.wait_for(socket.recv(), 10)))
        except Breach as why:
            return await socket.close(1002, str(why))
        except (Malformed, ConnectionClosed, TimeoutError, asyncio.TimeoutError):
            return await socket.close(1008, "a hello is wanted")
        if client is None:
            await socket.send(text(said))
            return await socket.close(1008, said["reason"])
        older, client.socket, client.replies, client.due = client.socket, socket, [said], True
        client.stir()
        if older:
            await older.close(4003, "another connection has its place")
        client.hand_over()
        await client.read(socket, 45)
        client.gone = time.monotonic()

    async def request(self, path, headers, body):
        """Status, further headers, answer."""
        said = parse(body)
        if path == "hello":
            client, answer = self.greet(said)
            return (200 if client else 403), {}, answer
        client = self.clients.get(headers.get("bowline-client"))
        if client is None:
            return 404, {}, None
        if not client.knows(headers.get("authorization", "").removeprefix("Bearer ")):
            return 401, {}, None
        client.gone = time.monotonic()
        if path == "poll":
            return 200, {}, {"type": "batch", "frames": await self.poll(client, said)}
        seq = number(said, "seq", 1)
        if headers.get("idempotency-key") != message_id(*client.into.name, seq):
            raise Malformed("Idempotency-Key")
        if client.into.take(said) == "busy":
            return 503, {"Retry-After": 1}, None
        client.hand_over()
        end = time.monotonic() + 4
        while seq >= client.into.una and seq in client.into.arrived and seq not in client.into.done:
            if time.monotonic() > end:
                return 409, {"Retry-After": 1}, None
            client.news.clear()
            await first(client.news.wait(), max(0.001, min(0.1, end - time.monotonic())))  # another waiter may clear it first
        if seq in client.into.rej:
            return 422, {}, {"type": "nack", "seq": seq, "code": "reject", "after": 0, "reason": "rejected"}
        if seq >= client.into.una and seq not in client.into.done:
            return 503, {"Retry-After": 1}, None  # given back
        return 200, {}, {"type": "ack", **client.marks()}

    async def poll(self, client, said):
        client.newest += 1
        mine, end = client.newest, time.monotonic() + number(said, "wait", most=25_000) / 1000
        client.stir()
        client.out.settle(said)
        client.into.forget(number(said, "una", 1))
        client.hand_over()
        client.out.here = set()  # what the last answer carried and was not confirmed goes again
        while client.newest == mine and not client.socket:
            frames = list(iter(client.out.ready, None))
            if frames or client.due or time.monotonic() >= end:
                client.due = False
                return [*frames, {"type": "ack", **client.marks()}]
            client.news.clear()
            await first(client.news.wait(), max(0.001, min(0.1, end - time.monotonic())))  # another waiter may clear it first
        return []

    async def front(self, reader, writer, behind):
        """One port for both: POSTs are answered here, everything else is handed on, and cut."""
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            if not head.startswith(b"POST "):
                return await self.hand_on(head, reader, writer, behind)
            lines = head.decode("latin-1").split("\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
            length, path = int(headers.get("content-length", 0)), lines[0].split()[1].removeprefix("/bowline/1/")
            if length > FRAME:
                answer = 413, {}, None
            else:
                body = await asyncio.wait_for(reader.readexactly(length), 30)
                answer = await self.request(path, headers, body.decode())
        except (Malformed, Breach, ValueError, TypeError) as why:
            answer = 400, {}, {"type": "error", "message": str(why)}
        except (OSError, EOFError, TimeoutError, asyncio.TimeoutError, asyncio.LimitOverrunError):
            return writer.close()
        status, more, said = answer
        body = text(said).encode() if said else b""
        more = {"Content-Type": "application/json", "Content-Length": len(body), "Connection": "close", **more}
        writer.write(f"HTTP/1.1 {status} .\r\n{''.join(f'{k}: {v}{chr(13)}{chr(10)}' for k, v in more.items())}\r\n".encode() + body)
        writer.close()

    async def hand_on(self, head, reader, writer, behind):
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", behind)
        inner.write(head)
        left = [random.randint(self.cut // 2, self.cut * 3 // 2) if self.cut and self.cuts else None]

        async def pass_on(source, sink, other):
            try:
                while data := await source.read(4096):
                    if left[0] is not None:
                        data, left[0] = data[: left[0]], max(0, left[0] - len(data))
                    sink.write(data)
                    if left[0] == 0:
                        break
                    await sink.drain()
                else:
                    return sink.close()
            except OSError:
                pass
            if left[0] == 0:
                self.cuts, left[0] = self.cuts - 1, None
                tell("cut", left=self.cuts)
            sink.transport.abort()
            other.transport.abort()

        await asyncio.gather(pass_on(reader, inner, writer), pass_on(inner_reader, writer, inner))


async def first(waits, limit):
    try:
        await asyncio.wait_for(waits, limit)
    except (TimeoutError, asyncio.TimeoutError):
        pass


async def main():
    options = OPTIONS | {name: int(value) for name, _, value in (word.partition("=") for word in sys.argv[1:])}
    hub = Hub(**options)
    behind = await serve(
        hub.socket, "127.0.0.1", 0, subprotocols=["bowline.1"], compression=None, ping_interval=None, max_size=FRAME,
    )  # fmt: skip
    inner = behind.sockets[0].getsockname()[1]
    front = await asyncio.start_server(lambda r, w: hub.front(r, w, inner), "127.0.0.1", options["port"], limit=FRAME)
    tell("listening", port=front.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


if __name__ == "__main__":
    random.seed(2)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    asyncio.run(main())
