"""Plays AI Village's event service as the original behaves: greets at once, pings by messages of its own and gives up whoever
answers none, never heard of subscriptions, forgets a client with its connection.

Times are a hundredth of the original's. In the scenario "history" it is a hub that keeps what it published, as ours does;
in the scenario "sibling" it is the `websocket_manager.py` of the same repository, which knows channels and flat frames.
In the scenario "binary" the original sends its JSON in binary frames, as a library may that is given bytes.
It first tells the port it serves on; then each line of its input is a JSON list: a word and what belongs to it."""

import asyncio
import json
import uuid
from datetime import datetime

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import run, tell, told

TOPICS = {"/ws": ["training", "models", "system"], "/ws/p2p-fog": ["p2p", "fog"]}
FEATURES = ["real_time_training_updates", "model_lifecycle_events", "topic_subscriptions"]
KNOWN = """connection_established connection_closed ping pong training_started training_progress training_completed
training_error model_created model_updated model_deleted status_update error p2p_status p2p_peer_update fog_resources
fog_marketplace custom""".split()


def now():
    return datetime.now().isoformat()  # local, and without a zone


class Client:
    def __init__(self, peer, binary=False):
        self.peer, self.id, self.mute, self.binary = peer, str(uuid.uuid4()), False, binary
        self.topics = list(TOPICS.get(peer.request.path, []))
        self.heard = asyncio.get_running_loop().time()

    async def send(self, kind, data, **more):
        if self.mute:
            return
        message = {"type": kind, "data": data, "timestamp": now(), "connection_id": self.id, "target_connections": None}
        try:
            text = json.dumps({**message, **more}, separators=(",", ":"), ensure_ascii=False)
            await self.peer.send(text.encode() if self.binary else text)
        except (ConnectionClosed, TypeError) as error:
            self.mute = True
            tell("mute", why=type(error).__name__)


class Village:
    def __init__(self, ping=0.3, dead=3.0, history=False, binary=False):
        self.ping, self.dead, self.clients, self.sessions = ping, dead, {}, {}
        self.binary = binary
        self.history = {} if history else None  # by topic: epoch, events from the first offset on
        self.first = {}

    async def handler(self, peer):
        client = Client(peer, self.binary)
        self.clients[client.id] = client
        tell("open", path=peer.request.path, extensions=[str(e) for e in peer.protocol.extensions])
        data = {"connection_id": client.id, "server_time": now(), "features": FEATURES}
        await client.send("connection_established", data)
        try:
            async for text in peer:
                await self.take(client, text)
        except ConnectionClosed:
            pass
        self.clients.pop(client.id, None)
        closed = peer.protocol.close_sent or peer.protocol.close_rcvd
        tell("closed", code=closed.code if closed else None)

    async def take(self, client, text):
        assert isinstance(text, str), "a binary frame: the original's handler dies here"
        try:
            message = json.loads(text)
        except ValueError:
            return await client.send("error", {"error": "Invalid JSON"})
        kind = message.get("type", "custom")
        tell(kind, message=message, client=client.id)
        if self.history is not None and kind == "subscribe":
            return await self.subscribe(client, message["topic"], message.get("since"))
        if kind not in KNOWN:
            return  # logged and dropped: this is where subscribe and unsubscribe end
        client.heard = asyncio.get_running_loop().time()
        if kind == "ping":
            await client.send("pong", {"server_time": now()})
        elif kind == "custom":
            status = {"type": "training_status", "active_sessions": list(self.sessions), "session_details": self.sessions}
            await client.send("status_update", status)

    async def subscribe(self, client, topic, since):
        client.topics.append(topic)
        await client.send("custom", {"type": "subscription_response", "topic": topic, "success": True})
        if since in (None, "now"):
            return
        first, events = self.first.get(topic, 1), self.history.get(topic, [])
        after = 0 if since == "oldest" else since["offset"]
        if after + 1 < first:
            gap = {"type": "gap", "topic": topic, "epoch": 7, "from": after + 1, "to": first - 1}
            await client.send("custom", gap)
        for offset, (kind, data) in enumerate(events, first):
            if offset > after:
                await client.send(kind, data, position={"topic": topic, "epoch": 7, "offset": offset})

    async def publish(self, topic, kind, data, heard=True):
        more = {}
        if self.history is not None:
            events = self.history.setdefault(topic, [])
            events.append((kind, data))
            offset = self.first.get(topic, 1) + len(events) - 1
            more = {"position": {"topic": topic, "epoch": 7, "offset": offset}}
        for client in list(self.clients.values()):
            if topic in client.topics and heard:
                await client.send(kind, data, **more)

    async def beat(self):
        while True:
            await asyncio.sleep(self.ping)
            for client in list(self.clients.values()):
                await client.send("ping", {"server_time": now()})
                if client.mute or asyncio.get_running_loop().time() - client.heard > self.dead:
                    self.clients.pop(client.id, None)
                    await client.peer.close(1000)

    async def obey(self, word, *rest):
        if word == "publish":
            await self.publish(*rest)
        elif word == "unheard":  # it is published, and lost on the way
            await self.publish(*rest, heard=False)
        elif word == "away":  # everybody is, while this is published, and the oldest so many of it are forgotten
            topic, events, count = rest
            for client in self.clients.values():
                client.peer.transport.abort()
            self.clients.clear()
            for kind, data in events:
                await self.publish(topic, kind, data)
            self.first[topic] = self.first.get(topic, 1) + count
            del self.history[topic][:count]
        elif word == "train":  # with a date, which nothing can write
            self.sessions["sess-1"] = {"started_at": datetime.now()}
            tell("training")
        else:
            for client in list(self.clients.values()):
                if word == "raw":
                    await client.peer.send(rest[0])
                elif word == "drop":
                    client.peer.transport.abort()
                elif word == "close":
                    await client.peer.close(1000)
                else:
                    raise ValueError(word)

    async def serve(self, lines):
        server = await serve(self.handler, "127.0.0.1", 0, max_size=16 << 20)
        beat = asyncio.create_task(self.beat())
        tell("listening", port=server.sockets[0].getsockname()[1])
        while not beat.done():
            await self.obey(*json.loads(await told(lines)))
        beat.result()


class Manager(Village):
    """`api/websocket_manager.py`: everything at the top, `channel`, no ping of its own; what it does not know it ignores."""

    async def handler(self, peer):
        client = Client(peer)
        client.topics, self.clients[client.id] = [], client
        tell("open", path=peer.request.path, extensions=[str(e) for e in peer.protocol.extensions])
        say = lambda message: peer.send(json.dumps(message, separators=(",", ":")))
        await say({"type": "connection_established", "client_id": client.id, "timestamp": now()})
        try:
            async for text in peer:
                message = json.loads(text)
                kind, channel = message.get("type"), message.get("channel")
                tell(kind, message=message)
                if kind == "subscribe" and channel:
                    client.topics.append(channel)
                    await say({"type": "subscription_confirmed", "channel": channel})
                elif kind == "ping":
                    await say({"type": "pong", "timestamp": now()})
        except ConnectionClosed:
            pass
        self.clients.pop(client.id, None)

    async def publish(self, topic, kind, data, heard=True):
        for client in list(self.clients.values()):
            if topic in client.topics:
                message = {"type": kind, **data, "channel": topic, "timestamp": now()}
                await client.peer.send(json.dumps(message, separators=(",", ":")))

    async def beat(self):
        await asyncio.Future()


async def as_it_is(lines):
    await Village().serve(lines)


async def binary(lines):
    await Village(binary=True).serve(lines)


async def sibling(lines):
    await Manager().serve(lines)


async def with_history(lines):
    await Village(history=True).serve(lines)


run({"as it is": as_it_is, "binary": binary, "history": with_history, "sibling": sibling})
