// The backend's API: HTTP with an API key. The key is kept in its field on the
// page and nowhere else.

import { $ } from "./dom.js";

const PATIENCE_MS = 6_000; // the server's own deadline is at most 5 s

const field = $("api-key");
let devKey = null; // the key that a server in dev mode gave us

// Problem is an error that the server answered. Its message says what is wrong
// and how to mend it.
export class Problem extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function api(method, path, body) {
  try {
    return await call(method, path, body);
  } catch (error) {
    // A server in dev mode has a new key after each start. A key that was typed
    // in is not replaced.
    if (error.status !== 401 || apiKey() !== devKey || !(await enterDevMode())) throw error;
    return call(method, path, body);
  }
}

export const apiKey = () => field.value.trim();

// enterDevMode returns whether the server is in dev mode, and fills in its key.
// The server gives its key only if it made it up, or runs with --dev-serve-key.
export async function enterDevMode() {
  const answer = await request("/dev/key").catch(() => null);
  if (!answer) return false;
  devKey = answer.apiKey;
  if (devKey) field.value = devKey;
  return true;
}

export async function devToken(user, signal) {
  try {
    const { token } = await request(`/dev/token?user=${encodeURIComponent(user)}`, { signal });
    return token;
  } catch (error) {
    // With 4xx the client must not retry: the same request would fail again.
    error.refused = error.status >= 400 && error.status < 500;
    throw error;
  }
}

function call(method, path, body) {
  return request(path, {
    method,
    headers: { Authorization: `Bearer ${apiKey()}`, "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
}

async function request(path, options) {
  const signal = AbortSignal.timeout(PATIENCE_MS);
  const question = new Request(path, { cache: "no-store", signal, ...options });
  const answer = await fetch(question).catch(() => {
    throw new Problem(0, "The server does not answer.");
  });
  const value = await answer.json().catch(() => null);
  if (answer.ok) return value;
  throw new Problem(answer.status, value?.detail ?? `The server answered ${answer.status}.`);
}
