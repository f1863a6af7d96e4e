// Server-sent events out of the text of a response, piece by piece, with a bound on what is kept of an event.

/** Calls `onEvent({ name, data, cut })` for each event; `cut` is how many UTF-16 units of its data were not kept. */
export class SseParser {
  #most
  #onEvent
  #line = ""
  // Whether the line has had any text, kept or not.
  #begun = false
  #cut = 0
  #name = ""
  #data = []
  #size = 0

  /** `most`: UTF-16 units of an event's data that are kept. */
  constructor(most, onEvent) {
    this.#most = most
    this.#onEvent = onEvent
  }

  push(text) {
    let from = 0
    while (from < text.length) {
      const end = text.indexOf("\n", from)
      this.#extend(text, from, end < 0 ? text.length : end)
      if (end < 0) return
      this.#endLine()
      from = end + 1
    }
  }

  #extend(text, from, to) {
    const room = Math.max(0, this.#most - this.#size - this.#line.length)
    const kept = Math.min(to - from, room)
    this.#line += text.slice(from, from + kept)
    this.#cut += to - from - kept
    this.#begun ||= to > from
  }

  #endLine() {
    const line = this.#line
    if (!this.#begun) return this.#dispatch()
    this.#line = ""
    this.#begun = false
    const colon = line.indexOf(":")
    const field = colon < 0 ? line : line.slice(0, colon)
    const value = colon < 0 ? "" : line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1)
    if (field === "event") this.#name = value
    else if (field === "data") {
      this.#data.push(value)
      this.#size += value.length + 1
    }
  }

  #dispatch() {
    if (this.#name !== "" || this.#data.length > 0) {
      this.#onEvent({ name: this.#name || "message", data: this.#data.join("\n"), cut: this.#cut })
    }
    this.#name = ""
    this.#data = []
    this.#size = 0
    this.#cut = 0
  }
}
