"""Refuses everybody, as servers of Python do, each in the words of its library: `websockets` accepts and closes with 1008 and
a text, `http.server` answers every request with 403 and a body of three kilobytes. It tells the port of either.

Its first argument is "plain", or "tls", with the files of a certificate and of its key behind it. What does not speak as it
does gets nothing but the end of its connection, except from `http.server` without TLS, which answers with a page."""

import asyncio
import http.server
import json
import ssl
import sys
import threading

from websockets.asyncio.server import serve

from common import run, tell

TEXT = "PoW läuft\nnicht"
BODY = json.dumps({"error": "not while PoC is off, " + "so " * 1_000}).encode()


class Forbids(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(403)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_):
        pass  # who asked is gone


async def refuse(context=None):
    async def closes(peer):
        await peer.close(1008, TEXT)

    server = await serve(closes, "127.0.0.1", 0, ssl=context)
    forbids = Server(("127.0.0.1", 0), Forbids)
    if context:
        forbids.socket = context.wrap_socket(forbids.socket, server_side=True)
    threading.Thread(target=forbids.serve_forever, daemon=True).start()
    tell("websockets", port=server.sockets[0].getsockname()[1])
    tell("http.server", port=forbids.server_port)
    await asyncio.Event().wait()


async def plain(lines):
    await refuse()


async def tls(lines):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*sys.argv[2:])
    await refuse(context)


run({f.__name__: f for f in (plain, tls)})
