// What the server says of itself, for people.

import { el, foreign } from "./dom.js"
import { bytes, count, moment } from "./format.js"

const DAY_MS = 86_400_000

/** A certificate that ends sooner is worth a look: those that are renewed by themselves are renewed before. */
const SOON_MS = 14 * DAY_MS

export function facts({ version, commit, started, ready, not_ready: reason, store, streams, stored_bytes: stored, live_readers: readers, inflight_append_bytes: inflight, expired, subscriptions, log, index, checkpoint, disk }) {
  const all = [
    ["Version", [version, commit && el("span", { class: "dim" }, ` ${commit}`)]],
    ["Up since", moment(started)],
    ["Ready", ready ? [dot("good"), "yes"] : [dot("bad"), foreign(reason ?? "no")]],
    ["Store", [store.kind === "file" ? "files" : "memory", store.directory && [" in ", foreign(store.directory, "path")], store.format && `, format ${store.format}`]],
    ["Takes writes", store.writable ? [dot("good"), "yes"] : [dot("bad"), foreign(store.error ?? "no")]],
    ["Streams", `${count(streams)}, ${bytes(stored)}`],
    ["Live readers", count(readers)],
    ["Being appended", bytes(inflight)],
    ["Expired", `${count(expired)} since the start`],
    ["Subscriptions", count(subscriptions)],
    log && ["Log", `${bytes(log.reserved_bytes)} on disk, ${bytes(log.written_bytes)} written`],
    index && ["Index", [`${bytes(index.bytes)}, ${bytes(index.free_bytes)} of it free`, !index.available && [" ", dot("bad"), "not available"]]],
    checkpoint && ["Checkpoints", [`${count(checkpoint.completed)} completed, ${count(checkpoint.lag_events)} events to go`, checkpoint.failed > 0 && [" ", dot("bad"), `${count(checkpoint.failed)} failed`]]],
    disk && ["Disk free", [Number.isFinite(disk.free_bytes) ? bytes(disk.free_bytes) : "unknown", disk.limit_bytes && `, ${bytes(disk.limit_bytes)} allowed`]],
  ].filter(Boolean)
  return el("dl", { class: "facts" }, all.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))))
}

/** The certificates by their ends, and the orders that fail. */
export function certificates({ certificates: all = [], orders = [] }) {
  if (all.length === 0 && orders.length === 0) return el("p", { class: "hint" }, "No listener has TLS.")
  const sorted = [...all].sort((a, b) => Date.parse(a.not_after) - Date.parse(b.not_after))
  const rows = sorted.map(({ names, not_after: end }) => el("tr", {}, el("td", {}, names.map((name, index) => [index > 0 && ", ", foreign(name)])), el("td", {}, dot(tone(end)), moment(end))))
  const failing = orders.filter(({ failures }) => failures > 0)
  return [
    rows.length > 0 && el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, ["Names", "Valid until"].map((name) => el("th", { scope: "col" }, name)))), el("tbody", {}, rows))),
    failing.map(({ host, failures }) => el("p", { class: "banner problem" }, "The certificate of ", foreign(host), ` could not be ordered ${count(failures)} times in a row; the log says why.`)),
  ]
}

function tone(end) {
  const left = Date.parse(end) - Date.now()
  return left < 0 ? "bad" : left < SOON_MS ? "busy" : "good"
}

function dot(look) {
  return el("span", { class: `dot ${look}` })
}
