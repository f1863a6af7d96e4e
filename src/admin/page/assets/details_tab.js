// What a stream is beside its messages: facts, forks, producers, subscriptions.

import * as api from "./api.js"
import { button, el, foreign, show } from "./dom.js"
import { bytes, count, moment, span } from "./format.js"
import { link } from "./route.js"

export function detailsTab({ path, tenant, detail }) {
  const facts = el("dl", { class: "facts" })
  const forks = el("div", {})
  const linked = el("div", {})
  const producers = producersOf(path, tenant)
  const node = el("div", { class: "details" },
    el("section", { class: "card" }, el("h2", {}, "Facts"), facts),
    el("section", { class: "card" }, el("h2", {}, "Forks"), forks),
    el("section", { class: "card" }, el("h2", {}, "Producers"), producers.node),
    el("section", { class: "card" }, el("h2", {}, "Subscriptions"), linked),
  )

  function update(now) {
    show(facts, factsOf(now).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))))
    show(forks, lineage(now, path, tenant))
    show(linked, subscriptions(now))
    producers.update(now.producers)
  }
  update(detail)
  return { node, update }
}

function factsOf(detail) {
  const { location } = detail
  return [
    ["Content type", foreign(detail.content_type ?? "unknown")],
    ["State", detail.closed ? `closed${detail.closed_by ? " by a producer" : ""}` : "open"],
    ["Next offset", el("code", {}, detail.next_offset)],
    ["Bytes", sized(detail.bytes ?? detail.position)],
    detail.bytes !== undefined && detail.bytes !== detail.position && ["Bytes with what is inherited", sized(detail.position)],
    Number.isFinite(detail.messages) && ["Messages", count(detail.messages)],
    detail.earliest_offset && ["Earliest offset", el("code", {}, detail.earliest_offset)],
    detail.created && ["Created", moment(detail.created)],
    detail.last_append && ["Last append", moment(detail.last_append)],
    Number.isFinite(detail.events) && ["Commits", count(detail.events)],
    Number.isFinite(detail.live_readers) && ["Live readers", count(detail.live_readers)],
    detail.last_used && ["Last used", moment(detail.last_used)],
    Number.isFinite(detail.ttl_seconds) && ["Time to live", span(detail.ttl_seconds)],
    detail.expires_at && ["Expires", moment(detail.expires_at)],
    detail.deadline && ["Goes away unless it is used", moment(detail.deadline)],
    detail.stream_seq && ["Stream-Seq", foreign(detail.stream_seq)],
    ["Public", detail.public ? "yes: everybody may read it" : "no"],
    location && ["Stored in", location.store === "file" ? `files; ${location.sealed_to ? `sealed up to byte ${count(location.sealed_to)}, ` : ""}the index has it up to byte ${count(location.indexed_to ?? 0)}` : "memory"],
    location?.inherited?.length > 0 && ["Inherited", location.inherited.map((part) => el("div", {}, part.stream ? foreign(part.stream) : "a deleted stream", ` bytes ${count(part.from)} to ${count(part.to)}`))],
  ].filter(Boolean)
}

function sized(size) {
  return Number.isFinite(size) ? `${bytes(size)} (${count(size)})` : "–"
}

/** Where the stream comes from and what comes from it, as a small tree. */
function lineage({ forked_from: source, forks_listed: listed = [], forks = 0 }, path, tenant) {
  const one = (name, at, ...inner) => el("li", {}, el("a", { href: link("streams", name, { tenant }) }, foreign(name, "path")), at !== null && el("span", { class: "dim" }, ` at byte ${count(at)}`), inner)
  const children = listed.map((fork) => one(fork.path, fork.position))
  const more = forks - listed.length
  const below = children.length > 0 && el("ul", {}, children, more > 0 && el("li", { class: "dim" }, `and ${count(more)} more`))
  const self = el("li", {}, el("strong", {}, foreign(path, "path")), source && el("span", { class: "dim" }, ` left it at byte ${count(source.position)}`), below)
  const whole = source ? el("ul", { class: "lineage" }, one(source.path, null, el("ul", {}, self))) : el("ul", { class: "lineage" }, self)
  if (!source && children.length === 0) return el("p", { class: "hint" }, "It is no fork, and has none.")
  return whole
}

function subscriptions({ subscriptions: all = [] }) {
  if (all.length === 0) return el("p", { class: "hint" }, "No subscription follows this stream.")
  return el("ul", { class: "plain" }, all.map(({ id, tenant }) => el("li", {}, el("a", { href: link("subscriptions", id, { tenant }) }, foreign(id)))))
}

/** The producers, a page at a time. */
function producersOf(path, tenant) {
  const node = el("div", {})
  const rows = el("tbody", {})
  const problem = el("p", { class: "problem" })
  const more = button("More", load, { class: "hidden" })
  let cursor
  let known = 0

  async function load() {
    try {
      const page = await api.producers(path, tenant, cursor)
      if (cursor === undefined) show(rows)
      rows.append(...page.producers.map(({ id, epoch, last_seq: last }) => el("tr", {}, el("td", {}, foreign(id)), el("td", { class: "number" }, count(epoch)), el("td", { class: "number" }, count(last)))))
      cursor = page.cursor
      show(problem)
    } catch (error) {
      show(problem, error.message)
    }
    more.classList.toggle("hidden", !cursor)
  }

  function update(number = 0) {
    if (number === known && number > 0) return
    known = number
    cursor = undefined
    if (number === 0) return show(node, el("p", { class: "hint" }, "No idempotent producer has appended to it."))
    const head = ["Producer", "Epoch", "Last sequence"].map((name) => el("th", { scope: "col" }, name))
    show(node, el("table", {}, el("thead", {}, el("tr", {}, head)), rows), problem, more)
    load()
  }
  return { node, update }
}
