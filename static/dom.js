// Helpers for the DOM. What a user or a server said goes in as text, never as
// HTML: a user may be called "<img onerror=…>".

export const $ = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// write sets a node's text. It does nothing if the text is the same, so that a
// selection survives a poll and a screen reader does not repeat it.
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function attribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// sync makes list show items, in their order. It keeps the child of an item that
// stays, so that focus, hover and selection survive. data-key names a child's item.
export function sync(list, items, key, create, update) {
  const before = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const now = new Map(items.map((item) => [key(item), item]));
  for (const [name, child] of before) if (!now.has(name)) child.remove();
  let place = 0;
  for (const [name, item] of now) {
    const child = before.get(name) ?? create(item);
    child.dataset.key = name;
    update(child, item);
    if (list.children[place] !== child) list.insertBefore(child, list.children[place] ?? null);
    place++;
  }
}

// json parses the text of a field. An empty field is null.
export function json(field) {
  try {
    return JSON.parse(field.value || "null");
  } catch (error) {
    field.focus();
    throw new Error(`The data is not JSON: ${error.message}`);
  }
}

// sentence: "the token has expired" → "The token has expired."
export const sentence = (words) =>
  words.replace(/^./u, (first) => first.toUpperCase()).replace(/[.!?:]?$/, (end) => end || ".");

export const plural = (n, thing) => `${n} ${thing}${n === 1 ? "" : "s"}`;
