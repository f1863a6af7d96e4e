// Keys that work anywhere outside of a field. They can be turned off, since a voice or a cat may type single letters.

import { button, el, show } from "./dom.js"
import { openDialog } from "./dialog.js"
import { go } from "./route.js"

const OFF = "durable-streams-admin-no-shortcuts"

const VIEWS = { 1: "overview", 2: "streams", 3: "subscriptions", 4: "server" }

/** Keys that a button of the view answers: the one with that `aria-keyshortcuts`. */
const LISTED = [
  ["1 2 3 4", "Overview, streams, subscriptions, server"],
  ["/", "Find a stream"],
  ["p", "Pause or resume the live tail"],
  ["e", "Jump to the end of the tail"],
  ["o", "Read from an offset"],
  ["a", "Append to the stream"],
  ["c", "Copy as curl"],
  ["↑ ↓ ← →", "Move in the tree and in the messages, open and close a folder"],
  ["Home End", "First and last row"],
  ["Enter", "Open the stream or the folder"],
  ["Delete", "Delete all streams of the folder"],
  ["?", "This list"],
]

export function listenForShortcuts() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return
    if (localStorage.getItem(OFF) || inField(event.target) || document.querySelector("dialog[open]")) return
    if (VIEWS[event.key]) go(VIEWS[event.key])
    else if (event.key === "?") openShortcuts()
    else if (!pressed(event.key)) return
    event.preventDefault()
  })
}

function pressed(key) {
  const target = document.querySelector(`[aria-keyshortcuts="${CSS.escape(key)}"]`)
  if (!target || target.disabled) return false
  if (target instanceof HTMLInputElement) {
    target.focus()
    target.select()
  } else target.click()
  return true
}

function inField(target) {
  return target instanceof HTMLInputElement || target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement
}

export function openShortcuts() {
  const enabled = el("input", { type: "checkbox", checked: !localStorage.getItem(OFF), onchange: () => {
    if (enabled.checked) localStorage.removeItem(OFF)
    else localStorage.setItem(OFF, "1")
  } })
  const rows = LISTED.map(([keys, what]) => el("tr", {}, el("th", { scope: "row" }, keys.split(" ").map((key) => el("kbd", {}, key))), el("td", {}, what)))
  openDialog("Keyboard", (body, actions, dialog) => {
    show(body, el("table", { class: "keys" }, el("tbody", {}, rows)), el("label", { class: "check" }, enabled, "Single keys do this"))
    show(actions, button("Close", () => dialog.close(), { class: "primary" }))
  })
}
