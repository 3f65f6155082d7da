// Follows the trainings of a hub: what it tells, in order, once, across lost connections and restarts of the hub.
//
//   connecting ─▶ greeted ─▶ subscribe since … ─▶ live: events with positions, gaps ─▶ away ─▶ 3–5 s, drawn anew ─▶ …
//
// What it relies on is section 7 of PROTOCOL.md. `?retry=20-60` in the address sets the pause in milliseconds.
"use strict";

const TOPICS = ["training", "models", "system"];
// So long without a frame, with a ping of the hub's every 30 s: the connection is dead, whatever the browser thinks.
const DEAD = 90_000;
// A hub that has not answered a subscription by then keeps no history: the original.
const UNANSWERED = 10_000;
// What is kept: points of a curve, trainings, lines of the log, events for `window.seen`.
const POINTS = 400, TRAININGS = 20, LINES = 12, EVENTS = 10_000;

const retry = /^(\d{1,6})-(\d{1,6})$/.exec(new URLSearchParams(location.search).get("retry") ?? "") ?? [0, 3000, 5000];
const $ = (id) => document.getElementById(id);

// What this page has seen, for tests and the curious.
const seen = { state: "away", connections: 0, count: 0, missed: 0, copies: 0, pings: 0, unknown: 0, events: [], gaps: [], errors: [] };
window.seen = seen;
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(`${event.violatedDirective}: ${event.blockedURI}`));

// Of each topic the last position, kept over connections.
const last = new Map();
const trainings = new Map();

// ---- The connection ----

let socket = null, timer = 0, heard = 0;
// Of this connection: subscriptions without an answer, events that came before any position could.
let unanswered = new Set(), held = [];
// Where something was left out last.
let hole = "";

function connect() {
  clearTimeout(timer);
  show("connecting", "connecting …");
  const mine = new WebSocket(new URL("/ws", location.href.replace(/^http/, "ws")));
  socket = mine;
  heard = Date.now();
  [unanswered, held] = [new Set(), []];
  mine.onmessage = (event) => {
    if (socket !== mine) return;
    heard = Date.now();
    let frame = null;
    try { frame = JSON.parse(event.data); } catch { /* not ours */ }
    if (frame === null || typeof frame !== "object") seen.unknown++;
    else read(frame);
  };
  mine.onclose = (event) => { if (socket === mine) away(event.reason); };
}

// The connection has ended: a hub that goes down in order says when to come back.
function away(reason = "") {
  const told = Number(/^retry-after=(\d{1,5})/.exec(reason)?.[1] ?? 0) * 1000;
  const [least, most] = [Number(retry[1]), Number(retry[2])];
  const pause = Math.max(told, least + Math.random() * Math.max(0, most - least));
  socket?.close();
  socket = null;
  show("away", `not connected, again in ${Math.ceil(pause / 1000)} s`);
  timer = setTimeout(connect, pause);
}

setInterval(() => { if (socket && Date.now() - heard > DEAD) away(); }, 5000);
addEventListener("online", () => { if (!socket) connect(); });

function say(what) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(what));
}

// Behind the last that came; at first, all there is.
function subscribe(topic) {
  say({ type: "subscribe", topic, since: last.get(topic) ?? "oldest" });
}

// ---- What comes ----

function read(frame) {
  const { type, position } = frame;
  const data = frame.data !== null && typeof frame.data === "object" ? frame.data : {};
  if (type === "connection_established") return greeted();
  if (type === "ping") { seen.pings++; return say({ type: "pong" }); }
  if (type === "pong") return;
  if (type === "error") return log(`the hub says: ${data.error}`);
  if (type === "custom" && data.type === "subscription_response") return answered(data);
  if (type === "custom" && data.type === "gap") return gap(data);
  if (position !== null && typeof position === "object") placed(type, data, position);
  // The hub subscribes us by itself, too: what comes before it knows where we are comes again, with its place.
  else if (unanswered.size > 0) { if (held.length < EVENTS) held.push([type, data]); }
  else event(type, data, null);
}

function greeted() {
  seen.connections++;
  $("connections").textContent = seen.connections;
  unanswered = new Set(TOPICS);
  TOPICS.forEach(subscribe);
  const mine = socket;
  setTimeout(() => { if (socket === mine && unanswered.size > 0) { unanswered.clear(); live(); } }, UNANSWERED);
}

function answered({ topic, success }) {
  if (!success) log(`the hub does not let us follow ${topic}`);
  if (unanswered.delete(topic) && unanswered.size === 0) { held = []; live(); }
}

function live() {
  show("live", "live");
  for (const [type, data] of held.splice(0)) event(type, data, null);
}

// An event with its place: once, and none left out without a word.
function placed(type, data, { topic, epoch, offset }) {
  const before = last.get(topic);
  if (before?.epoch === epoch) {
    if (offset <= before.offset) { seen.copies++; return; }
    if (offset > before.offset + 1) {
      // Left out without a word: asked for again on another connection. If it is left out there as well, it is lost.
      const here = `${topic} ${epoch} ${before.offset}`;
      if (hole !== here) { hole = here; return away(); }
      missed(topic, epoch, before.offset + 1, offset - 1);
    }
  }
  last.set(topic, { epoch, offset });
  event(type, data, { topic, epoch, offset });
}

function gap({ topic, epoch, from, to }) {
  const before = last.get(topic);
  last.set(topic, { epoch, offset: to });
  missed(topic, epoch, from, to, before !== undefined && before.epoch !== epoch);
}

// These have passed and will not come. After a restart nobody knows what the last hub had left.
function missed(topic, epoch, from, to, restarted = false) {
  const count = Math.max(0, to - from + 1);
  seen.gaps.push({ topic, epoch, from, to, restarted });
  seen.missed += count;
  const events = `${count} ${count === 1 ? "event" : "events"} missed`;
  const words = restarted
    ? `the hub has started anew, what it told last may be missing${count ? `, and ${events} since` : ""}`
    : `${events} (${from} to ${to})`;
  $("missed").textContent = `${topic}: ${words}`;
  $("missed").hidden = false;
  $("lost").textContent = seen.missed;
  log(`${topic}: ${words}`);
}

function event(type, data, position) {
  seen.count++;
  seen.events.push({ type, data, position });
  if (seen.events.length > EVENTS) seen.events.shift();
  $("events").textContent = seen.count;
  if (position) $("position").textContent = `${position.topic} ${position.offset}`;
  const draw = KNOWN[type];
  if (draw) draw(training(String(data.session_id)), data);
  else { seen.unknown++; log(type); }
}

// ---- What is shown ----

const KNOWN = {
  training_started(one, { model_type }) {
    one.points = [];
    phase(one, "running", model_type ? `training a ${model_type}` : "training");
    one.bar.value = 0;
    log(`${one.name} started`);
  },
  training_progress(one, { progress, current_epoch, loss, estimated_time_remaining }) {
    if (one.card.dataset.phase !== "running") phase(one, "running", "training");
    if (Number.isFinite(progress)) one.bar.value = Math.round(progress * 1000) / 10;
    if (Number.isFinite(loss)) curve(one, one.bar.value, loss);
    const figures = [`${one.bar.value} %`];
    if (Number.isFinite(current_epoch)) figures.push(`epoch ${current_epoch}`);
    if (Number.isFinite(loss)) figures.push(`loss ${loss.toPrecision(3)}`);
    if (Number.isFinite(estimated_time_remaining)) figures.push(`${Math.ceil(estimated_time_remaining)} s left`);
    one.figures.textContent = figures.join(" · ");
  },
  training_completed(one, { model_path }) {
    one.bar.value = 100;
    phase(one, "completed", model_path ? `completed: ${model_path}` : "completed");
    log(`${one.name} completed`);
  },
  training_error(one, { error }) {
    phase(one, "failed", `failed: ${error}`);
    log(`${one.name} failed: ${error}`);
  },
};

// The card of a training, made when it is first heard of.
function training(name) {
  let one = trainings.get(name);
  if (one) return one;
  const card = $("training").content.firstElementChild.cloneNode(true);
  const part = (selector) => card.querySelector(selector);
  one = { name, card, bar: part("progress"), line: part("polyline"), svg: part("svg"), figures: part(".figures"), points: [] };
  card.dataset.session = name;
  part("h2").textContent = name;
  one.bar.setAttribute("aria-label", `progress of ${name}`);
  trainings.set(name, one);
  $("trainings").prepend(card);
  if (trainings.size > TRAININGS) {
    const [[oldest, { card }]] = trainings;
    trainings.delete(oldest);
    card.remove();
  }
  return one;
}

function phase(one, name, words) {
  one.card.dataset.phase = name;
  one.card.querySelector(".phase").textContent = words;
}

// The losses so far over the progress, the highest on top.
function curve(one, percent, loss) {
  one.points.push([percent, loss]);
  if (one.points.length > POINTS) one.points.shift();
  const losses = one.points.map(([, loss]) => loss);
  const [low, high] = [Math.min(...losses), Math.max(...losses)];
  const y = (loss) => (high > low ? 30 - ((loss - low) * 28) / (high - low) : 16);
  one.line.setAttribute("points", one.points.map(([percent, loss]) => `${percent},${y(loss).toFixed(2)}`).join(" "));
  one.svg.setAttribute("aria-label", `loss, now ${loss.toPrecision(3)}, at most ${high.toPrecision(3)}`);
}

function show(state, words) {
  seen.state = state;
  $("state").dataset.state = state;
  $("state").textContent = words;
}

function log(words) {
  const line = document.createElement("li");
  line.textContent = `${new Date().toLocaleTimeString()}  ${words}`;
  $("log").prepend(line);
  while ($("log").children.length > LINES) $("log").lastElementChild.remove();
}

connect();
