// Deletes all streams below a prefix: a question that says how many there are, and a job that is followed.

import * as api from "./api.js"
import { labelled, notify, openForm } from "./dialog.js"
import { button, el, foreign, show } from "./dom.js"
import { bytes, many } from "./format.js"
import { followJob, jobCard } from "./job_card.js"

const TYPING_MS = 250

/** Where deletions that run are shown. `ended()` is called after each. */
export function prefixDeletion(ended) {
  const abort = new AbortController()
  const node = el("div", { class: "deletions" })

  /** Asks for the prefix, which `prefix` proposes. */
  function ask(prefix, tenant) {
    const field = el("input", { class: "code", value: prefix, spellcheck: "false", autocomplete: "off" })
    const typed = el("input", { class: "code", spellcheck: "false", autocomplete: "off" })
    const holds = el("p", { class: "hint", role: "status" })
    let found = null
    let typing = 0
    let turns = 0

    async function look() {
      const turn = ++turns
      found = null
      if (field.value === "") return show(holds)
      show(holds, "Counting…")
      try {
        const usage = await api.usage({ prefix: field.value, tenant }, abort.signal)
        if (turn !== turns) return
        found = usage.partial ? null : usage.streams
        const more = usage.partial ? "More than " : ""
        show(holds, `${more}${many(usage.streams, "stream")}, ${bytes(usage.bytes)}${tenant ? "" : ", those of tenants not counted and not deleted"}.`)
      } catch (error) {
        if (turn === turns) show(holds, error.message)
      }
    }

    field.addEventListener("input", () => {
      clearTimeout(typing)
      typing = setTimeout(look, TYPING_MS)
    })
    look()
    openForm("Delete by prefix", {
      fields: [
        el("p", {}, "All streams ", tenant && ["of tenant ", foreign(tenant), " "], "whose paths begin with it are gone for good, with their messages. Forks elsewhere keep what they share with them."),
        labelled("Prefix", field, "Byte for byte: with a slash at its end, one folder."),
        holds,
        labelled("The prefix again", typed),
      ],
      label: "Delete them all",
      danger: true,
      ready: () => field.value !== "" && typed.value === field.value,
      act: async () => follow(await api.deletePrefix(field.value, tenant), found),
    })
  }

  function follow(job, expected) {
    const card = jobCard(job, expected)
    const place = el("div", {}, card.node)
    node.append(place)
    followJob(job.id, card, abort.signal, (last) => {
      if (last?.state === "done") notify(`${many(last.done, "stream")} deleted`)
      else notify(last === null ? "The server has forgotten the deletion" : `The deletion is ${last.state}`, "bad")
      place.append(button("Dismiss", () => place.remove(), { class: "quiet" }))
      ended()
    })
  }

  return { node, ask, close: () => abort.abort() }
}
