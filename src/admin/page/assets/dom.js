// Elements, built from data. Text enters the document as text nodes only: what a stream holds is never parsed as HTML.

import { pieces } from "./text.js"

const SVG = "http://www.w3.org/2000/svg"

/** An element. `on…` attributes are listeners; `false`, `null` and `undefined` leave an attribute or a child out. */
export function el(tag, attributes, ...children) {
  return fill(document.createElement(tag), attributes, children)
}

/** An SVG element. */
export function svg(tag, attributes, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children)
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === false || value === null || value === undefined) continue
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value)
    else node.setAttribute(name, value === true ? "" : value)
  }
  node.append(...present(children))
  return node
}

function present(children) {
  return children.flat(Infinity).filter((child) => child !== false && child !== null && child !== undefined)
}

/** Replaces what `node` holds. */
export function show(node, ...children) {
  node.replaceChildren(...present(children))
  return node
}

/** Foreign text: isolated from the direction of what is around it, with invisible characters shown as escapes. */
export function foreign(text, className) {
  const node = el("bdi", { class: className, dir: "auto" })
  appendVisible(node, text)
  return node
}

/** Appends text, with each invisible character as a marked escape. */
export function appendVisible(node, text) {
  for (const piece of pieces(text)) {
    node.append(piece.escape ? el("span", { class: "escape", title: "a character that is not shown" }, piece.text) : piece.text)
  }
}

/** A button. */
export function button(label, onclick, attributes) {
  return el("button", { type: "button", onclick, ...attributes }, label)
}

/** One drawing of the icon set, beside a label that says the same. */
export function icon(name) {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }))
}

const ICONS = {
  open: "M4 6l4 4 4-4",
  closed: "M6 4l4 4-4 4",
  stream: "M2 8h2.5l2-4 3 8 2-4H14",
  lock: "M4.5 7.5h7v5h-7zM6 7.5V5.5a2 2 0 0 1 4 0v2",
  fork: "M5 3v10M5 9c0-3 6-1 6-6",
  folder: "M2 4.5h4l1.5 1.5H14v6.5H2z",
  back: "M10 3L5 8l5 5",
}
