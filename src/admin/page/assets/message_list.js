// The list of messages: one line each, the newest at the bottom. It follows the end until somebody scrolls up.

import { appendVisible, el, show } from "./dom.js"
import { bytes, clock } from "./format.js"
import { hexLine } from "./hex.js"
import { VirtualList } from "./virtual_list.js"

const ROW_HEIGHT = 26

/** What a line shows of a message. */
const PREVIEW_UNITS = 300
const PREVIEW_BYTES = 64

export class MessageList {
  #ring
  #kind
  #rows
  #onChoose
  #box = el("div", { class: "scroller", role: "listbox", "aria-label": "Messages" })
  #empty = el("p", { class: "empty" })
  #follows = true
  #top = 0
  /** The number of the message that is chosen, and of the one with the Tab key. */
  #chosen = 0
  #active = 0

  constructor(ring, kind, onChoose) {
    this.#ring = ring
    this.#kind = kind
    this.#onChoose = onChoose
    this.node = el("div", { class: "message-list" }, this.#box, this.#empty)
    this.#rows = new VirtualList(this.#box, {
      height: ROW_HEIGHT,
      render: (index) => this.#row(this.#ring.at(index)),
      key: (index) => this.#ring.at(index).number,
    })
    this.#box.addEventListener("scroll", () => this.#scrolled(), { passive: true })
    // What takes room from the list must not leave it short of its end.
    new ResizeObserver(() => this.#follows && this.update(0)).observe(this.#box)
    this.#box.addEventListener("keydown", (event) => this.#key(event))
  }

  /** Shows what the ring has become; `removed` messages left its front. */
  update(removed) {
    this.#empty.classList.toggle("hidden", this.#ring.length > 0)
    if (this.#ring.length === 0) return
    const first = this.#ring.at(0).number
    if (this.#active < first) this.#activate(this.#ring.at(this.#ring.length - 1).number)
    this.#rows.keep(this.#active - first)
    this.#rows.update(this.#ring.length, { removed, end: this.#follows })
    this.#top = this.#box.scrollTop
    const latest = this.#ring.at(this.#ring.length - 1)
    if (this.#chosen === 0 && this.#follows) this.#onChoose(latest, true)
  }

  reset() {
    this.#chosen = this.#active = 0
    this.#follows = true
    this.#rows.keep(-1)
    this.#rows.update(0, { fresh: true })
    this.#empty.classList.remove("hidden")
  }

  /** Goes to the end, and stays there. */
  follow() {
    this.#follows = true
    this.#choose(0)
    this.update(0)
  }

  /** What stands where no message is: `empty` or `waiting`. */
  describe(state) {
    show(this.#empty, state === "empty" ? "No messages here yet. New ones appear by themselves." : "…")
  }

  /** Only a move up ends the following: the end also gets out of view when the list grows, or has less room. */
  #scrolled() {
    if (this.#rows.atEnd()) this.#follows = true
    else if (this.#box.scrollTop < this.#top) this.#follows = false
    this.#top = this.#box.scrollTop
  }

  #row(message) {
    const preview = el("span", { class: "preview", dir: "auto" })
    if (message.bytes) preview.append(hexLine(message.bytes, PREVIEW_BYTES))
    else appendVisible(preview, message.text.slice(0, PREVIEW_UNITS).replace(/\s+/g, " "))
    const row = el("div", { class: `row message ${this.#kind}`, role: "option", "aria-selected": String(message.number === this.#chosen) },
      el("span", { class: "when" }, clock(message.at)),
      preview,
      el("span", { class: "size" }, bytes(message.size)),
    )
    row.tabIndex = message.number === this.#active ? 0 : -1
    row.dataset.number = message.number
    row.addEventListener("click", () => {
      this.#focus(message.number)
      this.#choose(message.number)
    })
    return row
  }

  #index(number) {
    return this.#ring.length === 0 ? -1 : number - this.#ring.at(0).number
  }

  #choose(number) {
    this.#rows.row(this.#index(this.#chosen))?.setAttribute("aria-selected", "false")
    this.#chosen = number
    if (number === 0) return
    this.#rows.row(this.#index(number))?.setAttribute("aria-selected", "true")
    this.#onChoose(this.#ring.at(this.#index(number)), false)
  }

  #activate(number) {
    const before = this.#rows.row(this.#index(this.#active))
    if (before) before.tabIndex = -1
    this.#active = number
    this.#rows.keep(this.#index(number))
    const row = this.#rows.row(this.#index(number))
    if (row) row.tabIndex = 0
  }

  #focus(number) {
    const index = this.#index(number)
    if (index < 0 || index >= this.#ring.length) return
    this.#activate(number)
    this.#rows.reveal(index)
    this.#rows.row(index)?.focus({ preventScroll: true })
  }

  #key(event) {
    if (this.#ring.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return
    const first = this.#ring.at(0).number
    const last = first + this.#ring.length - 1
    const to = {
      ArrowDown: Math.min(this.#active + 1, last),
      ArrowUp: Math.max(this.#active - 1, first),
      PageDown: Math.min(this.#active + this.#rows.page(), last),
      PageUp: Math.max(this.#active - this.#rows.page(), first),
      Home: first,
      End: last,
    }[event.key]
    if (to !== undefined) {
      this.#focus(to)
      this.#choose(to)
    } else if (event.key === "Enter" || event.key === " ") this.#choose(this.#active)
    else return
    event.preventDefault()
  }
}
