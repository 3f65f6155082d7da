"""Plays Bettensor's validator as the original behaves: checks every signature, confirms a prediction only with its next
heartbeat, answers what it does not know with an error, knows one path and nothing of HTTP fallback.

It first tells the port it serves on and its own address."""

import asyncio
import hashlib
import json
import time
from datetime import datetime, timezone

import sr25519
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from common import run, tell, told

DIGITS = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
HEARTBEAT = 0.3  # seconds; 60 in the original

KEYS = sr25519.pair_from_seed(bytes([11]) * 32)


def checksum(bare):
    return hashlib.blake2b(b"SS58PRE" + bare, digest_size=64).digest()[:2]


def to_address(key):
    bare = bytes([42]) + key
    number, text = int.from_bytes(bare + checksum(bare), "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = DIGITS[digit] + text
    return text


def from_address(address):
    number = 0
    for digit in address:
        number = number * 58 + DIGITS.index(digit)
    raw = number.to_bytes(35, "big")
    assert raw[0] == 42 and checksum(raw[:33]) == raw[33:], address
    return raw[1:33]


ADDRESS = to_address(KEYS[0])


def canonical(message):
    return json.dumps({k: v for k, v in message.items() if k != "signature"}, sort_keys=True).encode()


def verifies(message, address):
    try:
        return sr25519.verify(bytes.fromhex(message["signature"]), canonical(message), from_address(address))
    except Exception:  # noqa: BLE001
        return False


def signed(kind, data):
    now = datetime.now(timezone.utc).isoformat()
    message = {"type": kind, "sender": ADDRESS, "data": data, "timestamp": now}
    message["nonce"] = str(time.time() * 1000)
    message["signature"] = sr25519.sign(KEYS, canonical(message)).hex()
    # Starlette's spelling.
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False)


class Validator:
    def __init__(self, registered=True):
        self.registered = registered
        self.active = {}

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
        age = datetime.now(timezone.utc) - datetime.fromisoformat(auth["timestamp"])
        whole = sorted(auth) == ["hotkey", "nonce", "signature", "timestamp"] and isinstance(first, str)
        if not whole or abs(age.total_seconds()) > 300 or not verifies(auth, auth["hotkey"]):
            return await self.refuse(peer, "Invalid authentication", "Invalid authentication")
        if not self.registered:
            return await self.refuse(peer, "Hotkey not registered in metagraph", "Unregistered hotkey")
        hotkey = auth["hotkey"]
        tell("auth", hotkey=hotkey, nonce=auth["nonce"])
        if hotkey in self.active:
            await self.active[hotkey].close(1000, "New connection established")
        self.active[hotkey] = peer
        await peer.send(signed("welcome", {"message": "Connection established", "status": "success"}))
        pending, nonces = [], set()
        beats = asyncio.create_task(self.beat(peer, pending))
        try:
            async for text in peer:
                await self.take(peer, hotkey, text, pending, nonces)
        finally:
            beats.cancel()
            if self.active.get(hotkey) is peer:
                del self.active[hotkey]

    async def beat(self, peer, pending):
        """Its sender does not watch the queue of confirmations: what is in it leaves behind the next heartbeat."""
        while True:
            await peer.send(signed("heartbeat", {}))
            while pending:
                await peer.send(signed("confirmation", pending.pop(0)))
            await asyncio.sleep(HEARTBEAT)

    async def take(self, peer, hotkey, text, pending, nonces):
        message = json.loads(text)
        six = {"type", "sender", "data", "timestamp", "nonce", "signature"} <= set(message)
        if not six or message["sender"] != hotkey or message["nonce"] in nonces or not verifies(message, hotkey):
            now = datetime.now(timezone.utc).isoformat()
            tell("complaint", message="Invalid message signature or structure", text=text)
            await peer.send(
                json.dumps({"type": "error", "message": "Invalid message signature or structure", "timestamp": now})
            )
            return
        nonces.add(message["nonce"])
        kind, data = message["type"], message["data"]
        tell(kind, data=data, nonce=message["nonce"])
        if kind == "heartbeat":
            await peer.send(signed("heartbeat_ack", {}))
        elif kind == "prediction":
            scores = "home_score" in data and "away_score" in data
            status = "success" if scores and data["home_score"] >= 0 else "error"
            stats = {"stake": 1000.0, "rank": 0.5, "emission": 1e-7, "name": "Zürich"}
            pending.append(
                {
                    "prediction_id": data["prediction_id"],
                    "status": status,
                    "message": f"Prediction for game {data['game_id']} {status}",
                    "timestamp": datetime.now(timezone.utc).isoformat(),
                    "miner_stats": stats,
                }
            )
        elif kind != "heartbeat_ack":
            tell("complaint", message=f"Unknown message type: {kind}")
            await peer.send(signed("error", {"message": f"Unknown message type: {kind}"}))

    async def obey(self, line):
        for peer in list(self.active.values()):
            if line == "games":
                games = [{"game_id": "game-1", "team_a": "Zürich 😀", "tie_odds": 3.4, "chance": 1e-7}]
                await peer.send(signed("game_update", {"games": games, "timestamp": time.time()}))
            elif line == "drop":
                peer.transport.abort()
            elif line == "stop":
                await peer.close(1000, "Server shutting down")
            else:
                raise ValueError(line)

    async def serve(self, lines):
        server = await serve(self.handler, "127.0.0.1", 0, max_size=16 << 20)
        tell("listening", port=server.sockets[0].getsockname()[1], address=ADDRESS)
        while True:
            await self.obey(await told(lines))


async def as_it_is(lines):
    await Validator().serve(lines)


async def unregistered(lines):
    await Validator(registered=False).serve(lines)


run({"as it is": as_it_is, "unregistered": unregistered})
