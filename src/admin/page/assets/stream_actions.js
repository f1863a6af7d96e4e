// What can be done with a stream, as buttons.

import * as api from "./api.js"
import { copy, labelled, notify, openForm } from "./dialog.js"
import { button, el, foreign } from "./dom.js"
import { kindOf } from "./messages.js"
import { go } from "./route.js"
import { token } from "./session.js"
import { shellQuoted } from "./text.js"

/**
 * The buttons. `context` is `{ path, tenant, detail, refresh, removed }`; `point()` is the offset that the tail shows, or
 * undefined.
 */
export function actionsOf(context, point) {
  return [
    button("Append…", () => append(context), { "data-action": "append", "aria-keyshortcuts": "a", class: "primary" }),
    button("Copy curl", () => copy(curl(context, "-1"), "command"), { "aria-keyshortcuts": "c" }),
    button("Fork…", () => fork(context, point())),
    button("Change expiry…", () => changeExpiry(context)),
    button("Close…", () => close(context), { "data-action": "close" }),
    button("Delete…", () => remove(context), { class: "danger-quiet" }),
  ]
}

/** The command that follows the stream from an offset. The token is not in it: it would stay in the shell's history. */
export function curl({ path, tenant }, offset) {
  const query = new URLSearchParams({ offset, live: "sse", ...(tenant ? { tenant } : {}) })
  const header = token() ? `-H "Authorization: Bearer $TOKEN" ` : ""
  return `curl -N ${header}${shellQuoted(`${location.origin}${api.dataUrl(path)}?${query}`)}`
}

function append({ path, tenant, detail, refresh }) {
  const body = el("textarea", { class: "code", rows: "8", spellcheck: "false", autofocus: true })
  const kind = kindOf(detail.content_type)
  const hint = { json: "JSON. An array is appended as one message per element.", text: "Appended as it is, without a line end.", binary: "Appended as the bytes of this text in UTF-8." }[kind]
  openForm("Append", {
    fields: [labelled(detail.content_type, body, hint)],
    label: "Append",
    ready: () => body.value !== "",
    act: async () => {
      await api.append(path, tenant, detail.content_type, body.value)
      notify("Appended")
      refresh()
    },
  })
}

/** Opens the dialog that forks the stream, at an offset or at its tail. */
export function fork({ path, tenant }, offset) {
  const name = el("input", { value: `${path}-fork`, required: true, spellcheck: "false" })
  const at = el("input", { value: offset ?? "", spellcheck: "false", class: "code", placeholder: "the tail" })
  openForm("Fork", {
    fields: [
      labelled("Path of the fork", name, "The fork begins with what the stream holds up to the offset; nothing is copied."),
      labelled("Offset", at, "Without one, all that the stream holds now."),
    ],
    label: "Fork",
    ready: () => name.value !== "",
    act: async () => {
      const headers = { "stream-forked-from": api.dataUrl(path) }
      if (at.value !== "") headers["stream-fork-offset"] = at.value
      await api.create(name.value, tenant, headers)
      notify("Forked")
      return () => go("streams", name.value, { tenant })
    },
  })
}

function changeExpiry({ path, tenant, detail, refresh }) {
  const kind = el("select", { autofocus: true }, [["never", "Never"], ["ttl", "When it was not used for"], ["at", "At a time"]].map(([value, label]) => el("option", { value }, label)))
  const seconds = el("input", { type: "number", min: "1", step: "1", value: detail.ttl_seconds ?? "3600" })
  const at = el("input", { value: detail.expires_at ?? "", spellcheck: "false", class: "code", placeholder: "2030-01-31T12:00:00Z" })
  const secondsField = labelled("Seconds", seconds)
  const atField = labelled("Time", at, "With its time zone; Z is UTC. A time that has passed deletes the stream.")
  const chosen = () => {
    secondsField.hidden = kind.value !== "ttl"
    atField.hidden = kind.value !== "at"
  }
  kind.value = Number.isFinite(detail.ttl_seconds) ? "ttl" : detail.expires_at ? "at" : "never"
  kind.addEventListener("input", chosen)
  chosen()
  openForm("Change the expiry", {
    fields: [labelled("It expires", kind), secondsField, atField],
    label: "Change",
    ready: () => ({ never: true, ttl: Number(seconds.value) >= 1, at: at.value !== "" })[kind.value],
    act: async () => {
      const body = { never: { expires_at: "never" }, ttl: { ttl_seconds: Number(seconds.value) }, at: { expires_at: at.value } }[kind.value]
      await api.changeStream(path, tenant, body)
      notify("Expiry changed")
      refresh()
    },
  })
}

/** Opens the dialog that trims the stream before an offset. */
export function trim({ path, tenant, refresh }, offset) {
  openForm("Trim the stream", {
    fields: [
      el("p", {}, "What is before this offset is deleted for good. Readers that ask for it get 410 and the earliest offset."),
      el("p", {}, "Trim before ", el("code", {}, offset)),
    ],
    label: "Trim",
    danger: true,
    act: async () => {
      await api.changeStream(path, tenant, { trim_before: offset })
      notify("Trimmed")
      refresh()
    },
  })
}

function close({ path, tenant, refresh }) {
  openForm("Close the stream", {
    fields: [el("p", {}, "Nothing can be appended to a closed stream, and its readers are told that it has ended. This cannot be undone.")],
    label: "Close the stream",
    danger: true,
    act: async () => {
      await api.close(path, tenant)
      notify("Closed")
      refresh()
    },
  })
}

function remove({ path, tenant, removed }) {
  const typed = el("input", { spellcheck: "false", autocomplete: "off", class: "code" })
  openForm("Delete the stream", {
    fields: [
      el("p", {}, "Its messages are gone for good. Forks keep what they share with it."),
      el("p", {}, "To delete ", foreign(path, "path"), ", type its path:"),
      labelled("Path", typed),
    ],
    label: "Delete",
    danger: true,
    ready: () => typed.value === path,
    act: async () => {
      await api.deleteStream(path, tenant)
      notify("Deleted")
      removed()
      return () => go("streams")
    },
  })
}
