// One stream: its state, its messages, and what can be done with it.

import * as api from "./api.js"
import { detailsTab } from "./details_tab.js"
import { button, el, foreign, icon, show } from "./dom.js"
import { bytes, span } from "./format.js"
import { link } from "./route.js"
import { actionsOf } from "./stream_actions.js"
import { messagesTab } from "./messages_tab.js"
import { visible } from "./text.js"

const REFRESH_MS = 5_000

/** `stream` is `{ path, tenant }`; `removed()` is called when it has been deleted from here. */
export function streamView(pane, stream, { removed }) {
  const abort = new AbortController()
  const tags = el("div", { class: "tags" })
  const actions = el("div", { class: "actions" })
  const panel = el("div", { class: "panel", role: "tabpanel", id: "panel", "aria-labelledby": "tab-messages" })
  const head = (...more) => el("div", { class: "stream-head" },
    el("a", { class: "back", href: link("streams") }, icon("back"), "All streams"),
    el("h2", {}, foreign(stream.path, "path")),
    more,
  )
  let tabs = null
  let detail = null
  let timer = 0

  function failed(error) {
    const gone = error.status === 404 || error.status === 410
    const text = gone ? "There is no such stream. It may have been deleted, or its time was up." : error.message
    show(pane, head(), el("div", { class: "empty" }, el("p", { class: "problem", role: "alert" }, text), button("Try again", load)))
  }

  async function load() {
    clearTimeout(timer)
    try {
      detail = await api.stream(stream.path, stream.tenant, abort.signal)
    } catch (error) {
      if (abort.signal.aborted) return
      // What is on the screen stays while the server is away for a moment.
      if (!tabs || error.status === 404 || error.status === 410) {
        tabs?.close()
        tabs = null
        return failed(error)
      }
    }
    if (abort.signal.aborted) return
    if (!tabs) begin()
    describe()
    timer = setTimeout(load, REFRESH_MS)
  }

  function begin() {
    show(pane, head(tags, actions))
    const context = { ...stream, detail, refresh: load, removed, next: () => detail.next_offset }
    tabs = openTabs(panel, context)
    pane.append(tabs.bar, panel)
    show(actions, actionsOf(context, () => tabs.point()))
  }

  function describe() {
    show(tags,
      el("span", { class: "tag" }, foreign(detail.content_type ?? "unknown type")),
      el("span", { class: detail.closed ? "tag" : "tag good" }, detail.closed ? "closed" : "open"),
      stream.tenant && el("span", { class: "tag" }, "tenant ", foreign(stream.tenant)),
      detail.public && el("span", { class: "tag warn" }, "public"),
      Number.isFinite(detail.position) && el("span", { class: "tag plain" }, bytes(detail.position)),
      Number.isFinite(detail.ttl_seconds) && el("span", { class: "tag plain" }, `ends ${span(detail.ttl_seconds)} after its last use`),
      detail.forked_from && el("span", { class: "tag plain" }, "fork of ", el("a", { href: link("streams", detail.forked_from.path, { tenant: stream.tenant }) }, foreign(detail.forked_from.path))),
    )
    actions.querySelector("[data-action=append]")?.toggleAttribute("disabled", Boolean(detail.closed))
    actions.querySelector("[data-action=close]")?.toggleAttribute("disabled", Boolean(detail.closed))
    tabs.update(detail)
  }

  document.title = `${visible(stream.path)} · Durable Streams`
  show(pane, head(), el("div", { class: "empty" }, el("span", { class: "spinner", "aria-hidden": "true" }), "Loading…"))
  load()

  return {
    close() {
      abort.abort()
      clearTimeout(timer)
      tabs?.close()
    },
  }
}

const TABS = { messages: ["Messages", messagesTab], details: ["Details", detailsTab] }

/** The tabs of a stream. The messages stay open behind the details, so that the tail goes on. */
function openTabs(panel, context) {
  const bar = el("div", { class: "tabs", role: "tablist", "aria-label": "About the stream" })
  const opened = {}
  let shown = ""

  function choose(name) {
    shown = name
    for (const tab of bar.children) {
      const chosen = tab.id === `tab-${name}`
      tab.setAttribute("aria-selected", String(chosen))
      tab.tabIndex = chosen ? 0 : -1
    }
    panel.setAttribute("aria-labelledby", `tab-${name}`)
    opened[name] ??= TABS[name][1](context)
    show(panel, opened[name].node)
    opened[name].shown?.()
  }

  for (const [name, [label]] of Object.entries(TABS)) {
    bar.append(el("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "panel", onclick: () => choose(name) }, label))
  }
  bar.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
    if (!step) return
    const names = Object.keys(TABS)
    choose(names[(names.indexOf(shown) + step + names.length) % names.length])
    bar.querySelector("[aria-selected=true]").focus()
  })
  choose("messages")

  return {
    bar,
    update: (detail) => Object.values(opened).forEach((tab) => tab.update?.(detail)),
    close: () => Object.values(opened).forEach((tab) => tab.close?.()),
    point: () => opened.messages.point(),
  }
}
