// `eventsource` from npm, which reconnects as the standard says: it resumes after a lost connection, and stops at the
// end of a closed stream.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { EventSource } from "eventsource"
import { STORAGES, start } from "./server.js"
import { text, until } from "./support.js"

const TEXT = { "content-type": "text/plain; charset=utf-8" }

/** Follows a stream; counts connections, collects data. */
function follow(url) {
  const seen = { data: "", connections: 0, closed: false }
  const counting = (input, init) => {
    seen.connections += 1
    return fetch(input, init)
  }
  seen.source = new EventSource(url, { fetch: counting })
  seen.source.addEventListener("data", (event) => (seen.data += event.data))
  seen.source.addEventListener("control", (event) => (seen.closed ||= JSON.parse(event.data).streamClosed === true))
  return seen
}

for (const storage of STORAGES) {
  describe(`EventSource, ${storage}`, () => {
    let server
    before(async () => (server = await start({ storage, config: ["sse_reconnect_interval: 1s", "sse_keep_alive: 1s"] })))
    after(() => server.stop())

    test("it resumes where it was when connections end", { timeout: 30_000 }, async () => {
      const url = `${server.route}/resumed`
      await fetch(url, { method: "PUT", headers: TEXT })
      const seen = follow(`${url}?offset=-1&live=sse`)
      let written = ""
      for (let n = 0; seen.connections < 3; n++) {
        const line = `${n} ${text(50, n + 1)};`
        await fetch(url, { method: "POST", headers: TEXT, body: line })
        written += line
        await sleep(100)
      }
      await until("all of it arrives", () => seen.data.length >= written.length)
      seen.source.close()
      assert.ok(seen.data === written, "nothing twice, nothing missing")
    })

    test("it stops at the end of a closed stream", { timeout: 30_000 }, async () => {
      const url = `${server.route}/closed`
      await fetch(url, { method: "PUT", headers: TEXT, body: "all of it" })
      const seen = follow(`${url}?offset=-1&live=sse`)
      await until("the data arrives", () => seen.data === "all of it")
      await fetch(url, { method: "POST", headers: { "stream-closed": "true" } })
      await until("the end arrives", () => seen.closed)
      await until("it gives up", () => seen.source.readyState === EventSource.CLOSED)
      const connections = seen.connections
      await sleep(4000)
      assert.equal(seen.connections, connections, "no connection after the end")
      assert.equal(seen.data, "all of it")
      // Another reader is told that the stream is closed, from whatever offset it starts.
      const fresh = follow(`${url}?offset=now&live=sse`)
      await until("a new reader is told", () => fresh.closed)
      fresh.source.close()
    })
  })
}
