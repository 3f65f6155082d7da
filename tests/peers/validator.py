"""Plays Bettensor's validator as the original behaves: checks every signature, confirms a prediction only behind its next
other frame, answers what it does not know with an error, knows one path and nothing of HTTP fallback.

Its faults are the arguments of `Validator`; in the scenario "told", the first line of its input names them. It first tells
the port it serves on and its own address."""

import asyncio
import json
import time
from datetime import datetime, timezone

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import run, tell, told
from signed import Keys, envelope, is_by, moment

KEYS = Keys("0b" * 32)
UNTRUE = "Invalid message signature or structure"


def signed(kind, data):
    """Starlette's spelling."""
    return envelope(KEYS, kind, data, compact=True)


class Validator:
    def __init__(
        self,
        heartbeat=0.3,  # seconds; 60 in the original
        registered=True,  # else everybody is refused with 1008
        prompt=False,  # confirmations do not wait for the next frame
        bursts_kill=False,  # two confirmations in the queue, and the sender is dead: nothing leaves any more
        forgets=False,  # the end of an old connection takes the new one of its hotkey out of the books
        credulous=False,  # no signature, time or registration is looked at
        drops=0,  # of so many frames it loses one
        silent=False,  # a heartbeat_response is no error
        repeats=True,  # a game update that equals the last one is sent
    ):
        self.heartbeat, self.registered, self.prompt, self.bursts_kill = heartbeat, registered, prompt, bursts_kill
        self.forgets, self.credulous, self.drops, self.silent = forgets, credulous, drops, silent
        self.repeats, self.last, self.seen = repeats, None, 0
        self.active = {}
        self.dead = set()  # connections whose sender is dead; the library answers pings there

    async def refuse(self, peer, message, reason):
        await peer.send(json.dumps({"status": "error", "message": message}))
        await peer.close(1008, reason)
        tell("refused", reason=reason)

    async def handler(self, peer):
        try:
            await self.visit(peer)
        except ConnectionClosed:
            pass
        closed = peer.protocol.close_rcvd
        tell("closed", code=closed.code if closed else None)

    async def visit(self, peer):
        tell("open", path=peer.request.path, extensions=[str(e) for e in peer.protocol.extensions])
        first = await peer.recv()
        auth = json.loads(first)
        if not self.credulous:
            age = datetime.now(timezone.utc) - datetime.fromisoformat(auth["timestamp"])
            whole = sorted(auth) == ["hotkey", "nonce", "signature", "timestamp"] and isinstance(first, str)
            if not whole or abs(age.total_seconds()) > 300 or not is_by(auth, auth["hotkey"]):
                return await self.refuse(peer, "Invalid authentication", "Invalid authentication")
            if not self.registered:
                return await self.refuse(peer, "Hotkey not registered in metagraph", "Unregistered hotkey")
        hotkey = auth["hotkey"]
        tell("auth", hotkey=hotkey, nonce=auth["nonce"])
        old = self.active.get(hotkey)
        self.active[hotkey] = peer
        if old:
            await old.close(1000, "New connection established")
        await peer.send(signed("welcome", {"message": "Connection established", "status": "success"}))
        pending, nonces = [], set()
        beats = asyncio.create_task(self.beat(peer, hotkey, pending))
        try:
            async for text in peer:
                await self.take(peer, hotkey, text, pending, nonces)
        finally:
            beats.cancel()
            if self.forgets or self.active.get(hotkey) is peer:
                self.active.pop(hotkey, None)

    async def say(self, peer, text, pending):
        """Its one sender waits for frames like this one and does not watch the queue of confirmations: what is in it
        leaves behind the next frame."""
        if peer in self.dead:
            return
        await peer.send(text)
        if self.bursts_kill and len(pending) > 1:
            self.dead.add(peer)
            return tell("dead")
        while pending:
            await peer.send(signed("confirmation", pending.pop(0)))

    async def beat(self, peer, hotkey, pending):
        while self.active.get(hotkey) is peer:
            await self.say(peer, signed("heartbeat", {}), pending)
            await asyncio.sleep(self.heartbeat)

    async def take(self, peer, hotkey, text, pending, nonces):
        self.seen += 1
        if self.drops and self.seen % self.drops == 0:
            return tell("dropped", text=text)
        message = json.loads(text)
        six = {"type", "sender", "data", "timestamp", "nonce", "signature"} <= set(message)
        known = six and message["sender"] == hotkey and message["nonce"] not in nonces
        if not self.credulous and not (known and is_by(message, hotkey)):
            tell("complaint", message=UNTRUE, text=text)
            error = json.dumps({"type": "error", "message": UNTRUE, "timestamp": moment()})
            return await self.say(peer, error, pending)
        nonces.add(message.get("nonce"))
        kind, data = message["type"], message["data"]
        # An id is all that a confirmation names: `open` are those that are owed one.
        tell(kind, data=data, nonce=message.get("nonce"), open=[owed["prediction_id"] for owed in pending])
        if kind == "heartbeat":
            await self.say(peer, signed("heartbeat_ack", {}), pending)
        elif kind == "prediction":
            confirmation = self.confirmation(data)
            if self.prompt:
                await self.say(peer, signed("confirmation", confirmation), pending)
            else:
                pending.append(confirmation)
        elif kind != "heartbeat_ack" and not (self.silent and kind == "heartbeat_response"):
            tell("complaint", message=f"Unknown message type: {kind}")
            await self.say(peer, signed("error", {"message": f"Unknown message type: {kind}"}), pending)

    def confirmation(self, data):
        scores = "home_score" in data and "away_score" in data
        status = "success" if scores and data["home_score"] >= 0 else "error"
        return {
            "prediction_id": data["prediction_id"],
            "status": status,
            "message": f"Prediction for game {data['game_id']} {status}",
            "timestamp": moment(),
            "miner_stats": {"stake": 1000.0, "rank": 0.5, "emission": 1e-7, "name": "Zürich"},
        }

    async def obey(self, line):
        games = [{"game_id": "game-1", "team_a": "Zürich 😀", "tie_odds": 3.4, "chance": 1e-7}]
        if line == "games" and games == self.last and not self.repeats:
            return
        for peer in list(self.active.values()):
            if line == "games":
                self.last = games
                await peer.send(signed("game_update", {"games": games, "timestamp": time.time()}))
            elif line == "drop":
                peer.transport.abort()
            elif line == "stop":
                await peer.close(1000, "Server shutting down")
            else:
                raise ValueError(line)

    async def serve(self, lines):
        server = await serve(self.handler, "127.0.0.1", 0, max_size=16 << 20)
        tell("listening", port=server.sockets[0].getsockname()[1], address=KEYS.address)
        while True:
            await self.obey(await told(lines))


async def as_it_is(lines):
    await Validator().serve(lines)


async def unregistered(lines):
    await Validator(registered=False).serve(lines)


async def as_told(lines):
    await Validator(**json.loads(await told(lines))).serve(lines)


run({"as it is": as_it_is, "unregistered": unregistered, "told": as_told})
