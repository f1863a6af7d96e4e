// The server as a whole: how it is, what it was told, and what it is doing.

import * as api from "./api.js"
import { configCard } from "./config_card.js"
import { el, show } from "./dom.js"
import { jobsCard } from "./jobs_card.js"
import { logLevelCard } from "./log_level_card.js"
import { certificates, facts } from "./server_status.js"
import { upstreamTable } from "./upstream_table.js"

const REFRESH_MS = 5_000

export function serverView(main) {
  const abort = new AbortController()
  const { signal } = abort
  const note = el("div", { role: "alert" })
  const state = card("Status")
  const secured = card("Certificates")
  const upstreams = card("Upstreams")
  const jobs = jobsCard(signal)
  // What is of the whole server, which an administrator of a tenant does not see.
  const beside = el("div", { class: "stack" }, secured.node, upstreams.node)
  const whole = el("div", { class: "server-cards" }, state.node, beside)
  let begun = false
  let timer = 0

  show(main, el("div", { class: "head" }, el("h1", {}, "Server")), note, whole, jobs.node)

  async function load() {
    try {
      const now = await api.status(signal)
      if (signal.aborted) return
      if (!begun) begin()
      show(state.body, facts(now))
      show(secured.body, certificates(now))
      show(upstreams.body, upstreamTable(now.upstreams))
      upstreams.node.classList.toggle("hidden", now.upstreams.length === 0)
      show(note)
    } catch (error) {
      if (signal.aborted) return
      if (error.status === 403) return ofTenant()
      show(note, el("p", { class: "banner problem" }, error.message))
    }
    timer = setTimeout(load, REFRESH_MS)
  }

  function begin() {
    begun = true
    beside.append(logLevelCard(signal).node)
    main.append(configCard(signal).node)
    jobs.offerBackup()
  }

  function ofTenant() {
    whole.classList.add("hidden")
    show(note, el("p", { class: "banner" }, "These credentials are of a tenant: they see its jobs, and not the server's."))
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

function card(title) {
  const body = el("div", {})
  return { body, node: el("section", { class: "card" }, el("h2", {}, title), body) }
}
