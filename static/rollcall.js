// Rollcall's browser client: one socket that comes back.
//
//   import { Rollcall } from "./rollcall.js";
//
//   const rollcall = new Rollcall({
//     token: async ({ signal }) => {
//       const response = await fetch("/my/token", { signal });
//       if (!response.ok) throw new Error(`no token: ${response.status}`);
//       return response.text();
//     },
//   });
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
//   Example: { status: "waiting", delay: 1730, code: 1006,
//              reason: "the token has expired; get a new one" }
//
// With ack: true, the client confirms each push once the listeners of on() have
// run, and the promises that they returned are kept. If one throws, or a promise
// is broken, the push is not confirmed and the error is reported as uncaught.
//
// Nothing is queued. What is pushed while no socket is open is not delivered
// later, and send throws while none is open.
//
// A browser does not notice that the path under an open socket is dead, say
// after a change from one network to another. So the client asks the server
// (rollcall:ping) after a silence of limits.heartbeatMs, when the browser is
// online again, and when the page is seen again. If nothing comes in
// timeouts.pong, it leaves this socket and connects anew at once.

const STABLE_MS = 5_000; // a connection that lasted this long was a good one
const BACKOFF_MS = 250;
const BACKOFF_CAP_MS = 10_000;
const PAUSE_MS = 5_000; // the least pause after codes 4100 to 4199; at most twice that
const NEW_TOKEN_MS = 1_000; // before asking for another token, after the first was refused
const NEW_TOKEN_CAP_MS = 60_000;
const RETRY_AFTER_CAP_S = 3_600;
const LATE_MS = 1_000; // a timer later than this means that the page slept, not that the path is dead

export class Rollcall extends EventTarget {
  status = "closed";
  welcome = null; // while open: { socket, user, instance, reachable, limits }

  #url;
  #token;
  #ack;
  #timeouts;
  #listeners = new Map(); // by event
  #abort = null; // ends everything that is under way; null while not wanted
  #socket = null; // while open

  // url may be relative to the page.
  //
  // token is a string, or a function that returns one (or a promise of one).
  // Without a token the client is anonymous. The function is called at each
  // attempt, with { signal }, which aborts when the token is not needed any
  // more. If it throws, takes too long, or returns something that can't be a
  // token, such as an error page, then the attempt has failed and another
  // follows, unless the error has refused: true. If the server refuses the
  // token, the function is called again, with growing pauses. If the token was a
  // string, the client closes.
  //
  // timeouts are in ms. connect is for each step of an attempt: getting the token,
  // the handshake with its welcome, asking why it was refused. pong is for the
  // answer to a ping.
  constructor({ url = "/ws", token = null, ack = false, timeouts = {} } = {}) {
    super();
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    this.#token = token;
    this.#ack = ack;
    this.#timeouts = { connect: 10_000, pong: 5_000, ...timeouts };
  }

  // on calls listener(data, frame) for each frame with this event name. It returns
  // a function that removes the listener.
  on(event, listener) {
    const call = (frame) => listener(frame.data, frame);
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(call);
    return () => this.#listeners.get(event).delete(call);
  }

  connect() {
    if (this.#abort) return;
    this.#abort = new AbortController();
    this.#run(this.#abort.signal);
  }

  send(event, data, { ref } = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) throw new Error("rollcall: not connected");
    this.#socket.send(JSON.stringify({ event, data, ref }));
  }

  // close closes the socket with 1000, for good. The user is offline at once,
  // without the grace that a lost connection gets.
  close() {
    if (this.#abort) this.#stop({ code: 1000, reason: "" });
  }

  // #run connects again and again until a connection ends for good.
  async #run(signal) {
    for (let failures = 0; ; ) {
      this.#setStatus({ status: "connecting" });
      const end = await this.#connectOnce(signal);
      if (signal.aborted) return;

      failures = end.lasted >= STABLE_MS ? 0 : failures + 1;
      const delay = comeBackAfter(end, failures);
      if (delay === null) return this.#stop(end);
      this.#setStatus({ status: "waiting", delay, code: end.code, reason: end.reason });
      const woken = await pause(delay, signal, !serverSaidWhen(end));
      if (signal.aborted) return;
      if (woken) failures = 0; // earlier failures say nothing about the network of now
    }
  }

  // #connectOnce makes one attempt and, if it succeeds, waits until that connection
  // ends. It returns how it ended, for comeBackAfter.
  async #connectOnce(signal) {
    const url = new URL(this.#url);
    try {
      const token = await this.#getToken(signal);
      if (token) url.searchParams.set("token", token);
    } catch (error) {
      const reason = error?.message ?? String(error);
      return { code: 1006, reason, refused: error?.refused === true, lasted: 0 };
    }
    if (signal.aborted) return null;
    const end = await this.#openSocket(url, signal);
    if (end.opened || end.timedOut || signal.aborted) return end;
    const isFunction = typeof this.#token === "function";
    return { ...end, ...(await whyRefused(url, isFunction, this.#timeouts.connect, signal)) };
  }

  async #getToken(signal) {
    if (typeof this.#token !== "function") return this.#token;
    const { connect } = this.#timeouts;
    const late = `token() gave nothing within ${connect / 1000} s`;
    const given = await withDeadline(connect, late, signal, (signal) => this.#token({ signal }));
    const token = String(given).trim();
    if (typeof given === "string" && /^[\w.-]+$/.test(token)) return token;
    throw new Error(`token() gave no token, but ${JSON.stringify(token.slice(0, 20))}`);
  }

  // #openSocket opens a socket and returns how it ended. It never waits for the
  // browser to close it: over a dead path that takes a minute.
  #openSocket(url, signal) {
    const address = new URL(url);
    address.protocol = url.protocol.replace("http", "ws");
    const { connect, pong } = this.#timeouts;
    return new Promise((resolve) => {
      const socket = new WebSocket(address);
      const left = new AbortController(); // aborts when this socket is no longer ours
      let openedAt = null;
      let goaway;

      const end = ({ code, reason, timedOut, dead }) => {
        left.abort();
        socket.onopen = socket.onmessage = socket.onclose = null;
        const opened = openedAt !== null;
        const lasted = opened ? performance.now() - openedAt : 0;
        resolve({ code, reason, timedOut, dead, opened, lasted, goaway });
      };
      const leave = (how, code) => {
        socket.close(code);
        end(how);
      };
      const slow = `the server did not answer within ${connect / 1000} s`;
      const giveUp = () => leave({ code: 1006, reason: slow, timedOut: true });
      const connectTimer = setTimeout(giveUp, connect);
      left.signal.addEventListener("abort", () => clearTimeout(connectTimer));
      const bye = () => leave({ code: 1000, reason: "" }, 1000);
      signal.addEventListener("abort", bye, { signal: left.signal });

      const ask = () => socket.send(JSON.stringify({ event: "rollcall:ping" }));
      const silence = `nothing answered on this connection for ${pong / 1000} s`;
      const onDead = () => leave({ code: 1006, reason: silence, dead: true });
      const watch = watchPath(left.signal, pong, ask, onDead);
      socket.onopen = () => (openedAt = performance.now());
      socket.onclose = end;
      socket.onmessage = ({ data }) => {
        const frame = JSON.parse(data);
        watch.heard();
        if (frame.event === "rollcall:pong" && frame.ref === undefined) return; // it answers our ask
        if (frame.event === "rollcall:goaway") goaway = frame.data?.reconnect;
        if (frame.event === "rollcall:welcome") {
          clearTimeout(connectTimer);
          watch.start(frame.data.limits?.heartbeatMs);
          this.#socket = socket;
          this.#setStatus({ status: "open", welcome: frame.data });
        }
        if (!signal.aborted) this.#dispatch(frame, socket);
      };
    });
  }

  async #dispatch(frame, socket) {
    this.#emit("frame", frame);
    const listeners = [...(this.#listeners.get(frame.event) ?? [])];
    const results = await Promise.all(listeners.map((listener) => succeeded(listener, frame)));
    if (!this.#ack || frame.id === undefined || results.includes(false)) return;
    socket.send(JSON.stringify({ event: "rollcall:ack", data: { id: frame.id } }));
  }

  #stop({ code, reason }) {
    this.#abort.abort();
    this.#abort = null;
    this.#setStatus({ status: "closed", code, reason });
  }

  #setStatus(detail) {
    this.status = detail.status;
    this.welcome = detail.welcome ?? null;
    if (detail.status !== "open") this.#socket = null;
    this.#emit("status", detail);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

// comeBackAfter returns how many ms after this end to connect again; null means
// never. failures counts the connections in a row that did not last, this one
// included.
export function comeBackAfter(end, failures, random = Math.random) {
  const { code, refused, goaway, retryAfter, badToken, dead } = end;
  const upTo = (cap, first) => Math.min(cap, first * 2 ** failures);
  if (refused || within(code, 4000)) return null;
  if (goaway >= 0) return goaway;
  if (within(code, 4100)) return PAUSE_MS * (1 + random());
  if (badToken) return upTo(NEW_TOKEN_CAP_MS, NEW_TOKEN_MS) * (0.5 + random() / 2);
  const backoff = upTo(BACKOFF_CAP_MS, BACKOFF_MS) * random();
  if (retryAfter > 0) return retryAfter + backoff;
  // At once, but not in a tight loop against a server that only ever says so.
  if ((code === 1012 || within(code, 4200) || dead) && failures <= 1) return 0;
  return backoff;
}

// serverSaidWhen returns whether the server told us how long to wait. Then we do
// not come back earlier, even when the network or the page does.
const serverSaidWhen = ({ code, goaway, retryAfter }) =>
  goaway >= 0 || retryAfter > 0 || within(code, 4100);

const within = (code, hundred) => code >= hundred && code < hundred + 100;

// watchPath calls onDead when the path under an open socket is dead: nothing
// arrives, not even an answer to ask. Call start when the socket is open, and
// heard for each frame.
//
// A timer may be late: by a minute in a hidden tab, by hours in a laptop that
// slept. Frames that came meanwhile may wait behind it, so a late timer proves
// nothing. Then the watch asks once more, and the second timer decides.
function watchPath(signal, pongMs, ask, onDead) {
  let heartbeatMs;
  let timer;
  let heardAt = 0;
  let askedAt = null; // null: no answer is due
  let asks = 0; // since something was heard

  const lookIn = (ms) => {
    clearTimeout(timer);
    timer = setTimeout(look, ms);
  };
  const askNow = () => {
    if (askedAt !== null) return;
    askedAt = performance.now();
    asks++;
    ask();
    lookIn(pongMs);
  };
  const look = () => {
    const now = performance.now();
    if (askedAt === null) {
      const left = heardAt + heartbeatMs - now;
      return left > 0 ? lookIn(left) : askNow();
    }
    const late = now > askedAt + pongMs + LATE_MS;
    if (!late || asks > 1) return onDead();
    askedAt = null;
    askNow();
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return {
    start(afterMs) {
      if (!(afterMs > 0)) return; // the server knows no ping
      heartbeatMs = afterMs;
      lookIn(heartbeatMs);
      onWake(signal, askNow);
    },
    heard() {
      heardAt = performance.now();
      askedAt = null;
      asks = 0;
    },
  };
}

// onWake calls back when the browser is online again, and when the page is seen
// again, until signal aborts. Without a page, as in Node, it never does.
function onWake(signal, callback) {
  globalThis.addEventListener?.("online", () => callback(), { signal });
  const seen = () => document.visibilityState === "visible" && callback();
  globalThis.document?.addEventListener("visibilitychange", seen, { signal });
}

// whyRefused finds out what a refused handshake meant. A browser says 1006
// whatever the reason; the same address asked over plain HTTP answers in words.
async function whyRefused(url, canGetAnotherToken, ms, signal) {
  try {
    return await withDeadline(ms, "", signal, async (signal) => {
      const answer = await fetch(url, { cache: "no-store", signal });
      if (answer.status === 426) return { reason: "the server answers, but no WebSocket gets through" };
      const problem = await answer.json().catch(() => null);
      return {
        reason: problem?.detail ?? `the server answered ${answer.status}`,
        refused: answer.status === 403 || (answer.status === 401 && !canGetAnotherToken),
        badToken: answer.status === 401,
        retryAfter: inMs(answer.headers.get("Retry-After")),
      };
    });
  } catch {
    return { reason: "the server gave no answer, or none that this page may read" };
  }
}

// inMs reads a Retry-After in seconds. A date, which proxies do not send, is 0.
const inMs = (seconds) => Math.min(Number(seconds) || 0, RETRY_AFTER_CAP_S) * 1000;

// succeeded runs a listener, and returns whether it did so without an error.
async function succeeded(listener, frame) {
  try {
    await listener(frame);
    return true;
  } catch (error) {
    (globalThis.reportError ?? console.error)(error);
    return false;
  }
}

// withDeadline runs work(signal). It throws when work takes longer than ms, or the
// outer signal aborts, even if work ignores its own signal.
async function withDeadline(ms, late, outer, work) {
  const inner = new AbortController();
  const abort = () => inner.abort(outer.reason);
  const timer = setTimeout(() => inner.abort(new Error(late)), ms);
  outer.addEventListener("abort", abort);
  const aborted = new Promise((_, reject) => {
    inner.signal.addEventListener("abort", () => reject(inner.signal.reason));
  });
  try {
    return await Promise.race([work(inner.signal), aborted]);
  } finally {
    clearTimeout(timer);
    outer.removeEventListener("abort", abort);
  }
}

// pause waits ms. It ends early when signal aborts, and, if mayWake is true, when
// the network or the page comes back. Only then it returns true.
function pause(ms, signal, mayWake) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = (woken) => {
      clearTimeout(timer);
      over.abort();
      resolve(woken);
    };
    const timer = setTimeout(() => end(false), ms);
    signal.addEventListener("abort", () => end(false), { signal: over.signal });
    if (mayWake) onWake(over.signal, () => end(true));
    if (signal.aborted) end(false);
  });
}
