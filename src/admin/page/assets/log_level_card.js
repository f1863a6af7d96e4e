// The level of the log, and another one for a while.

import * as api from "./api.js"
import { button, el, show } from "./dom.js"
import { moment } from "./format.js"

const LEVELS = ["off", "error", "warn", "info", "debug", "trace"]
const SPANS = [[60, "1 minute"], [600, "10 minutes"], [3_600, "1 hour"], [86_400, "1 day"]]
const REFRESH_MS = 5_000

export function logLevelCard(signal) {
  const now = el("p", { role: "status" })
  const problem = el("p", { class: "problem", role: "alert" })
  const level = el("select", { "aria-label": "Level" }, LEVELS.map((word) => el("option", { value: word, selected: word === "debug" }, word)))
  const span = el("select", { "aria-label": "For how long" }, SPANS.map(([seconds, label]) => el("option", { value: seconds, selected: seconds === 600 }, label)))
  const back = button("Back to the configured level", () => act(api.resetLogLevel), { class: "hidden" })
  const node = el("section", { class: "card" },
    el("h2", {}, "Log level"),
    now,
    el("form", { class: "line", onsubmit: set }, level, el("span", {}, "for"), span, el("button", { type: "submit" }, "Set")),
    back,
    problem,
  )
  let timer = 0
  let shown = ""

  function draw({ level: word, until }) {
    const text = until ? `It is ${word} until ${new Date(until).toLocaleTimeString()}, and then the configured one.` : `It is ${word}, as configured.`
    // Only a change is worth announcing.
    if (text !== shown) show(now, text)
    shown = text
    now.title = until ? moment(until) : ""
    back.classList.toggle("hidden", !until)
  }

  function set(event) {
    event.preventDefault()
    act(() => api.setLogLevel(level.value, Number(span.value)))
  }

  async function act(change) {
    show(problem)
    try {
      draw(await change())
    } catch (error) {
      show(problem, error.message)
    }
  }

  async function load() {
    try {
      draw(await api.logLevel(signal))
    } catch (error) {
      if (signal.aborted) return
      show(problem, error.message)
    }
    timer = setTimeout(load, REFRESH_MS)
  }

  signal.addEventListener("abort", () => clearTimeout(timer))
  load()
  return { node }
}
