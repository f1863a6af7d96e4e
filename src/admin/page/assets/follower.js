// A live tail: it reads on from an offset, and goes on by itself after the connection or the server went away.
//
// What an event holds counts when the control event behind it has come, since only that says where to go on. An event whose
// control event is missing is read again; so nothing is shown twice, and nothing is left out.

import * as api from "./api.js"
import { KEPT_OF_EVENT } from "./messages.js"
import { SseParser } from "./sse.js"

const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 5_000

/** A connection that brings nothing for this long, not even a comment, is taken for dead. */
const SILENT_MS = 90_000

/** How long the page may be kept busy before it is let draw, milliseconds. */
const BUSY_MS = 12

export class Follower {
  #stream
  #on
  #abort = null
  #wait = FIRST_WAIT_MS
  #data = []
  #begun = 0
  /** Where to go on. */
  offset
  /** connecting, live, waiting, paused, closed or refused */
  state = "paused"

  /** `on.data(events, offset)` for what is committed, `on.state(state, error)`; `stream` is `{ path, tenant }`. */
  constructor(stream, offset, on) {
    this.#stream = stream
    this.offset = offset
    this.#on = on
  }

  async start() {
    if (this.#abort) return
    const abort = new AbortController()
    this.#abort = abort
    while (this.#abort === abort) {
      const pause = await this.#connection(abort.signal)
      if (pause === null || this.#abort !== abort) return
      await new Promise((resolve) => setTimeout(resolve, pause))
    }
  }

  /** Leaves the connection. The next `start` goes on from what was committed. */
  pause() {
    if (this.state === "closed" || this.state === "refused") return this.stop()
    this.stop()
    this.#become("paused")
  }

  stop() {
    this.#abort?.abort()
    this.#abort = null
    this.#data = []
  }

  #become(state, error = null) {
    this.state = state
    this.#on.state(state, error)
  }

  /** One connection; returns how long to wait before the next, milliseconds, or null where there is none. */
  async #connection(signal) {
    this.#data = []
    this.#become("connecting")
    try {
      const response = await api.follow(this.#stream.path, this.#stream.tenant, this.offset, signal)
      this.#become("live")
      if (await this.#read(response, signal)) {
        this.#become("closed")
        return null
      }
      return signal.aborted ? null : FIRST_WAIT_MS
    } catch (error) {
      if (signal.aborted) return null
      const final = error.status >= 400 && error.status < 500 && error.status !== 429
      this.#become(final ? "refused" : "waiting", error)
      if (final) {
        this.#abort = null
        return null
      }
      const pause = this.#wait * (0.75 + Math.random() / 2)
      this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS)
      return pause
    }
  }

  /** Reads the response to its end; true where that is the end of the stream. */
  async #read(response, signal) {
    let closed = false
    const parser = new SseParser(KEPT_OF_EVENT, (event) => {
      // A pause leaves the rest of what came at once for the next connection.
      if (signal.aborted) return
      if (event.name === "data") this.#data.push(event)
      else if (event.name === "control") closed = this.#commit(JSON.parse(event.data)) || closed
    })
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader()
    this.#begun = performance.now()
    for (;;) {
      const silent = setTimeout(() => reader.cancel(), SILENT_MS)
      const { value, done } = await reader.read().finally(() => clearTimeout(silent))
      if (done || signal.aborted) return closed
      parser.push(value)
      if (performance.now() - this.#begun > BUSY_MS) {
        await new Promise((resolve) => setTimeout(resolve))
        this.#begun = performance.now()
      }
    }
  }

  #commit(control) {
    const events = this.#data
    this.#data = []
    this.#wait = FIRST_WAIT_MS
    this.offset = control.streamNextOffset
    const closed = control.streamClosed === true
    this.#on.data(events, { offset: this.offset, upToDate: closed || control.upToDate === true, closed })
    return closed
  }
}
