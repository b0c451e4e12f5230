// The page: a client of /ws on the left, a backend on the right.
// index.html lists the ids and attributes that tests rely on.

import { apiKey, devToken, enterDevMode } from "./api.js";
import { $, element, json, sentence, write } from "./dom.js";
import { watchOnline } from "./online.js";
import "./push.js";
import { Rollcall } from "./rollcall.js";

const LOG_CAP = 200; // entries; the oldest go first

let rollcall = null; // the connection, or the last one
let refs = 0;
let reachable = false;

// Connection

function connect(token) {
  rollcall?.close();
  rollcall = new Rollcall({ token, ack: true });
  rollcall.addEventListener("status", ({ detail }) => showStatus(detail));
  rollcall.addEventListener("frame", ({ detail }) => log(detail));
  rollcall.on("rollcall:reachable", () => {
    reachable = true;
    showWelcome();
  });
  rollcall.connect();
}

function connectAs(user) {
  // The address keeps the user, for a reload or a copy of it.
  history.replaceState(null, "", `?${new URLSearchParams({ user })}`);
  document.title = `${user || "anonymous"} – Rollcall`;
  connect(user ? ({ signal }) => devToken(user, signal) : null);
}

$("connection").addEventListener("submit", (submit) => {
  submit.preventDefault();
  if ($("user-field").hidden) connect($("token").value.trim());
  else connectAs($("user").value);
});

$("disconnect").addEventListener("click", () => {
  rollcall.close();
  history.replaceState(null, "", location.pathname);
  document.title = "Rollcall";
});

function showStatus(detail) {
  const { status, delay, welcome } = detail;
  const words = {
    connecting: "Connecting",
    open: "Connected",
    waiting: comingBackWords(delay),
    closed: "Not connected",
  };
  write($("status"), words[status]);
  $("status").dataset.status = status;
  // The reason for the last end still stands while the next attempt runs.
  if (status !== "connecting") write($("why"), whyWords(detail));
  $("why").classList.toggle("problem", status === "closed");
  $("send").disabled = status !== "open";
  reachable = welcome?.reachable ?? false;
  showWelcome();
  showButtons(status === "closed");
}

// Nothing counts down here, so a long wait is shown as a time of day.
function comingBackWords(delay) {
  if (delay < 100) return "Coming back";
  if (delay < 10_000) return `Coming back in ${(delay / 1000).toFixed(1)} s`;
  const at = new Date(Date.now() + delay);
  return `Coming back at ${at.toLocaleTimeString([], { hourCycle: "h23" })}`;
}

function whyWords({ status, code, reason }) {
  if (status === "open" || code === 1000) return "";
  if (code === 1006) return reason ? sentence(reason) : "The connection was lost.";
  const why = reason ? `: ${reason}` : "";
  if (status === "closed") return `The server closed this socket for good (${code})${why}.`;
  return `Closed with ${code}${why}.`;
}

function showWelcome() {
  const { welcome } = rollcall;
  const { socket, user, instance } = welcome ?? {};
  write($("welcome-socket"), socket ?? "–");
  write($("welcome-user"), welcome ? (user ?? "anonymous") : "–");
  write($("welcome-instance"), instance ?? "–");
  const reach = reachable ? "from every instance" : "not from everywhere yet";
  write($("welcome-reachable"), welcome ? reach : "–");
  for (const name of Object.keys($("welcome").dataset)) delete $("welcome").dataset[name];
  if (welcome) Object.assign($("welcome").dataset, { socket, user: user ?? "", instance, reachable });
}

function showButtons(apart) {
  const focused = [$("connect"), $("disconnect")].includes(document.activeElement);
  $("connect").hidden = !apart;
  $("disconnect").hidden = apart;
  $("user").readOnly = $("token").readOnly = !apart;
  $("another").hidden = apart || $("user-field").hidden;
  $("another").href = location.search;
  if (focused) $(apart ? "connect" : "disconnect").focus();
}

// Frames, out and in

$("sending").addEventListener("submit", (submit) => {
  submit.preventDefault();
  try {
    rollcall.send($("event").value, json($("data")), { ref: String(++refs) });
    write($("send-problem"), "");
  } catch (error) {
    write($("send-problem"), error.message);
  }
});

function log({ event, data, id, ref }) {
  const now = new Date();
  const text = JSON.stringify(data) ?? "";
  const entry = element(
    "li",
    { "data-event": event, "data-data": text },
    element("time", { datetime: now.toISOString() }, clock(now)),
    element("bdi", { class: "name" }, event),
    element("code", {}, text),
  );
  if (ref !== undefined) {
    entry.dataset.ref = ref;
    entry.append(element("span", { class: "mark" }, `ref ${ref}`));
  }
  if (id !== undefined) {
    entry.dataset.id = id;
    entry.append(element("span", { class: "mark", title: id }, `id ${id}`));
  }
  $("log").prepend(entry);
  while ($("log").childElementCount > LOG_CAP) $("log").lastElementChild.remove();
  $("log-empty").hidden = true;
}

$("clear").addEventListener("click", () => {
  $("log").replaceChildren();
  $("log-empty").hidden = false;
});

const clock = (time) =>
  time.toLocaleTimeString([], { hourCycle: "h23" }) + "." + String(time.getMilliseconds()).padStart(3, "0");

// Beginning

const dev = await enterDevMode();
$("user-field").hidden = !dev;
$("token-field").hidden = dev;
const keyed = dev && apiKey() !== "";
if (!keyed) $("presence").before($("key")); // at the top: nothing below works without a key
const source = keyed ? "Filled in by dev mode. It" : "It stays in this field and";
write($("key-note"), `${source} is not stored.`);

const lookNow = watchOnline((user) => {
  $("push-user").value = user;
  $("push").focus(); // in view, and on a phone without the keyboard in the way
});
$("keying").addEventListener("change", lookNow);
$("keying").addEventListener("submit", (submit) => submit.preventDefault());

const asked = new URLSearchParams(location.search);
if (dev && asked.has("user")) {
  $("user").value = asked.get("user");
  $("push-user").value = asked.get("user");
  connectAs($("user").value);
}
