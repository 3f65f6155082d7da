"""A viewer of AI Village's in Python: looks at training events as its front end does."""

import json

from websockets.asyncio.client import connect

from common import run, tell, told


async def frames(socket, kind, count):
    """The next so many frames of this type, whatever comes between."""
    got = []
    while len(got) < count:
        frame = json.loads(await socket.recv())
        if frame["type"] == kind:
            got.append(frame)
    return got


async def progress(socket):
    got = await frames(socket, "training_progress", 3)
    tell("got", epochs=[frame["data"]["current_epoch"] for frame in got])
    return got[-1]["position"]


async def looks(lines):
    url = await told(lines)
    async with connect(url + "/ws") as socket:
        greeting = json.loads(await socket.recv())
        keys = ["type", "data", "timestamp", "connection_id", "target_connections", "client_id"]
        assert list(greeting) == keys, greeting
        assert greeting["type"] == "connection_established", greeting
        await socket.send(json.dumps({"type": "subscribe", "topic": "training", "since": "oldest"}))
        answer = (await frames(socket, "custom", 1))[0]
        assert answer["data"] == {"type": "subscription_response", "topic": "training", "success": True}, answer
        tell("subscribed")
        last = await progress(socket)
    tell("away")
    await told(lines)
    async with connect(url + "/ws") as socket:
        since = {"epoch": last["epoch"], "offset": last["offset"]}
        await socket.send(json.dumps({"type": "subscribe", "topic": "training", "since": since}))
        await progress(socket)


async def listens(lines):
    async with connect(await told(lines) + "/ws", ping_interval=None) as socket:
        await frames(socket, "ping", 60)
        tell("pings", count=60)
        got = await frames(socket, "training_progress", 1)
        tell("got", epochs=[frame["data"]["current_epoch"] for frame in got])


run({"looks": looks, "listens": listens})
