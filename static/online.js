// Who is online: what a backend sees that asks again and again.

import { api, apiKey } from "./api.js";
import { $, attribute, element, plural, sentence, sync, write } from "./dom.js";

const PRESENCE_MS = 1_000;
const TOTALS_MS = 2_500;
const PAGE = 100; // users shown at most

let refusedKey = null; // not used again: each refusal is a line in the server's log

// watchOnline keeps the lists current, and returns a function that asks at once.
// It calls pick(user) when a user is chosen from the list.
export function watchOnline(pick) {
  const looks = [poll(() => lookAtUsers(pick), PRESENCE_MS), poll(lookAtTotals, TOTALS_MS)];
  return () => looks.forEach((look) => look());
}

// poll calls look at once, and again every so many ms after the last answer. It
// stops while the tab is hidden, and looks at once when the tab is shown again.
function poll(look, every) {
  let timer;
  let looking = false;
  const turn = async () => {
    clearTimeout(timer);
    if (looking || document.hidden) return;
    looking = true;
    await look();
    looking = false;
    timer = setTimeout(turn, every);
  };
  document.addEventListener("visibilitychange", turn);
  turn();
  return turn;
}

async function lookAtUsers(pick) {
  const key = apiKey();
  if (!key) return note("An API key shows who is online.");
  if (key === refusedKey) return;
  try {
    const { users, next, asOf, stale } = await api("GET", `/presence?limit=${PAGE}`);
    sync($("online"), users.sort(byName), (u) => u.user, (u) => userRow(u, pick), showUser);
    note(stale ? staleWords(asOf) : shownWords(users.length, next), stale);
  } catch (error) {
    if (error.status === 401) refusedKey = key;
    note(sentence(error.message), true);
  }
}

async function lookAtTotals() {
  if (!apiKey() || apiKey() === refusedKey) return;
  try {
    const [count, { instances }] = await Promise.all([
      api("GET", "/presence/count"),
      api("GET", "/instances"),
    ]);
    write($("count"), String(count.present));
    markTotals(count.stale);
    sync($("instances"), instances, (i) => i.id, instanceRow, showInstance);
  } catch {
    markTotals(true); // lookAtUsers says why
  }
}

function markTotals(stale) {
  for (const id of ["count", "instances"]) $(id).toggleAttribute("data-stale", stale);
}

// Sorted by name, not by state: a row that jumps is hard to click.
const byName = (a, b) => (a.user < b.user ? -1 : 1);

function userRow({ user }, pick) {
  const name = element("bdi", { class: "name" }, user);
  const state = element("span", { class: "state" });
  const where = element("span", { class: "where" });
  const button = element("button", { type: "button", title: `Push to ${user}` }, name, where, state);
  button.addEventListener("click", () => pick(user));
  return element("li", { "data-user": user }, button);
}

function showUser(row, { state, sockets, instances = [] }) {
  attribute(row, "data-state", state);
  attribute(row, "data-sockets", String(sockets));
  attribute(row, "data-instances", instances.join(" "));
  write(row.querySelector(".state"), state);
  write(row.querySelector(".where"), whereWords(sockets, instances));
}

function instanceRow({ id }) {
  const name = element("code", { class: "name" }, id);
  const state = element("span", { class: "state" });
  const where = element("span", { class: "where" });
  return element("li", { "data-instance": id }, name, state, where);
}

function showInstance(row, { id, host, addr, state, sockets, users }) {
  const here = id === $("welcome").dataset.instance;
  row.toggleAttribute("data-here", here);
  attribute(row, "data-state", state);
  attribute(row, "title", [host, addr].filter(Boolean).join(" "));
  write(row.querySelector(".state"), here ? `${state}, this tab` : state);
  write(row.querySelector(".where"), `${plural(sockets, "socket")}, ${plural(users, "user")}`);
}

function whereWords(sockets, instances) {
  if (sockets === 0) return "no socket";
  return [plural(sockets, "socket"), instances.join(", ")].filter(Boolean).join(" on ");
}

function shownWords(shown, next) {
  if (shown === 0) return "Nobody is here yet.";
  return next ? `The first ${shown} are shown.` : "";
}

function staleWords(asOf) {
  const at = new Date(asOf).toLocaleTimeString();
  return `Redis is out of reach. What this instance knows by itself, at ${at}:`;
}

function note(words, stale = false) {
  write($("online-note"), words);
  $("online-note").toggleAttribute("data-stale", stale);
  $("online").toggleAttribute("data-stale", stale);
}
