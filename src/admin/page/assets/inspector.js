// The message that is looked at, whole as far as the page keeps it.

import { copy } from "./dialog.js"
import { appendVisible, button, el, show } from "./dom.js"
import { bytes, clock } from "./format.js"
import { hexDump } from "./hex.js"
import { pretty } from "./json_text.js"
import { kindOf } from "./messages.js"
import { curl, fork, trim } from "./stream_actions.js"

/** Tokens and bytes that are shown; what is larger says so. */
const MOST_TOKENS = 5_000
const MOST_BYTES = 4_096

/** The newest message is shown as it comes, but not more often than this. */
const FOLLOWING_MS = 120

export function inspector(context) {
  const kind = kindOf(context.detail.content_type ?? "")
  const body = el("pre", { class: "body", tabindex: "0", "aria-label": "Message" })
  const facts = el("div", { class: "facts-line" })
  const form = el("select", { "aria-label": "Shown as" }, forms(kind).map(([value, label]) => el("option", { value }, label)))
  const actions = el("div", { class: "actions" },
    button("Copy", () => copy(plain(state.message), "message")),
    button("Copy curl from here", () => copy(curl(context, state.message.from), "command")),
    button("Fork from here…", () => fork(context, state.message.offset)),
    button("Trim before this…", () => trim(context, state.message.from)),
    form,
  )
  const node = el("section", { class: "inspector", "aria-label": "The chosen message" })
  const state = { message: null, node, show: choose }
  let due = 0
  let next = null

  function choose(message, latest) {
    if (!latest) {
      next = null
      return draw(message)
    }
    next = message
    due ||= setTimeout(() => {
      due = 0
      if (next) draw(next)
    }, state.message ? FOLLOWING_MS : 0)
  }

  function draw(message) {
    const fresh = state.message === null
    state.message = message
    if (message === null) return show(node, el("p", { class: "empty" }, "Choose a message to see all of it."))
    if (fresh) show(node, facts, actions, body)
    show(facts, el("strong", {}, `Message ${message.number}`), ` · ${clock(message.at)} · ${bytes(message.size)} · next offset `, el("code", {}, message.offset))
    show(body)
    render(body, message, form.value)
    if (message.cut > 0) body.append(el("span", { class: "cut" }, `\n${bytes(message.cut)} more are not shown.`))
  }

  form.addEventListener("change", () => state.message && draw(state.message))
  draw(null)
  return state
}

function forms(kind) {
  const raw = [["text", "As it was sent"], ["hex", "Bytes"]]
  return kind === "json" ? [["json", "Indented"], ...raw] : kind === "text" ? raw : [["hex", "Bytes"], ["text", "As text"]]
}

function render(body, message, form) {
  if (form === "json") return indented(body, message.text)
  if (form === "text") return appendVisible(body, plain(message))
  const held = message.bytes ?? new TextEncoder().encode(message.text)
  body.append(hexDump(held, MOST_BYTES))
  if (held.length > MOST_BYTES) body.append(el("span", { class: "cut" }, `\n${bytes(held.length - MOST_BYTES)} more are kept, but not shown.`))
}

function indented(body, text) {
  for (const { kind, text: part } of pretty(text, MOST_TOKENS)) {
    if (kind === "space" || kind === "mark") body.append(part)
    else {
      const span = el("span", { class: `json-${kind}` })
      appendVisible(span, part)
      body.append(span)
    }
  }
}

/** The message as text. */
function plain(message) {
  return message.text ?? new TextDecoder().decode(message.bytes)
}
