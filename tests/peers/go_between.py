"""Stands between two peers, whatever they speak. The first line of its input is the port of the one behind it; it tells the
port of its own. Then one of these a line: "pass"; "rate BYTES", a second and each way; "portal", which answers every request
with 200 and a page; "status CODE", which refuses every request with it. Who answers in the place of the peer cuts what it
passed on before."""

import asyncio

from common import run, tell, told

PAGE = b"<html><body>Log in to the WiFi</body></html>"


async def between(lines):
    target, mode, live = int(await told(lines)), ["pass"], set()

    async def pipe(reader, writer):
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
                if mode[0] == "rate":
                    await asyncio.sleep(len(data) / int(mode[1]))
        except OSError:
            pass
        writer.close()

    async def answer(reader, writer):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return writer.close()
        tell("refused", request=head.split(b"\r\n")[0].decode())
        if mode[0] == "portal":
            head, body = b"200 OK\r\nContent-Type: text/html", PAGE
        else:
            head, body = f"{mode[1]} Sorry".encode(), b""
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (head, len(body), body))
        await writer.drain()
        await asyncio.sleep(0.2)  # what the other one still says is read by nobody
        writer.close()

    async def connection(reader, writer):
        if mode[0] in ("portal", "status"):
            return await answer(reader, writer)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, limit=4096)
        except OSError:
            return writer.close()
        tell("passed")
        live.update((writer, far_writer))
        await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))
        live.difference_update((writer, far_writer))

    server = await asyncio.start_server(connection, "127.0.0.1", 0, limit=4096)
    tell("listening", port=server.sockets[0].getsockname()[1])
    while True:
        mode = (await told(lines)).split()
        if mode[0] in ("portal", "status"):
            for writer in list(live):
                writer.transport.abort()
        tell("mode", is_now=mode)


run({f.__name__: f for f in (between,)})
