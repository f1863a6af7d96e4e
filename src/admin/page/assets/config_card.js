// The configuration in force, and reading it again.

import * as api from "./api.js"
import { appendVisible, button, el, foreign, show } from "./dom.js"
import { many } from "./format.js"

export function configCard(signal) {
  const text = el("pre", { class: "command config", tabindex: "0", "aria-label": "Configuration in force" })
  const outcome = el("div", { class: "outcome", role: "status" })
  const again = button("Reload", reload)
  const node = el("section", { class: "card config-card" },
    el("div", { class: "card-head" }, el("h2", {}, "Configuration in force"), again),
    el("p", { class: "hint" }, "Secrets are shown as ***. A reload reads file and environment again; where anything is wrong, nothing changes."),
    outcome,
    text,
  )

  async function load() {
    try {
      const { config } = await api.config(signal)
      show(text)
      appendVisible(text, written(config))
    } catch (error) {
      if (!signal.aborted) show(text, error.message)
    }
  }

  async function reload() {
    again.disabled = true
    show(outcome, el("p", { class: "hint" }, "Reading…"))
    try {
      const { changes } = await api.reload()
      show(outcome, changed(changes))
    } catch (error) {
      show(outcome, refused(error))
    }
    again.disabled = false
    again.focus()
    load()
  }

  load()
  return { node }
}

function changed(changes) {
  if (changes.length === 0) return el("p", { class: "hint" }, "Read again: nothing has changed.")
  const rows = changes.map(({ key, from, to, needs_restart: later }) => el("tr", {}, el("td", {}, foreign(key, "path")), el("td", {}, foreign(from)), el("td", {}, foreign(to)), el("td", {}, later ? el("span", { class: "tag warn" }, "needs a restart") : "in force")))
  const head = ["Key", "From", "To", ""].map((name) => (name === "" ? el("td", {}) : el("th", { scope: "col" }, name)))
  return [
    el("p", {}, `Read again: ${many(changes.length, "key")} changed.`),
    el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))),
  ]
}

function refused(error) {
  return el("div", { class: "banner problem" }, el("p", {}, "The new configuration is refused; the running one stays."), error.message.split("\n").map((line) => el("p", {}, foreign(line, "path"))))
}

/** A value as YAML would have it, without its quotes: to be read, not to be used. */
function written(value, indent = "") {
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]"
    return value.map((item) => `\n${indent}- ${written(item, `${indent}  `).trimStart()}`).join("")
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value)
    const line = ([key, item]) => {
      const text = written(item, `${indent}  `)
      return `\n${indent}${key}:${text.startsWith("\n") ? "" : " "}${text}`
    }
    const text = entries.map(line).join("")
    return indent === "" ? text.slice(1) : text
  }
  return value === null ? "none" : String(value)
}
