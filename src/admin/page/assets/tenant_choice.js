// Whose streams are shown: a choice that is there where tenants are.

import * as api from "./api.js"
import { el } from "./dom.js"

/** Tenants that the choice has; a link names any other. */
const MOST = 1000

/** `changed()` is called when another tenant is chosen. */
export function tenantChoice(changed) {
  const select = el("select", { "aria-label": "Tenant", onchange: changed }, el("option", { value: "" }, "All tenants"))
  const node = el("label", { class: "tenant hidden" }, el("span", {}, "Tenant"), select)
  const abort = new AbortController()

  function add(name) {
    if ([...select.options].some((option) => option.value === name)) return
    select.append(el("option", { value: name }, name))
    node.classList.remove("hidden")
  }

  async function load() {
    try {
      const who = await api.me(abort.signal)
      // An administrator of a tenant sees that one only.
      if (!who.global) return
      const { tenants } = await api.tenants({ limit: MOST }, abort.signal)
      tenants.forEach(add)
    } catch {
      // The list of streams says what is wrong.
    }
  }
  load()

  return {
    node,
    /** The name, or an empty text for all. */
    get value() {
      return select.value
    },
    /** Whether there is anything to choose. */
    get exists() {
      return select.options.length > 1
    },
    /** Chooses one by its name; true where it was another. */
    choose(name) {
      if (select.value === name) return false
      add(name)
      select.value = name
      return true
    },
    close: () => abort.abort(),
  }
}
