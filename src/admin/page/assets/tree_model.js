// Streams as rows of a tree by path segments, loaded a page at a time, as far as folders are open and scrolled.

/** Streams and folders of one page of the listing. */
const PAGE = 200

export class StreamTree {
  #load
  #changed
  #abort = new AbortController()
  #root
  /** Of a sorted list: how many streams were looked at, and whether there are more. */
  #sorted = {}
  /** What is shown, from top to bottom. */
  rows = []

  /**
   * `query` goes with every page, `flat` lists streams by whole paths instead of folders; `load(query, signal)` fetches a page
   * and `changed()` is called when the rows are others.
   */
  constructor({ query, flat, load, changed }) {
    this.#load = (folder) => {
      const own = flat ? {} : { prefix: folder.prefix, delimiter: "/" }
      return load({ ...query, ...own, limit: PAGE, cursor: folder.cursor }, this.#abort.signal)
    }
    this.#changed = changed
    this.#root = newFolder("", "", -1)
    this.#root.open = true
    this.more(this.#root)
  }

  /** Ends what is being loaded. */
  close() {
    this.#abort.abort()
  }

  /** The first page of everything: still on its way, empty, or why there is none. */
  get state() {
    const { loading, error, children, cursor } = this.#root
    if (error && children.length === 0) return { error }
    if (children.length > 0) return { shown: children.length, whole: cursor === null, ...this.#sorted }
    return loading || cursor !== null ? { loading: true } : { empty: true }
  }

  /** Opens or closes a folder. */
  toggle(folder, open = !folder.open) {
    folder.open = open
    if (open && folder.children.length === 0) this.more(folder)
    else this.#flatten()
  }

  /** Opens the folders that lead to a stream, as far as they are on first pages. */
  async reach(path) {
    for (let folder = this.#root; folder; ) {
      await folder.loading
      folder = folder.children.find((node) => node.kind === "folder" && path.startsWith(node.prefix))
      if (folder && !folder.open) this.toggle(folder, true)
    }
  }

  /** Loads the next page of a folder. */
  more(folder) {
    if (folder.loading || folder.cursor === null) return folder.loading
    folder.error = null
    folder.loading = this.#page(folder)
    this.#flatten()
    return folder.loading
  }

  async #page(folder) {
    try {
      const page = await this.#load(folder)
      folder.children.push(...children(folder, page))
      folder.cursor = page.cursor ?? null
      this.#sorted = { scanned: page.scanned, partial: page.partial }
    } catch (error) {
      if (this.#abort.signal.aborted) return
      folder.error = error
    }
    folder.loading = null
    this.#flatten()
  }

  #flatten() {
    const rows = []
    const add = (folder) => {
      for (const node of folder.children) {
        rows.push(node)
        if (node.open) add(node)
      }
      if (folder.cursor !== null) rows.push({ kind: "more", id: `more ${folder.prefix}`, folder, depth: folder.depth + 1 })
    }
    add(this.#root)
    this.rows = rows
    this.#changed()
  }
}

function newFolder(prefix, label, depth) {
  return { kind: "folder", id: `folder ${prefix}`, prefix, label, depth, open: false, children: [], cursor: undefined, loading: null, error: null }
}

/** What a page adds to a folder, in the order of paths. */
function children(folder, { streams = [], prefixes = [] }) {
  const depth = folder.depth + 1
  const behind = (path) => path.slice(folder.prefix.length)
  const leaves = streams.map((stream) => {
    const id = `stream ${stream.tenant ?? ""} ${stream.path}`
    return { kind: "stream", id, stream, depth, label: behind(stream.path) }
  })
  const folders = prefixes.map((prefix) => newFolder(prefix, behind(prefix), depth))
  if (folders.length === 0) return leaves
  // Two lists in order become one.
  const key = (node) => node.prefix ?? node.stream.path
  return [...leaves, ...folders].sort((a, b) => (key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0))
}
