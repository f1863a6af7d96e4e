// Events of a live tail as the messages that they hold, each bounded.

import { elements } from "./json_text.js"
import { beginning, utf8Length } from "./text.js"

/** UTF-16 units of one message that are kept. */
export const KEPT = 64 << 10

/** UTF-16 units of one event that are kept: an event holds whole appends, and one append may be of any size. */
export const KEPT_OF_EVENT = 1 << 20

/** How a stream's bytes are shown: json, text or binary. */
export function kindOf(contentType) {
  const type = contentType.split(";", 1)[0].trim().toLowerCase()
  if (type === "application/json") return "json"
  return type.startsWith("text/") ? "text" : "binary"
}

/**
 * The messages of an event, each `{ text | bytes, size, kept, cut }`: `size` in bytes, of which `cut` are not shown, and
 * `kept` what is held for it. `rest` of the last one says that more of the event was left out.
 */
export function messagesOf(kind, { data, cut }) {
  if (kind === "binary") return [binary(data, cut)]
  if (kind === "text") return [text(data, cut)]
  const { found } = elements(data)
  return found.map((element, index) => text(element, index === found.length - 1 ? cut : 0))
}

function text(whole, cut) {
  const shown = beginning(whole, KEPT)
  const size = utf8Length(whole) + cut
  return { text: shown, size, kept: shown.length * 2 + 100, cut: size - utf8Length(shown) }
}

/** Base64: every four characters are three bytes. */
function binary(data, cut) {
  const letters = data.replace(/[\r\n]/g, "")
  const shown = letters.slice(0, Math.min(KEPT, letters.length - (letters.length % 4)))
  const bytes = Uint8Array.from(atob(shown), (unit) => unit.charCodeAt(0))
  const size = cut > 0 ? Math.floor(((letters.length + cut) * 3) / 4) : letters.length * 0.75 - (letters.match(/=*$/)?.[0].length ?? 0)
  return { bytes, size, kept: bytes.length + 100, cut: size - bytes.length }
}
