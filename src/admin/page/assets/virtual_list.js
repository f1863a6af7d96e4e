// A list of rows of one height, of which only those in view are in the document.

const OVERSCAN = 8

export class VirtualList {
  #scroller
  #spacer
  #height
  #render
  #key
  #count = 0
  #rows = new Map()
  #kept = -1
  #frame = 0

  /**
   * `render(index)` makes a row; `key(index)` names it, so that it stays while it is in view, whatever its index becomes.
   * Rows are `height` CSS pixels high.
   */
  constructor(scroller, { height, render, key = (index) => index }) {
    this.#scroller = scroller
    this.#height = height
    this.#render = render
    this.#key = key
    this.#spacer = document.createElement("div")
    this.#spacer.className = "rows"
    this.#spacer.setAttribute("role", "presentation")
    scroller.replaceChildren(this.#spacer)
    scroller.addEventListener("scroll", () => this.#later(), { passive: true })
    new ResizeObserver(() => this.#later()).observe(scroller)
  }

  get count() {
    return this.#count
  }

  /** The row of an index, if it is in the document. */
  row(index) {
    return index >= 0 && index < this.#count ? this.#rows.get(this.#key(index)) : undefined
  }

  /** A row that stays in the document while it is out of view: the one with the focus. */
  keep(index) {
    this.#kept = index
  }

  /** Whether the end is in view. */
  atEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller
    return scrollTop + clientHeight >= scrollHeight - this.#height
  }

  /** Shows `count` rows. `fresh`: whether those in the document are made again. `removed`: how many left the front. */
  update(count, { fresh = false, removed = 0, end = false } = {}) {
    this.#count = count
    if (fresh) {
      for (const row of this.#rows.values()) row.remove()
      this.#rows.clear()
    }
    const before = this.#scroller.scrollTop
    this.#spacer.style.height = `${count * this.#height}px`
    if (end) this.#scroller.scrollTop = count * this.#height
    else if (removed > 0) this.#scroller.scrollTop = before - removed * this.#height
    this.#draw()
  }

  /** Brings a row into view. */
  reveal(index) {
    const top = index * this.#height
    const { scrollTop, clientHeight } = this.#scroller
    if (top < scrollTop) this.#scroller.scrollTop = top
    else if (top + this.#height > scrollTop + clientHeight) this.#scroller.scrollTop = top + this.#height - clientHeight
    this.#draw()
  }

  /** How many rows fit. */
  page() {
    return Math.max(1, Math.floor(this.#scroller.clientHeight / this.#height) - 1)
  }

  #later() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0
      this.#draw()
    })
  }

  #draw() {
    const { scrollTop, clientHeight } = this.#scroller
    const first = Math.max(0, Math.floor(scrollTop / this.#height) - OVERSCAN)
    const last = Math.min(this.#count, Math.ceil((scrollTop + clientHeight) / this.#height) + OVERSCAN)
    const wanted = []
    for (let index = first; index < last; index++) wanted.push(index)
    if (this.#kept >= 0 && this.#kept < first) wanted.unshift(this.#kept)
    else if (this.#kept >= last && this.#kept < this.#count) wanted.push(this.#kept)
    const keys = wanted.map((index) => this.#key(index))
    this.#leave(new Set(keys))
    // Rows stand in the document in their order, for those who do not see where they are drawn.
    let next = this.#spacer.firstChild
    for (const [position, index] of wanted.entries()) {
      let row = this.#rows.get(keys[position])
      if (!row) {
        row = this.#render(index)
        this.#rows.set(keys[position], row)
        this.#spacer.insertBefore(row, next)
      } else next = row.nextSibling
      row.style.transform = `translateY(${index * this.#height}px)`
    }
  }

  /** Removes the rows that are not `wanted` any more. */
  #leave(wanted) {
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue
      row.remove()
      this.#rows.delete(key)
    }
  }
}
