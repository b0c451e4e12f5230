// Pushes, emits and kicks: what a backend does to those who are online.

import { api } from "./api.js";
import { $, element, json, plural, sentence, write } from "./dom.js";

const KICKED = "kicked from Rollcall's page"; // the reason that the clients get

$("pushing").addEventListener("submit", (submit) => {
  submit.preventDefault();
  push(pathOf("push", $("push-user").value), { exclude: excluded() });
});

for (const whom of ["all", "authenticated"]) {
  $(`emit-${whom}`).addEventListener("click", () => push(`/emit/${whom}`));
}

const pathOf = (what, user) => `/${what}/${encodeURIComponent(user)}`;
const excluded = () => ($("push-exclude").checked ? $("welcome").dataset.socket : undefined);

function push(path, more) {
  const wait = $("push-wait").value;
  return answer(pushWords, () => {
    const body = { event: $("push-event").value, data: json($("push-data")), ...more };
    return api("POST", `${path}?wait=${wait}`, body);
  });
}

function pushWords({ user, state, instances, partial, sockets }) {
  const words = [];
  const stateWords = state === "unknown" ? `the state of ${user} is unknown` : `${user} is ${state}`;
  if (user !== undefined) words.push(stateWords);
  if (user === undefined || instances > 0) {
    words.push(`taken by ${plural(instances, "instance")}`);
    if (sockets) words.push(...socketWords(sockets));
  }
  if (partial) words.push("only this instance could be reached");
  return words.join(", ");
}

function socketWords({ written, acked, dropped, gone, unanswered }) {
  const words = [`written to ${plural(written, "socket")}`];
  if (acked > 0) words.push(`${acked} confirmed`);
  if (dropped > 0) words.push(`${dropped} too slow`);
  if (gone > 0) words.push(`${gone} closed before`);
  if (unanswered > 0) words.push(`no word of ${unanswered} in time`);
  return words;
}

// A kick needs a second click. The dialog is modal, so the user in the form can't
// change before that.

$("kick").addEventListener("click", () => {
  if (!$("push-user").reportValidity()) return;
  const user = $("push-user").value;
  const mine = $("welcome").dataset.user === user;
  write($("kick-user"), user);
  write($("kick-rest"), !mine ? "" : excluded() ? "This tab's stays open." : "This tab's is one of them.");
  $("kick-sure").returnValue = "";
  $("kick-sure").showModal();
});

$("kick-sure").addEventListener("close", () => {
  if ($("kick-sure").returnValue !== "kick") return;
  const user = $("push-user").value;
  const query = new URLSearchParams({ reason: KICKED, except: excluded() ?? "" });
  answer((kicked) => kickWords(user, kicked), () => api("DELETE", `${pathOf("presence", user)}?${query}`));
});

function kickWords(user, { closed, unanswered, partial }) {
  const words = [`${user} had no socket to close`];
  if (closed > 0) words[0] = `${plural(closed, "socket")} of ${user} closed`;
  if (unanswered > 0) words.push(`no word of ${unanswered} in time`);
  if (partial) words.push("only this instance could be reached");
  return words.join(", ");
}

// answer asks the server, and shows what came back. Until then it shows that it waits.
async function answer(words, ask) {
  $("push-answer").ariaBusy = "true";
  try {
    const value = await ask();
    show(true, words(value), JSON.stringify(value));
  } catch (error) {
    show(false, sentence(error.message));
  }
}

function show(ok, words, raw) {
  $("push-answer").ariaBusy = null;
  $("push-answer").dataset.ok = ok;
  $("push-answer").replaceChildren(element("bdi", {}, words));
  if (raw) $("push-answer").append(element("code", {}, raw));
}
