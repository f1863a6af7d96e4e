// The subscriptions: what each is doing, how far behind it is, and why a receiver fails.

import * as api from "./api.js"
import { notify, openForm } from "./dialog.js"
import { button, el, foreign, show } from "./dom.js"
import { bytes, count, many, moment } from "./format.js"
import { link } from "./route.js"

const REFRESH_MS = 5_000

export function subscriptionsView(main) {
  const abort = new AbortController()
  const note = el("div", { role: "status" })
  const list = el("div", { class: "subscriptions-list" })
  const more = button("More", () => {
    pages++
    load()
  }, { class: "hidden" })
  let pages = 1
  let timer = 0
  let turns = 0
  let named = ""

  show(main, el("div", { class: "head" }, el("h1", {}, "Subscriptions")), note, list, more)

  /** All pages that were asked for, again: they are few, and what matters in them changes. */
  async function load() {
    clearTimeout(timer)
    const turn = ++turns
    try {
      const all = []
      let cursor
      for (let page = 0; page < pages && cursor !== null; page++) {
        const answer = await api.subscriptions({ cursor }, abort.signal)
        all.push(...answer.subscriptions)
        cursor = answer.cursor
      }
      if (turn !== turns || abort.signal.aborted) return
      draw(all)
      more.classList.toggle("hidden", cursor === null)
      show(note)
    } catch (error) {
      if (turn !== turns || abort.signal.aborted) return
      show(note, el("p", { class: "banner problem" }, error.message))
    }
    timer = setTimeout(load, REFRESH_MS)
  }

  function draw(all) {
    // Buttons keep the focus: what is made again must not take it away.
    const focused = document.activeElement?.dataset?.key
    if (all.length === 0) return show(list, el("div", { class: "empty" }, el("h2", {}, "No subscriptions"), el("p", {}, "A program makes one to be woken when streams change; it appears here with its state.")))
    const sorted = [...all].sort((a, b) => Number(b.id === named) - Number(a.id === named) || failing(b) - failing(a))
    show(list, sorted.map((one) => card(one, one.id === named, load)))
    if (focused) list.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus()
  }

  return {
    go({ path }) {
      named = path
      load()
    },
    close() {
      abort.abort()
      clearTimeout(timer)
    },
  }
}

function failing({ failures = 0, paused }) {
  return failures > 0 && !paused ? 1 : 0
}

function card(one, chosen, refresh) {
  const { id, tenant, lag = {}, last_error: error } = one
  const tone = one.paused ? "warn" : failing(one) ? "bad" : "good"
  const act = async (action) => {
    try {
      await api.steerSubscription(id, tenant, action)
      notify({ retry: "It is tried again", pause: "Paused", resume: "Resumed" }[action])
    } catch (problem) {
      notify(problem.message, "bad")
    }
    refresh()
  }
  const action = (label, what, attributes) => button(label, what, { "data-key": `${id} ${label}`, ...attributes })
  return el("section", { class: `card subscription${chosen ? " chosen" : ""}` },
    el("div", { class: "subscription-head" },
      el("h2", {}, foreign(id, "path")),
      el("span", { class: `tag ${tone}` }, one.paused ? "paused" : one.state),
      el("span", { class: "tag plain" }, one.type),
      tenant && el("span", { class: "tag" }, "tenant ", foreign(tenant)),
    ),
    one.description && el("p", { class: "hint" }, foreign(one.description)),
    el("dl", { class: "facts" },
      fact(one.type === "webhook" ? "Receiver" : "Wake stream", one.url ? foreign(one.url, "path") : one.wake_stream && el("a", { href: link("streams", one.wake_stream, { tenant }) }, foreign(one.wake_stream))),
      fact("Streams", [one.pattern && foreign(one.pattern, "path"), Number.isFinite(one.streams) && ` ${one.pattern ? "· " : ""}${count(one.streams)} linked`]),
      fact("Behind", lag.streams > 0 ? `${many(lag.streams, "stream")}, ${bytes(lag.bytes ?? 0)}` : "nothing"),
      one.worker && fact("Worker", [foreign(one.worker), one.lease_until && ` until ${moment(one.lease_until)}`]),
      one.last_success && fact("Last success", moment(one.last_success)),
      one.next_retry && fact("Next attempt", moment(one.next_retry)),
    ),
    error && el("p", { class: "banner problem" }, `${many(one.failures ?? 0, "failure")}, the last ${moment(error.at)}: `, error.status && `status ${error.status}, `, foreign(error.detail ?? "")),
    el("div", { class: "actions" },
      action("Retry now", () => act("retry"), { disabled: one.paused || !one.next_retry }),
      one.paused ? action("Resume", () => act("resume")) : action("Pause", () => act("pause")),
      action("Delete…", () => remove(one, refresh), { class: "danger-quiet" }),
    ),
  )
}

function fact(name, value) {
  return el("div", {}, el("dt", {}, name), el("dd", {}, value || "–"))
}

function remove({ id, tenant }, refresh) {
  openForm("Delete the subscription", {
    fields: [el("p", {}, "Its cursors are gone, and its receiver is woken no more: ", foreign(id, "path"))],
    label: "Delete",
    danger: true,
    act: async () => {
      await api.deleteSubscription(id, tenant)
      notify("Deleted")
      refresh()
    },
  })
}
