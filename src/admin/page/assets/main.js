// The page: which view is shown, signing in, and what every view shares.

import * as api from "./api.js"
import { closeDialogs } from "./dialog.js"
import { el, show } from "./dom.js"
import { overviewView } from "./overview_view.js"
import { current, link } from "./route.js"
import { serverView } from "./server_view.js"
import { listenForShortcuts, openShortcuts } from "./shortcuts.js"
import { signInView } from "./sign_in_view.js"
import { streamsView } from "./streams_view.js"
import { subscriptionsView } from "./subscriptions_view.js"

const VIEWS = {
  overview: { label: "Overview", open: overviewView },
  streams: { label: "Streams", open: streamsView },
  subscriptions: { label: "Subscriptions", open: subscriptionsView },
  server: { label: "Server", open: serverView },
}

const STATUS_EVERY_MS = 5_000

const main = document.getElementById("main")
let open = null

/** Shows the view that the URL names. A view that is open already is told where to go. */
function navigate() {
  const route = current()
  const name = VIEWS[route.view] ? route.view : "overview"
  for (const item of document.querySelectorAll("#nav a")) {
    if (item.dataset.view === name) item.setAttribute("aria-current", "page")
    else item.removeAttribute("aria-current")
  }
  if (open?.name === name) return open.view.go(route)
  open?.view.close()
  document.title = `${VIEWS[name].label} · Durable Streams`
  main.className = `view ${name}`
  open = { name, view: VIEWS[name].open(main) }
  open.view.go(route)
}

function askForToken() {
  if (open?.name === "sign-in") return
  open?.view.close()
  main.className = "view sign-in"
  open = { name: "sign-in", view: signInView(main, () => {
    open = null
    navigate()
  }) }
}

const server = document.getElementById("server")
let watching = 0

/** What the bar says about the server, again and again. */
async function watchServer() {
  clearTimeout(watching)
  const reason = await api.notReady()
  serverState(reason === null ? "good" : "bad", reason ?? "ready")
  watching = setTimeout(watchServer, STATUS_EVERY_MS)
}

function serverState(state, text) {
  // Only a change is worth announcing.
  if (server.dataset.said === `${state} ${text}`) return
  server.dataset.said = `${state} ${text}`
  show(server, el("span", { class: `dot ${state}` }), el("span", { class: "said", title: text }, text))
}

const nav = document.getElementById("nav")
show(nav, Object.entries(VIEWS).map(([name, view]) => el("a", { href: link(name), "data-view": name }, view.label)))
document.getElementById("help").addEventListener("click", openShortcuts)
addEventListener("hashchange", () => {
  closeDialogs()
  navigate()
})
addEventListener("credentials-needed", askForToken)
listenForShortcuts()
navigate()
watchServer()
