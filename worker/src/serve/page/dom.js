// Describes elements and makes the document equal to the description, changing only what differs: open folds, focus,
// selections and scroll positions stay. All data gets in as text or as attribute values, never as markup.

/** An element. `props`: `key` (names it among its siblings), `class`, `style` (custom properties), `on` (handlers by
 * event), `draw` (called with the element whenever it was described, instead of children), else attributes. */
export function h(tag, props, ...children) {
  const { key, style, on, draw, ...attributes } = props ?? {};
  return { tag, key, style, on, draw, attributes, children };
}

const isWanted = (child) => child !== null && child !== undefined && child !== false && child !== "";

/** Makes the children of `parent` those described. */
export function fill(parent, ...described) {
  const children = described.flat(Infinity).filter(isWanted);
  const keys = new Set(children.map((child) => child.key).filter((key) => key !== undefined));
  const keyed = new Map();
  for (const node of [...parent.childNodes]) {
    if (node.key === undefined) continue;
    if (keys.has(node.key)) keyed.set(node.key, node);
    else node.remove();
  }
  let at = parent.firstChild;
  for (const child of children) {
    const node = reusable(child, child.key === undefined ? at : keyed.get(child.key)) ?? create(child);
    keyed.delete(child.key); // a second one of the same key is another element
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    update(node, child);
  }
  while (at !== null) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function reusable(child, node) {
  if (!node) return undefined;
  if (child.tag === undefined) return node.nodeType === Node.TEXT_NODE ? node : undefined;
  return node.localName === child.tag && node.key === child.key ? node : undefined;
}

function create(child) {
  if (child.tag === undefined) return document.createTextNode("");
  const node = document.createElement(child.tag);
  node.key = child.key;
  return node;
}

function update(node, child) {
  if (child.tag === undefined) {
    const text = String(child);
    if (node.nodeValue !== text) node.nodeValue = text;
    return;
  }
  for (const name of node.described ?? []) {
    if (!present(child.attributes[name])) node.removeAttribute(name);
  }
  node.described = Object.keys(child.attributes).filter((name) => present(child.attributes[name]));
  for (const name of node.described) {
    const value = child.attributes[name] === true ? "" : String(child.attributes[name]);
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  for (const [name, value] of Object.entries(child.style ?? {})) node.style.setProperty(name, value);
  for (const [event, handler] of Object.entries(child.on ?? {})) node[`on${event}`] = handler;
  if (child.draw) child.draw(node);
  else fill(node, child.children);
}

const present = (value) => value !== undefined && value !== null && value !== false;

/** A small word with a meaning: `good`, `bad`, `warn` or `quiet`. The words say it too, so that colour is never alone. */
export const tag = (kind, text, title) => h("span", { class: `tag ${kind}`, title }, text);

/** A line of small print. */
export const small = (...children) => h("small", null, ...children);

/** A figure under its name. `help` says what it means, to whom points at it. */
export const figure = (name, help, value, ...under) =>
  h("div", { class: "figure", title: help }, h("dt", null, name), h("dd", null, h("b", null, value), ...under));

/** A table that scrolls in its own box. `columns`: {name, help, numeric, wide}; `rows`: {key, cells}; the first cell of a row heads it. */
export function table(label, columns, rows) {
  const alignment = (i) => (columns[i]?.numeric ? "number" : columns[i]?.wide ? "wide" : undefined);
  const heading = (c, i) => h("th", { scope: "col", title: c.help, class: alignment(i) }, c.name);
  const cell = (content, i) =>
    i === 0 ? h("th", { scope: "row", class: alignment(i) }, content) : h("td", { class: alignment(i) }, content);
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": label, tabindex: "0" },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, columns.map(heading))),
      h(
        "tbody",
        null,
        rows.map((row) => h("tr", { key: row.key, class: row.class }, row.cells.map(cell))),
      ),
    ),
  );
}
