// Asks for a token. It stays in this tab.

import * as api from "./api.js"
import { el, show } from "./dom.js"
import { signIn, signOut } from "./session.js"

export function signInView(main, done) {
  const field = el("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true, "aria-describedby": "token-help" })
  const problem = el("p", { class: "problem", role: "alert" })
  const submit = el("button", { class: "primary", type: "submit" }, "Sign in")

  async function attempt(event) {
    event.preventDefault()
    submit.disabled = true
    show(problem)
    signIn(field.value.trim())
    try {
      await api.me()
      done()
    } catch (error) {
      signOut()
      show(problem, error.message)
      field.select()
    } finally {
      submit.disabled = false
    }
  }

  show(
    main,
    el("form", { class: "card narrow", onsubmit: attempt },
      el("h1", {}, "Sign in"),
      el("label", { for: "token" }, "API key or token that administers"),
      field,
      el("p", { id: "token-help", class: "hint" }, "It stays in this tab and is forgotten when the tab closes. Make one with:"),
      el("pre", { class: "command", tabindex: "0" }, "durable-streams-server key create --config FILE --name operator --allow administer"),
      problem,
      submit,
    ),
  )
  field.focus()
  return { go() {}, close() {} }
}
