// The server at a glance, made to be left open: the last minutes as plots, and what it holds.

import * as api from "./api.js"
import { el, show } from "./dom.js"
import { bytes, count, moment, short, span } from "./format.js"
import { plot } from "./plot.js"
import { upstreamTable } from "./upstream_table.js"

const one = (key, label = "now", tone = "main") => [{ key, label, tone }]
const rate = (value) => `${short(value)}/s`

const PLOTS = [
  ["Appends", { lines: one("appends"), format: rate, floor: 1 }],
  ["Reads", { lines: one("reads"), format: rate, floor: 1 }],
  ["Deliveries", { lines: one("deliveries"), format: rate, floor: 1 }],
  ["Live readers", { lines: one("live_readers"), format: short, floor: 1 }],
  ["Append latency", { lines: [...one("append_p50", "median"), ...one("append_p99", "99 %", "second")], format: span }],
  ["Read latency", { lines: [...one("read_p50", "median"), ...one("read_p99", "99 %", "second")], format: span }],
  ["Errors", { lines: [...one("errors", "5xx", "bad"), ...one("refused", "4xx", "warn")], format: rate, floor: 1 }],
  ["Log", { lines: one("log_bytes", "on disk"), format: bytes, floor: 1, optional: true }],
]

export function overviewView(main) {
  const abort = new AbortController()
  const plots = PLOTS.map(([title, options]) => plot(title, options))
  const banner = el("div", { role: "alert" })
  const numbers = el("dl", { class: "tiles" })
  const upstreams = el("section", { class: "card upstreams" })
  const heading = el("h1", {}, "Overview")
  const since = el("p", { class: "hint" })
  let timer = 0

  show(main, el("div", { class: "head" }, heading, since), banner, numbers, el("div", { class: "plots" }, plots.map(({ node }) => node)), upstreams)

  async function load() {
    let pause = 5
    try {
      const now = await api.overview(abort.signal)
      pause = now.interval_seconds ?? pause
      update(now)
      show(banner)
    } catch (error) {
      if (abort.signal.aborted) return
      const text = error.status === 403 ? "The overview is of the whole server, and these credentials are of a tenant." : error.message
      show(banner, el("p", { class: "banner problem" }, text))
      main.classList.toggle("stale", true)
    }
    timer = setTimeout(load, pause * 1000)
  }

  function update(now) {
    main.classList.toggle("stale", false)
    show(since, `${now.version} · up since ${moment(now.started)}`)
    show(numbers, tiles(now).map(([name, value, detail]) => el("div", { class: "tile" }, el("dt", {}, name), el("dd", {}, el("b", {}, value), detail && el("span", {}, detail)))))
    for (const one of plots) one.update(now.history ?? [])
    show(upstreams, el("h2", {}, "Upstreams"), upstreamTable(now.upstreams ?? []))
    upstreams.classList.toggle("hidden", (now.upstreams ?? []).length === 0)
  }

  load()
  return {
    go() {},
    close() {
      abort.abort()
      clearTimeout(timer)
    },
  }
}

function tiles({ streams, bytes: stored, subscriptions, live_readers: readers, totals, log, index_bytes: index, disk_free: free, disk_limit: limit, checkpoint_lag: lag, inflight_append_bytes: inflight }) {
  const live = (readers?.sse ?? 0) + (readers?.long_poll ?? 0)
  return [
    ["Streams", count(streams), bytes(stored)],
    ["Live readers", count(live), `${count(readers?.sse ?? 0)} SSE, ${count(readers?.long_poll ?? 0)} long-poll`],
    ["Subscriptions", count(subscriptions ?? 0), `${count(totals?.delivery_failures ?? 0)} deliveries failed`],
    ["In flight", bytes(inflight ?? 0), "being appended"],
    log && ["Log", bytes(log.bytes), Number.isFinite(lag) && `${count(lag)} events to checkpoint`],
    Number.isFinite(index) && ["Index", bytes(index)],
    Number.isFinite(free) && ["Disk free", bytes(free), limit ? `of ${bytes(limit)} allowed` : null],
  ].filter(Boolean)
}
