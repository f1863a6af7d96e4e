// The servers behind the routes that are no streams, and their health.

import { el, foreign } from "./dom.js"

export function upstreamTable(upstreams) {
  const rows = upstreams.flatMap(({ name, servers }) => servers.map(({ address, healthy }) => el("tr", {}, el("td", {}, foreign(name)), el("td", {}, foreign(address)), el("td", {}, el("span", { class: `dot ${healthy ? "good" : "bad"}` }), healthy ? "healthy" : "failing"))))
  const head = ["Upstream", "Server", "Health"].map((name) => el("th", { scope: "col" }, name))
  return el("div", { class: "wide" }, el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)))
}
