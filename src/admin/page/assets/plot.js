// Small plots of the last minutes: lines over time, drawn as SVG, with their newest values as text.

import { el, show, svg } from "./dom.js"

const WIDTH = 240
const HEIGHT = 56

/** Points that the width has room for: the newest is at the right, and what is not known yet is empty. */
const POINTS = 60

/**
 * A plot. `lines`: `[{ key, label, tone }]`; `format` makes text of a value. `update(history)` takes objects with those keys;
 * a value that is null leaves a gap. One that is `optional` hides while it has no value at all.
 */
export function plot(title, { lines, format, floor = 0, optional = false }) {
  const values = el("div", { class: "values" })
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" })
  const top = el("span", { class: "top" })
  const node = el("section", { class: "card plot" }, el("h2", {}, title), values, el("div", { class: "picture" }, picture, top))

  function update(history) {
    const all = history.flatMap((point) => lines.map(({ key }) => point[key])).filter(Number.isFinite)
    const most = Math.max(floor, ...all)
    node.classList.toggle("hidden", optional && all.length === 0)
    show(values, lines.map((line) => newest(line, history, format)))
    show(picture, lines.map((line) => drawn(line, history, most)))
    show(top, all.length > 0 && most > 0 ? format(most) : "")
    picture.setAttribute("aria-label", `${title}: ${lines.map(({ key, label }) => `${label} now ${said(history.at(-1)?.[key], format)}`).join(", ")}; at most ${said(all.length > 0 ? most : null, format)}`)
  }
  return { node, update }
}

function said(value, format) {
  return Number.isFinite(value) ? format(value) : "–"
}

function newest({ key, label, tone }, history, format) {
  const value = history.at(-1)?.[key]
  return el("div", { class: `value ${value === 0 ? "" : tone}` }, el("b", {}, said(value, format)), el("span", {}, label))
}

/** The line, and the area below it, in as many pieces as its gaps make. */
function drawn({ key, tone }, history, most) {
  const empty = Math.max(0, POINTS - history.length)
  const at = (index) => (((empty + index) * WIDTH) / Math.max(1, empty + history.length - 1)).toFixed(1)
  const height = (value) => (HEIGHT - 3 - (most > 0 ? value / most : 0) * (HEIGHT - 8)).toFixed(1)
  const pieces = []
  history.forEach((point, index) => {
    const value = point[key]
    if (!Number.isFinite(value)) return pieces.push([])
    if (pieces.length === 0) pieces.push([])
    pieces.at(-1).push([index, value])
  })
  return pieces.filter((piece) => piece.length > 0).flatMap((piece) => {
    const path = piece.map(([index, value], position) => `${position === 0 ? "M" : "L"}${at(index)} ${height(value)}`).join("")
    const area = `${path}L${at(piece.at(-1)[0])} ${HEIGHT}L${at(piece[0][0])} ${HEIGHT}Z`
    const line = piece.length === 1 ? `${path}h1` : path
    return [svg("path", { class: `area ${tone}`, d: area }), svg("path", { class: `line ${tone}`, d: line })]
  })
}
