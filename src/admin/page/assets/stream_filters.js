// What a list of streams leaves out: by type, by last use, by what ends it, by size.

import { labelled } from "./dialog.js"
import { button, el } from "./dom.js"

const TYPING_MS = 300

const HOUR = 3_600
const DAY = 24 * HOUR
const SPANS = [["", "Any"], [HOUR, "1 hour"], [DAY, "1 day"], [7 * DAY, "7 days"], [30 * DAY, "30 days"], [365 * DAY, "1 year"]]
const SIZES = [["", "Any"], [0, "0 B"], [1 << 10, "1 KiB"], [1 << 20, "1 MiB"], [100 << 20, "100 MiB"], [2 ** 30, "1 GiB"]]

const choice = (options) => el("select", {}, options.map(([value, label]) => el("option", { value }, label)))

/** A time that is so many seconds away, as the API takes it. */
const away = (seconds) => new Date(Date.now() + seconds * 1000).toISOString()

/** `changed()` is called when the list has to be read again. */
export function streamFilters(changed) {
  const type = el("input", { spellcheck: "false", autocomplete: "off", placeholder: "application/json" })
  const idle = choice(SPANS)
  const ending = choice(SPANS)
  const larger = choice(SIZES)
  const fields = [type, idle, ending, larger]
  const summary = el("summary", {}, "Filter")
  const node = el("details", { class: "filters" }, summary,
    el("div", { class: "filter-fields" },
      labelled("Content type", type),
      labelled("Not used for", idle),
      labelled("Ends within", ending),
      labelled("Larger than", larger),
      button("Clear", clear, { class: "quiet" }),
    ),
  )
  let typing = 0

  const active = () => fields.filter((field) => field.value.trim() !== "").length

  function update() {
    clearTimeout(typing)
    summary.textContent = active() > 0 ? `Filter (${active()})` : "Filter"
    changed()
  }

  function clear() {
    for (const field of fields) field.value = ""
    update()
  }

  for (const field of fields) field.addEventListener("change", update)
  type.addEventListener("input", () => {
    clearTimeout(typing)
    typing = setTimeout(update, TYPING_MS)
  })

  return {
    node,
    clear,
    active,
    /** As parameters of the listing; times are counted from now. */
    query: () => ({
      content_type: type.value.trim(),
      idle_since: idle.value === "" ? undefined : away(-idle.value),
      expires_before: ending.value === "" ? undefined : away(Number(ending.value)),
      larger_than: larger.value === "" ? undefined : Number(larger.value),
    }),
    close: () => clearTimeout(typing),
  }
}
