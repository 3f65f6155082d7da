"""Plays Bettensor's miner, the original or one with bad intentions, as many times as it is told.

Every line of its input is a JSON object: `do` names the deed, `as` the miner (default "m"), the rest are the arguments of
the method of that name below. Deeds of one process happen one after the other. What a miner sees has its name before it."""

import asyncio
import json
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from common import run, tell, told
from signed import Keys, auth, envelope, is_by, prediction


class Miner:
    def __init__(self, name, port, seed, heartbeat=60, answers=True, base=1, cap=60, source="127.0.0.1", resends=False):
        self.name, self.port, self.keys, self.source = name, port, Keys(seed), source
        self.heartbeat, self.answers, self.base, self.cap, self.resends = heartbeat, answers, base, cap, resends
        self.socket = None
        self.tasks = []
        self.last_auth = None
        self.validator = None  # whoever signed the welcome
        self.sent = {}  # by id, the frame
        self.confirmed = {}  # by id, what was said, in order
        self.invalid = self.unsigned = self.foreign = 0
        self.news = asyncio.Event()

    def tell(self, saw, **more):
        tell(f"{self.name}: {saw}", **more)

    async def open(self, quiet=False, **options):
        """The upgrade alone; false if it is refused."""
        try:
            # The limits and pings are the library's defaults, as in the original.
            where = f"ws://127.0.0.1:{self.port}/ws"
            self.socket = await connect(where, open_timeout=30, local_addr=(self.source, 0), **options)
            return True
        except InvalidStatus as refused:
            response = refused.response
            self.tell("refused", status=response.status_code, after=response.headers.get("Retry-After"))
        except (OSError, EOFError, InvalidMessage, TimeoutError) as failed:
            if not quiet:
                self.tell("unreachable", why=type(failed).__name__)
        return False

    async def connect(self, again=False, silent=False, signs=None, text=None, quiet=False, beats=True, claims=None, age=0):
        """`signs`: the seed that signs instead; `claims`: whose hotkey; `again`: the last auth frame byte for byte."""
        if not await self.open(quiet):
            return False
        if silent:
            self.start(self.read())
            return True
        if not again or self.last_auth is None:
            self.last_auth = text or auth(Keys(signs) if signs else self.keys, claims=claims or self.keys.address, age=age)
        try:
            await self.socket.send(self.last_auth)
            frame = await self.socket.recv()
        except ConnectionClosed:
            self.tell("denied", frame=None, code=self.socket.close_code, reason=self.socket.close_reason)
            return False
        message = json.loads(frame)
        if message.get("status") == "error" or message.get("type") == "error":
            await self.socket.wait_closed()
            self.tell("denied", frame=message, code=self.socket.close_code, reason=self.socket.close_reason)
            return False
        self.validator = message.get("sender")
        text = isinstance(frame, str)
        self.tell("welcome", text=text, frame=message, valid=bool(self.validator) and is_by(message, self.validator))
        self.start(self.read())
        if beats:
            self.start(self.beat())
        return True

    def start(self, task):
        self.tasks.append(asyncio.create_task(task))

    async def read(self):
        socket = self.socket
        try:
            async for frame in socket:
                await self.note(frame)
        except ConnectionClosed:
            pass
        self.tell("closed", code=socket.close_code, reason=socket.close_reason)

    async def note(self, frame):
        if isinstance(frame, bytes):
            return self.tell("binary", length=len(frame))
        message = json.loads(frame)
        valid = is_by(message, message.get("sender", self.validator))
        self.unsigned += valid is None and message.get("type") != "error"
        self.invalid += valid is False
        self.foreign += message.get("sender", self.validator) != self.validator
        kind, data = message.get("type"), message.get("data")
        if kind == "confirmation":
            self.confirmed.setdefault(data["prediction_id"], []).append(data)
            if data["status"] != "success":
                self.tell("rejection", data=data)
            self.news.set()
        elif kind == "game_update":
            self.tell("game_update", valid=valid, length=len(frame), data=data if len(frame) < 10_000 else None)
        else:
            self.tell("complaint" if kind == "error" else kind, valid=valid, frame=message)
            if kind == "heartbeat" and self.answers:
                await self.say("heartbeat_response")

    async def beat(self):
        """The original sleeps first, and nobody looks for the answer."""
        while True:
            await asyncio.sleep(self.heartbeat)
            await self.say("heartbeat")

    def envelope(self, kind, data, signs=None, claims=None, age=0):
        return envelope(Keys(signs) if signs else self.keys, kind, data, age, claims or self.keys.address)

    async def say(self, kind="heartbeat", data={}, **how):
        try:
            await self.socket.send(self.envelope(kind, data, **how))
        except ConnectionClosed:
            pass

    async def predict(self, ids, again=False, **how):
        """`again`: the frames of these ids byte for byte."""
        for id in ids:
            if not again:
                self.sent[id] = self.envelope("prediction", prediction(id), **how)
            try:
                await self.socket.send(self.sent[id])
            except ConnectionClosed:
                pass  # said, as far as its application knows

    async def burst(self, n, name="g", first=0, **how):
        await self.predict([f"{name}{i}_1" for i in range(first, first + n)], **how)

    async def rapid(self, n, games, by_post=False):
        """So many different predictions of so many games in one second, called as the published miners call them: by the game
        and the second."""
        for i in range(n):
            id = f"g{i % games}_1795213203"
            frame = self.envelope("prediction", {**prediction(id), "home_score": i})
            if by_post:
                await self.post(id, body=frame)
            else:
                await self.socket.send(frame)
        deadline = time.monotonic() + 20
        while sum(map(len, self.confirmed.values())) < n and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        self.tell("confirmed", said={id: [data["message"] for data in said] for id, said in self.confirmed.items()})

    def missing(self):
        return [id for id in self.sent if id not in self.confirmed]

    async def collected(self, seconds):
        deadline = time.monotonic() + seconds
        while self.missing() and time.monotonic() < deadline:
            self.news.clear()
            try:
                await asyncio.wait_for(self.news.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        return not self.missing()

    async def collect(self, seconds=10):
        """Waits until everything sent is confirmed, and tells the sum."""
        await self.collected(seconds)
        counts = [len(said) for said in self.confirmed.values()]
        sums = {"invalid": self.invalid, "unsigned": self.unsigned, "foreign": self.foreign}
        ids = {"sent": len(self.sent), "missing": self.missing(), "unknown": len(self.confirmed.keys() - self.sent)}
        said = {id: [data["status"], data["message"]] for id, (*_, data) in self.confirmed.items()}
        self.tell("collected", **ids, confirmed=len(counts), doubled=sum(n > 1 for n in counts), **sums, said=said)

    async def steady(self, n=5):
        """Burst after burst, each collected, until told to rest, and three at least."""
        self.stop = False
        self.start(self.go_on(n))

    async def go_on(self, n):
        rounds, slowest = 0, 0
        while rounds < 3 or not self.stop:
            began = time.monotonic()
            await self.burst(n, "s", rounds * n)
            if not await self.collected(10):
                break
            rounds, slowest = rounds + 1, max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.05)
        self.tell("rested", rounds=rounds, slowest=round(slowest, 3), missing=len(self.missing()), invalid=self.invalid)

    async def rest(self):
        self.stop = True

    async def stay(self):
        """Reconnects for ever with the original's back-off: min(base · 2^failures, cap), no jitter."""
        self.start(self.return_for_ever())

    async def return_for_ever(self):
        failures = 0
        while True:
            if self.socket is None or self.socket.close_code is not None:
                if await self.connect(quiet=True):
                    failures = 0
                    if self.resends:  # the original does not
                        await self.predict(self.missing())
                else:
                    pause = min(self.base * 2**failures, self.cap)
                    failures += 1
                    self.tell("backing off", pause=pause)
                    await asyncio.sleep(pause)
                    continue
            await self.socket.wait_closed()

    async def post(self, id, again=False, to="/ws/messages", body=None, **how):
        """An envelope by HTTP; the answer should be a signed confirmation."""
        if not again and body is None:
            self.sent[id] = self.envelope("prediction", prediction(id), **how)
        body = (body or self.sent[id]).encode()
        head = f"POST {to} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
        status, headers, answer = await self.request(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        message = json.loads(answer) if answer.startswith(b"{") else {}
        valid = is_by(message, message["sender"]) if "sender" in message else None
        if message.get("type") == "confirmation":
            self.confirmed.setdefault(message["data"]["prediction_id"], []).append(message["data"])
        self.tell("posted", status=status, headers=headers, frame=message, valid=valid)

    async def post_data(self, data):
        await self.post(None, body=self.envelope("prediction", data))

    async def get(self, path="/ws/health"):
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        status, headers, answer = await self.request(head.encode())
        self.tell("got", status=status, headers=headers, body=answer.decode())

    async def request(self, text):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(self.source, 0))
        writer.write(text)
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        return int(lines[0].split(" ")[1]) if lines[0] else 0, headers, body

    async def raw(self, text=None, size=None, binary=None):
        """One frame: this text, so many bytes of text, or so many of a binary one."""
        try:
            await self.socket.send(bytes(binary) if binary else text if text is not None else "a" * size)
        except ConnectionClosed:
            pass

    async def pause(self):
        self.socket.transport.pause_reading()

    async def resume(self):
        self.socket.transport.resume_reading()

    async def close(self, code=1000):
        await self.socket.close(code)
        self.end()

    async def abort(self):
        """Gone without a close frame."""
        self.socket.transport.abort()
        self.end()

    def end(self):
        for task in self.tasks:
            if task is not asyncio.current_task() and task.get_coro().__name__ != "read":
                task.cancel()
        self.tasks = []

    async def to(self, port):
        self.port = port

    async def reconnect(self, times, abruptly=False, n=0):
        """So often in a row, and each time the connection must be good for `n` predictions and a heartbeat."""
        good = 0
        for i in range(times):
            await (self.abort() if abruptly else self.close())
            if not await self.connect(quiet=True):
                break
            await self.burst(n, f"r{i}x")
            if not await self.collected(5):
                break
            good += 1
        self.tell("reconnected", good=good, missing=len(self.missing()))


async def commands(lines):
    miners = {}
    while True:
        line = json.loads(await told(lines))
        deed, name = line.pop("do"), line.pop("as", "m")
        if deed == "miner":
            miners[name] = Miner(name, **line)
            tell("ready", address=miners[name].keys.address)
        elif deed == "together":  # the same deed by several at once
            deed, names = line.pop("what"), line.pop("who")
            await asyncio.gather(*(getattr(miners[name], deed)(**line) for name in names))
        else:
            await getattr(miners[name], deed)(**line)


run({"commands": commands})
