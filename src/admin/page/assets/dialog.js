// Dialogs and short notices.

import { button, el, show } from "./dom.js"

/** Opens a dialog that `build(body, actions, dialog)` fills; it is removed when it closes, and the focus goes back. */
export function openDialog(title, build) {
  const before = document.activeElement
  const body = el("div", { class: "dialog-body" })
  const actions = el("div", { class: "actions" })
  const heading = el("h2", { id: "dialog-title" }, title)
  const dialog = el("dialog", { "aria-labelledby": "dialog-title", onclose: () => {
    dialog.remove()
    before?.focus?.()
  } })
  dialog.append(heading, body, actions)
  document.body.append(dialog)
  build(body, actions, dialog)
  dialog.showModal()
  return dialog
}

/** Closes what is open: the page has gone to another place. */
export function closeDialogs() {
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close()
}

/**
 * A dialog with fields and one button that does something: `act()` may throw, and what it says is shown in the dialog. What it
 * returns is called at the end, unless the dialog was left meanwhile: an answer that is late must not take its reader away from
 * where they went. The button is enabled while `ready()` is true.
 */
export function openForm(title, { fields, label, danger = false, ready = () => true, act }) {
  return openDialog(title, (body, actions, dialog) => {
    const problem = el("p", { class: "problem", role: "alert" })
    const submit = el("button", { type: "submit", form: "dialog-form", class: danger ? "danger" : "primary" }, label)
    const check = () => (submit.disabled = !ready())
    const form = el("form", { id: "dialog-form", oninput: check, onsubmit: async (event) => {
      event.preventDefault()
      if (!ready()) return
      submit.disabled = true
      show(problem)
      try {
        const next = await act()
        if (!dialog.open) return
        dialog.close()
        next?.()
      } catch (error) {
        show(problem, error.message)
        check()
      }
    } }, fields)
    show(body, form, problem)
    show(actions, button("Cancel", () => dialog.close()), submit)
    check()
  })
}

/** A label with its field. */
export function labelled(text, field, hint) {
  const help = hint && el("span", { class: "hint" }, hint)
  return el("label", { class: "field" }, el("span", {}, text), field, help)
}

/** Says something for a few seconds. */
export function notify(text, kind = "good") {
  const toast = el("div", { class: `toast ${kind}` }, text)
  document.getElementById("toasts").append(toast)
  setTimeout(() => toast.remove(), 4_000)
}

/** Puts text on the clipboard, or shows it where the browser refuses. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text)
    notify(`${what} copied`)
  } catch {
    openDialog(`Copy ${what}`, (body, actions, dialog) => {
      const field = el("textarea", { class: "code", rows: "5", readonly: true, "aria-label": what })
      field.value = text
      show(body, field)
      show(actions, button("Close", () => dialog.close(), { class: "primary" }))
      queueMicrotask(() => field.select())
    })
  }
}
