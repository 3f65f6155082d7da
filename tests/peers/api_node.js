// Plays Gonka's API node with the library `ws`: dials the ML node of the first argument and acknowledges its batches,
// the second one in fragments. permessage-deflate is offered, as the library does by default.
const WebSocket = require("ws");
const tell = (saw, more) => console.log(JSON.stringify({ saw, ...more }));

const peer = new WebSocket(process.argv[2]);
let batches = 0;
peer.on("open", () => tell("open", { extensions: peer.extensions, subprotocol: peer.protocol }));
peer.on("message", (data, binary) => {
  const frame = JSON.parse(data.toString());
  if (frame.type === "keepalive") return;
  tell("batch", { text: !binary, ...frame });
  const ack = JSON.stringify({ type: "ack", id: frame.id });
  if (++batches === 2) {
    peer.send(ack.slice(0, 10), { fin: false });
    peer.send(ack.slice(10), { fin: true });
  } else {
    peer.send(ack);
  }
  if (batches === 3) peer.ping();
});
peer.on("pong", () => tell("pong"));
peer.on("close", (code) => tell("closed", { code }));
peer.on("error", (error) => tell("error", { what: String(error) }));
process.stdin.on("end", () => process.exit(0)).resume();
