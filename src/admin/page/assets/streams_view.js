// The streams: a tree or a list at the left, and the stream that is looked at beside it.

import * as api from "./api.js"
import { button, el, foreign, show } from "./dom.js"
import { count } from "./format.js"
import { labelled, notify, openForm } from "./dialog.js"
import { prefixDeletion } from "./prefix_deletion.js"
import { go } from "./route.js"
import { searchEverywhere } from "./search.js"
import { streamFilters } from "./stream_filters.js"
import { streamView } from "./stream_view.js"
import { tenantChoice } from "./tenant_choice.js"
import { StreamTree } from "./tree_model.js"
import { TreeView } from "./tree_view.js"

const TYPING_MS = 200

const SORTS = [
  ["path", "By path"],
  ["size", "Largest first"],
  ["last_used", "Last used first"],
]

export function streamsView(main) {
  const find = el("input", { type: "search", placeholder: "Find by path…", "aria-label": "Find streams by path", "aria-keyshortcuts": "/", spellcheck: "false", autocomplete: "off" })
  const sort = el("select", { "aria-label": "Order" }, SORTS.map(([value, label]) => el("option", { value }, label)))
  const deleted = el("input", { type: "checkbox" })
  const filters = streamFilters(() => reload())
  const tenants = tenantChoice(() => reload())
  const deletion = prefixDeletion(() => reload())
  const note = el("div", { class: "note", role: "status" })
  const box = el("div", { class: "scroller", "aria-label": "Streams" })
  const list = el("section", { class: "pane list", "aria-label": "List of streams" },
    el("div", { class: "tools" },
      tenants.node,
      find,
      el("div", { class: "tool-row" }, sort, el("label", { class: "check" }, deleted, "Deleted"), button("New stream", newStream, { class: "quiet end" })),
      filters.node,
    ),
    deletion.node,
    note,
    box,
    el("div", { class: "tools foot" }, button("Delete by prefix…", () => deletion.ask(find.value.trim() || tree.prefix, tenants.value), { class: "danger-quiet" })),
  )
  const detail = el("section", { class: "pane detail", "aria-label": "Stream" })
  show(main, el("h1", { class: "unseen" }, "Streams"), list, detail)

  const tree = new TreeView(box, {
    open: (stream) => go("streams", stream.path, { tenant: stream.tenant }),
    remove: (prefix) => deletion.ask(prefix, tenants.value),
  })
  let model = null
  let scan = null
  let stream = null
  let typing = 0

  const common = () => ({ deleted: deleted.checked ? "true" : undefined, tenant: tenants.value, ...filters.query() })

  function reload() {
    model?.close()
    scan?.abort()
    scan = null
    const prefix = find.value.trim()
    const order = sort.value === "path" ? {} : { sort: sort.value }
    const flat = prefix !== "" || sort.value !== "path"
    box.setAttribute("aria-label", flat ? "Streams found" : "Streams")
    use(new StreamTree({ query: { ...common(), ...order, prefix }, flat, load: api.streams, changed: () => changed() }))
  }

  function use(next) {
    model = next
    tree.show(model)
    describe()
  }

  function changed() {
    if (!model) return
    tree.refresh()
    // While all paths are looked at, the note says how far that is.
    if (!scan || scan.signal.aborted) describe()
  }

  /** What stands above the rows: how many, or why there are none. */
  function describe() {
    const { error, empty, loading, shown, whole, scanned, partial } = model.state
    const text = find.value.trim()
    box.classList.toggle("hidden", Boolean(error || empty))
    if (error) show(note, el("div", { class: "empty" }, el("p", { class: "problem" }, error.message), button("Try again", reload)))
    else if (empty && filters.active() > 0) show(note, el("div", { class: "empty" }, el("p", {}, "No stream passes the filter."), button("Clear the filter", filters.clear, { class: "link" })))
    else if (empty && text !== "") show(note, el("div", { class: "empty" }, el("p", {}, "No path begins with this."), everywhere()))
    else if (empty && tenants.exists && tenants.value === "" && sort.value === "path") show(note, el("div", { class: "empty" }, el("p", {}, "There are no streams without a tenant. Choose a tenant to see its streams.")))
    else if (empty) show(note, nothingYet())
    else if (loading) show(note, el("p", { class: "hint" }, "Loading…"))
    else if (partial) show(note, el("p", { class: "hint" }, `The first ${count(shown)} of ${count(scanned)} streams looked at; there are more.`))
    else if (text !== "") show(note, el("p", { class: "hint" }, `${count(shown)}${whole ? "" : "+"} paths begin with this. `, everywhere()))
    else show(note)
  }

  function everywhere() {
    return button("Look inside all paths", () => lookEverywhere(find.value.trim()), { class: "link" })
  }

  async function lookEverywhere(text) {
    // What was typed just now is looked for here, and not by its beginning a moment later.
    clearTimeout(typing)
    scan?.abort()
    scan = new AbortController()
    const { signal } = scan
    const found = []
    const finding = { query: {}, flat: true, changed: () => signal.aborted || tree.refresh(), load: async () => ({ streams: found.slice(), cursor: null }) }
    box.classList.remove("hidden")
    try {
      for await (const step of searchEverywhere(text, (query) => api.streams({ ...common(), ...query }, signal), signal)) {
        if (signal.aborted) return
        const fresh = step.found.length !== found.length || step.done
        found.splice(0, found.length, ...step.found)
        if (fresh) {
          model?.close()
          model = new StreamTree(finding)
          tree.show(model)
        }
        const said = `${count(step.found.length)} of ${count(step.looked)} streams looked at`
        show(note, el("p", { class: "hint" }, step.done ? `${said}. ` : `${said}… `, !step.done && button("Stop", () => scan?.abort(), { class: "link" })))
        if (step.done) return
      }
    } catch (error) {
      if (!signal.aborted) show(note, el("p", { class: "problem" }, error.message))
    }
  }

  function newStream() {
    const path = el("input", { required: true, spellcheck: "false", autocomplete: "off" })
    const type = el("input", { value: "application/json", spellcheck: "false", list: "content-types" })
    const types = el("datalist", { id: "content-types" }, ["application/json", "text/plain", "application/octet-stream"].map((value) => el("option", { value })))
    openForm("New stream", {
      fields: [tenants.value !== "" && el("p", {}, "Of tenant ", foreign(tenants.value)), labelled("Path", path, "Segments are separated by slashes, as in chat/42"), labelled("Content type", type), types],
      label: "Create",
      ready: () => path.value !== "",
      act: async () => {
        const tenant = tenants.value
        await api.create(path.value, tenant, { "content-type": type.value })
        notify("Created")
        reload()
        return () => go("streams", path.value, { tenant })
      },
    })
  }

  find.addEventListener("input", () => {
    clearTimeout(typing)
    typing = setTimeout(reload, TYPING_MS)
  })
  find.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") {
      event.preventDefault()
      box.querySelector('[role=treeitem][tabindex="0"]')?.focus()
    } else if (event.key === "Enter") {
      clearTimeout(typing)
      reload()
    }
  })
  sort.addEventListener("change", reload)
  deleted.addEventListener("change", reload)
  reload()

  return {
    go({ path, query }) {
      const tenant = query.get("tenant")
      // A link to a tenant's list; a link to one of its streams leaves the list as it is.
      if (path === "" && tenant !== null && tenants.choose(tenant)) reload()
      main.classList.toggle("has-detail", path !== "")
      tree.select(path, tenant)
      stream?.close()
      stream = null
      if (path !== "" && find.value === "" && sort.value === "path" && (tenant ?? "") === tenants.value) model?.reach(path)
      if (path === "") show(detail, pick())
      else stream = streamView(detail, { path, tenant }, { removed: reload })
    },
    close() {
      clearTimeout(typing)
      filters.close()
      tenants.close()
      deletion.close()
      model?.close()
      scan?.abort()
      stream?.close()
    },
  }
}

function pick() {
  return el("div", { class: "empty" }, el("h2", {}, "No stream chosen"), el("p", {}, "Choose one from the list, or press ", el("kbd", {}, "/"), " and type how its path begins."))
}

function nothingYet() {
  return el("div", { class: "empty" }, el("h2", {}, "No streams yet"), el("p", {}, "Create one with the button above, or from a program; it appears here."))
}
