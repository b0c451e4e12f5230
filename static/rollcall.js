// Rollcall's browser client: one socket that comes back.
//
//   import { Rollcall } from "./rollcall.js";
//
//   const rollcall = new Rollcall({ token: () => fetchToken() });
//   rollcall.on("order.paid", (data, frame) => …);
//   rollcall.addEventListener("status", ({ detail }) => …);
//   rollcall.connect();
//
//   rollcall.send("events", { test: true }, { ref: "1" });
//   rollcall.close();
//
// Events of the client itself:
//
//   "frame"   every frame that arrives: { event, data, id?, ref? }
//   "status"  { status, … }, where status is one of
//             "connecting"
//             "open"     welcomed by the server; adds welcome
//             "waiting"  will come back; adds delay (ms), code, reason
//             "closed"   will not come back; adds code, reason
//
// With ack: true, the client confirms each push once the listeners of on() have
// run, and the promises that they returned are kept. If one throws, or a promise
// is broken, the push is not confirmed and the error is reported as uncaught.
//
// Nothing is queued: what is pushed while no socket is open is not delivered
// later, and send throws while there is none.

const OPEN_MS = 10_000; // a handshake slower than this has failed
const STABLE_MS = 5_000; // a connection that lasted this long was a good one
const BACKOFF_MS = 250;
const BACKOFF_CAP_MS = 10_000;
const PAUSE_MS = 5_000; // what "after a pause" means, at least; twice that at most

export class Rollcall extends EventTarget {
  status = "closed";
  welcome = null; // while open: { socket, user, instance, reachable, limits: { messageBytes } }

  #url;
  #token;
  #ack;
  #listeners = new Map(); // by event
  #life = null; // aborts when the user closes; null when we are not wanted
  #socket = null;

  // url may be relative to the page. token is a string, or a function that
  // gives one (or a promise of one) and is asked at each attempt; none means
  // anonymous. If it throws, the attempt has failed and another follows, unless
  // the error says refused: true.
  constructor({ url = "/ws", token = null, ack = false } = {}) {
    super();
    this.#url = new URL(url, location.href);
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    this.#token = token;
    this.#ack = ack;
  }

  // on calls listener(data, frame) for each frame with this event name, and
  // returns a function that ends it.
  on(event, listener) {
    const told = (frame) => listener(frame.data, frame);
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(told);
    return () => this.#listeners.get(event).delete(told);
  }

  connect() {
    if (this.#life) return;
    this.#life = new AbortController();
    this.#live(this.#life.signal);
  }

  send(event, data, { ref } = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) throw new Error("rollcall: not connected");
    this.#socket.send(JSON.stringify({ event, data, ref }));
  }

  // close tells the server, with 1000, that this is no accident: the user is
  // offline at once, without the grace that a lost connection gets.
  close() {
    if (!this.#life) return;
    this.#life.abort();
    this.#stop({ code: 1000, reason: "" });
  }

  // #live goes from connection to connection until one ends for good.
  async #live(signal) {
    for (let failures = 0; ; ) {
      this.#say({ status: "connecting" });
      const end = await this.#converse(signal);
      if (signal.aborted) return;

      failures = end.lasted >= STABLE_MS ? 0 : failures + 1;
      const delay = comeBackAfter(end, failures);
      if (delay === null) return this.#stop(end);
      this.#say({ status: "waiting", delay, code: end.code, reason: end.reason });
      await pause(delay, signal);
      if (signal.aborted) return;
    }
  }

  // #converse is one connection, from the token to the end it came to.
  async #converse(signal) {
    const url = new URL(this.#url);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (token) url.searchParams.set("token", token);
    } catch (error) {
      return { code: 1006, reason: error.message, refused: error.refused === true, lasted: 0 };
    }
    if (signal.aborted) return null;
    const end = await this.#open(url, signal);
    if (end.opened || signal.aborted) return end;
    return { ...end, ...(await whyRefused(url, signal)) };
  }

  #open(url, signal) {
    return new Promise((resolve) => {
      const address = new URL(url);
      address.protocol = url.protocol.replace("http", "ws");
      const socket = new WebSocket(address);
      const end = { opened: false, lasted: 0, goaway: undefined };
      const impatience = setTimeout(() => socket.close(), OPEN_MS);
      const leave = () => socket.close(1000);
      let since;

      signal.addEventListener("abort", leave);
      socket.onopen = () => {
        clearTimeout(impatience);
        this.#socket = socket;
        end.opened = true;
        since = performance.now();
      };
      socket.onmessage = ({ data }) => {
        if (signal.aborted) return;
        const frame = JSON.parse(data);
        if (frame.event === "rollcall:goaway") end.goaway = frame.data?.reconnect;
        this.#receive(frame, socket);
      };
      socket.onclose = ({ code, reason }) => {
        clearTimeout(impatience);
        signal.removeEventListener("abort", leave);
        if (end.opened) end.lasted = performance.now() - since;
        resolve({ ...end, code, reason });
      };
    });
  }

  #receive(frame, socket) {
    if (frame.event === "rollcall:welcome") this.#say({ status: "open", welcome: frame.data });
    this.#emit("frame", frame);
    this.#tell(frame, socket);
  }

  async #tell(frame, socket) {
    const listeners = [...(this.#listeners.get(frame.event) ?? [])];
    const taken = await Promise.all(listeners.map((listener) => took(listener, frame)));
    if (!this.#ack || frame.id === undefined || taken.includes(false)) return;
    socket.send(JSON.stringify({ event: "rollcall:ack", data: { id: frame.id } }));
  }

  #stop({ code, reason }) {
    this.#life = null;
    this.#say({ status: "closed", code, reason });
  }

  #say(detail) {
    this.status = detail.status;
    this.welcome = detail.welcome ?? null;
    if (detail.status !== "open") this.#socket = null;
    this.#emit("status", detail);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// comeBackAfter says how many ms after this end to connect again; null means
// never. failures counts the ends in a row, this one included, whose connection
// did not last.
export function comeBackAfter({ code, refused, goaway }, failures, random = Math.random) {
  if (refused || within(code, 4000)) return null;
  if (goaway >= 0) return goaway;
  if (within(code, 4100)) return PAUSE_MS * (1 + random());
  // At once, but not in a tight loop against a server that only ever says so.
  if ((code === 1012 || within(code, 4200)) && failures <= 1) return 0;
  return random() * Math.min(BACKOFF_CAP_MS, BACKOFF_MS * 2 ** failures);
}

const within = (code, hundred) => code >= hundred && code < hundred + 100;

// whyRefused finds out what a refused handshake meant. A browser says 1006
// whatever the reason; the same address asked over plain HTTP answers in words.
async function whyRefused(url, signal) {
  try {
    const answer = await fetch(url, { cache: "no-store", signal });
    const problem = await answer.json().catch(() => ({}));
    const refused = answer.status === 401 || answer.status === 403;
    if (answer.status === 426) return {}; // nothing wrong with what we asked
    return { refused, reason: problem.detail ?? `the server answered ${answer.status}` };
  } catch {
    return {}; // no answer at all, or none that this page may read
  }
}

// took says whether the listener did its work; each begins at once.
async function took(listener, frame) {
  try {
    await listener(frame);
    return true;
  } catch (error) {
    reportError(error);
    return false;
  }
}

function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener("abort", done);
  });
}
