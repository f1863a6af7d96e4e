// A job of the server, as it goes on.

import * as api from "./api.js"
import { notify } from "./dialog.js"
import { button, el, foreign, show } from "./dom.js"
import { bytes, count, many, moment } from "./format.js"

const POLL_MS = 400

const TONES = { running: "good", done: "", failed: "bad", cancelled: "warn" }

/** The card of a job; `expected` is how many streams a deletion has to delete, where that is known. */
export function jobCard(first, expected) {
  const title = el("p", { class: "job-title" }, named(first))
  const state = el("span", { class: "tag" })
  const bar = el("progress", { "aria-label": "Progress" })
  const numbers = el("span", { class: "dim" })
  const problem = el("p", { class: "problem" })
  const cancel = button("Cancel", () => stop(first.id), { class: "quiet" })
  const node = el("div", { class: "job", "data-job": first.id }, el("div", { class: "job-head" }, title, state, cancel), bar, el("p", {}, numbers), problem)

  function update(job) {
    const running = job.state === "running"
    state.textContent = job.state
    state.className = `tag ${TONES[job.state] ?? ""}`
    cancel.classList.toggle("hidden", !running)
    bar.classList.toggle("hidden", !running)
    const total = job.total ?? expected
    if (total > 0) {
      bar.max = total
      bar.value = Math.min(job.done, total)
    }
    show(numbers, told(job, total), ` · ${running ? "began" : "ended"} ${moment(job.ended ?? job.started)}`)
    show(problem, job.error && foreign(job.error))
  }
  update(first)
  return { node, update }
}

/** Follows a job until it has ended; `ended(job)` is called then. */
export async function followJob(id, card, signal, ended) {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    if (signal.aborted) return
    try {
      const job = await api.job(id, signal)
      if (signal.aborted) return
      card.update(job)
      if (job.state !== "running") return ended(job)
    } catch (error) {
      if (signal.aborted) return
      // A server that is away for a moment is asked again; one that was restarted has forgotten the job.
      if (error.status === 404) return ended(null)
    }
  }
}

function named({ kind, prefix, tenant, destination }) {
  if (kind === "backup") return ["Backup to ", foreign(destination, "path")]
  return ["Delete ", foreign(prefix, "path"), tenant && [" of tenant ", foreign(tenant)]]
}

function told({ kind, done, failed }, total) {
  if (kind === "backup") return total > 0 ? `${bytes(done)} of ${bytes(total)}` : bytes(done)
  const of = total > 0 ? ` of ${count(total)}` : ""
  return `${many(done, "stream")} deleted${of}${failed > 0 ? `, ${count(failed)} could not be` : ""}`
}

async function stop(id) {
  try {
    await api.cancelJob(id)
    notify("It is cancelled; what it has done stays done")
  } catch (error) {
    notify(error.message, "bad")
  }
}
