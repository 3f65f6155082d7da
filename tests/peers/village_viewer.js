// A viewer of AI Village's with the library `ws`, at the URL of the first argument: subscribes, looks, says a wrong word.
const WebSocket = require("ws");
const tell = (saw, more) => console.log(JSON.stringify({ saw, ...more }));

const viewer = new WebSocket(process.argv[2]);
let seen = 0;
viewer.on("message", (data, binary) => {
  const frame = JSON.parse(data.toString());
  if (binary) tell("error", { what: "a binary frame" });
  switch (frame.type) {
    case "connection_established":
      tell("established", { keys: Object.keys(frame) });
      viewer.send(JSON.stringify({ type: "subscribe", topic: "training" }));
      break;
    case "custom":
      tell("answer", frame.data);
      break;
    case "training_progress":
      tell("progress", { epoch: frame.data.current_epoch });
      if (++seen === 3) viewer.send(JSON.stringify({ type: "ping" }));
      break;
    case "pong":
      tell("pong");
      viewer.send("{nope");
      break;
    case "error":
      console.log(JSON.stringify({ ...frame.data, saw: "complaint" }));
      break;
  }
});
viewer.on("close", (code) => tell("closed", { code }));
viewer.on("error", (error) => tell("error", { what: String(error) }));
process.stdin.on("end", () => process.exit(0)).resume();
