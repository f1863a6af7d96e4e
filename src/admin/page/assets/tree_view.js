// The tree on the screen: rows in view only, one of them in the order of the Tab key, arrow keys between them.

import { el, foreign, icon } from "./dom.js"
import { bytes } from "./format.js"
import { visible } from "./text.js"
import { VirtualList } from "./virtual_list.js"

const ROW_HEIGHT = 30

export class TreeView {
  #list
  #box
  #tree = null
  #active = 0
  #selected = ""
  #on

  /** `on.open(stream)` when a stream is chosen, `on.remove(prefix)` when all of a folder is to be deleted. */
  constructor(box, on) {
    this.#box = box
    this.#on = on
    box.setAttribute("role", "tree")
    this.#list = new VirtualList(box, {
      height: ROW_HEIGHT,
      render: (index) => this.#row(index),
      key: (index) => this.#tree.rows[index].id,
    })
    box.addEventListener("keydown", (event) => this.#key(event))
    box.addEventListener("focusin", (event) => this.#activate(this.#indexOf(event.target)))
  }

  /** Shows another tree from its beginning. */
  show(tree) {
    this.#tree = tree
    this.#active = 0
    this.#list.keep(0)
    this.#box.scrollTop = 0
    this.#list.update(tree.rows.length, { fresh: true })
  }

  /** Shows what the tree has become. */
  refresh() {
    const hadFocus = this.#box.contains(document.activeElement)
    const last = Math.max(0, this.#tree.rows.length - 1)
    this.#active = Math.min(this.#active, last)
    this.#list.keep(this.#active)
    this.#list.update(this.#tree.rows.length, { fresh: true })
    if (hadFocus) this.#focus(this.#active)
  }

  /** Marks the stream that is shown beside the tree. */
  select(path, tenant) {
    this.#selected = `stream ${tenant ?? ""} ${path}`
    for (const row of this.#box.querySelectorAll("[role=treeitem]")) {
      row.setAttribute("aria-selected", String(row.dataset.id === this.#selected))
    }
  }

  /** What the paths of the active folder begin with; of a stream's, the folder it is in. */
  get prefix() {
    const node = this.#tree?.rows[this.#active]
    if (!node) return ""
    const path = node.prefix ?? node.stream?.path ?? ""
    return path.slice(0, path.lastIndexOf("/") + 1)
  }

  #row(index) {
    const node = this.#tree.rows[index]
    const row = this.#bare(node)
    row.dataset.id = node.id
    row.style.setProperty("--depth", node.depth)
    row.tabIndex = index === this.#active ? 0 : -1
    row.setAttribute("aria-level", node.depth + 1)
    row.addEventListener("click", () => {
      this.#focus(this.#indexOf(row))
      this.#choose(node)
    })
    return row
  }

  #bare(node) {
    if (node.kind === "more") return this.#more(node)
    if (node.kind === "folder") {
      const name = node.label === "/" ? el("span", { class: "dim" }, "(empty)/") : foreign(node.label, "name")
      return el("div", { class: "row folder", role: "treeitem", "aria-expanded": String(node.open), title: visible(node.prefix) }, icon(node.open ? "open" : "closed"), name)
    }
    const { stream } = node
    return el(
      "div",
      { class: "row stream", role: "treeitem", "aria-selected": String(node.id === this.#selected), title: visible(stream.path) },
      icon(stream.forked_from ? "fork" : "stream"),
      foreign(node.label === "" ? "(empty)" : node.label, "name"),
      stream.tenant && foreign(stream.tenant, "tag"),
      state(stream),
      el("span", { class: "size" }, Number.isFinite(stream.position) ? bytes(stream.position) : ""),
    )
  }

  /** The end of what is loaded. To see it is to ask for more. */
  #more({ folder }) {
    if (folder.error) return el("div", { class: "row more problem", role: "treeitem" }, `${folder.error.message} Press Enter to try again.`)
    if (!folder.loading) queueMicrotask(() => this.#tree.more(folder))
    return el("div", { class: "row more", role: "treeitem" }, el("span", { class: "spinner", "aria-hidden": "true" }), "Loading…")
  }

  #choose(node) {
    if (node.kind === "folder") this.#tree.toggle(node)
    else if (node.kind === "stream") this.#on.open(node.stream)
    else this.#tree.more(node.folder)
  }

  #indexOf(element) {
    const id = element.closest("[data-id]")?.dataset.id
    return this.#tree.rows.findIndex((node) => node.id === id)
  }

  #activate(index) {
    if (index < 0 || index === this.#active) return
    const before = this.#list.row(this.#active)
    if (before) before.tabIndex = -1
    this.#active = index
    this.#list.keep(index)
    const row = this.#list.row(index)
    if (row) row.tabIndex = 0
  }

  #focus(index) {
    if (index < 0 || index >= this.#tree.rows.length) return
    this.#activate(index)
    this.#list.reveal(index)
    this.#list.row(index)?.focus({ preventScroll: true })
  }

  #key(event) {
    if (!this.#tree || event.ctrlKey || event.metaKey || event.altKey) return
    const at = this.#active
    const node = this.#tree.rows[at]
    const moves = {
      ArrowDown: () => this.#focus(at + 1),
      ArrowUp: () => this.#focus(at - 1),
      PageDown: () => this.#focus(Math.min(at + this.#list.page(), this.#tree.rows.length - 1)),
      PageUp: () => this.#focus(Math.max(at - this.#list.page(), 0)),
      Home: () => this.#focus(0),
      End: () => this.#focus(this.#tree.rows.length - 1),
      Enter: () => this.#choose(node),
      " ": () => this.#choose(node),
      Delete: () => node.kind === "folder" && this.#on.remove(node.prefix),
      ArrowRight: () => (node.kind === "folder" && !node.open ? this.#tree.toggle(node, true) : this.#focus(at + 1)),
      ArrowLeft: () => (node.open ? this.#tree.toggle(node, false) : this.#focus(this.#parent(at))),
    }
    if (!node || !moves[event.key]) return
    event.preventDefault()
    moves[event.key]()
  }

  #parent(index) {
    const { depth } = this.#tree.rows[index]
    for (let at = index - 1; at >= 0; at--) if (this.#tree.rows[at].depth < depth) return at
    return index
  }
}

function state(stream) {
  if (stream.error) return foreign(stream.error, "tag bad")
  if (stream.soft_deleted) return el("span", { class: "tag" }, "deleted")
  return stream.closed && el("span", { class: "tag" }, "closed")
}
