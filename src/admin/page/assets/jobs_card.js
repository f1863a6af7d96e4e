// What outlasts a request: deletions by prefix and backups, and how to begin a backup.

import * as api from "./api.js"
import { labelled, notify, openForm } from "./dialog.js"
import { button, el, show } from "./dom.js"
import { jobCard } from "./job_card.js"

const BUSY_MS = 500
const IDLE_MS = 5_000

export function jobsCard(signal) {
  const list = el("div", { class: "jobs" })
  const note = el("p", { class: "hint" })
  const begin = button("Back up…", askForName, { class: "hidden" })
  const node = el("section", { class: "card jobs-card" },
    el("div", { class: "card-head" }, el("h2", {}, "Jobs"), begin),
    note,
    list,
  )
  const cards = new Map()
  let timer = 0
  let turns = 0

  async function load() {
    clearTimeout(timer)
    const turn = ++turns
    let pause = IDLE_MS
    try {
      const { jobs } = await api.jobs(signal)
      if (turn !== turns) return
      draw(jobs)
      if (jobs.some(({ state }) => state === "running")) pause = BUSY_MS
    } catch (error) {
      if (signal.aborted || turn !== turns) return
      show(note, error.message)
    }
    timer = setTimeout(load, pause)
  }

  /** Newest first, as the server has them. Cards stay what they are, so that a button keeps the focus. */
  function draw(jobs) {
    show(note, jobs.length === 0 && "None since the server started. Streams are deleted by prefix in their list.")
    const known = new Set(jobs.map(({ id }) => id))
    for (const [id, card] of cards) {
      if (known.has(id)) continue
      card.node.remove()
      cards.delete(id)
    }
    for (const job of [...jobs].reverse()) {
      const card = cards.get(job.id)
      if (card) card.update(job)
      else {
        const made = jobCard(job)
        cards.set(job.id, made)
        list.prepend(made.node)
      }
    }
  }

  function askForName() {
    const name = el("input", { value: `backup-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}`, spellcheck: "false", autocomplete: "off" })
    openForm("Back up", {
      fields: [
        el("p", {}, "A copy of all streams as they are now, checked to the last checksum, while appends and reads go on."),
        labelled("Name", name, "Of a new directory in admin.backups: letters, digits, '-', '_' and '.'"),
      ],
      label: "Back up",
      ready: () => name.value.trim() !== "",
      act: async () => {
        await api.startBackup(name.value.trim())
        notify("The backup has begun")
        load()
      },
    })
  }

  signal.addEventListener("abort", () => clearTimeout(timer))
  load()
  return { node, offerBackup: () => begin.classList.remove("hidden") }
}
