// A headless browser: no stale and no deleted data, `EventSource` at the end of a closed stream, and pages of other
// origins against a server of `dev`.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { launch, site, skip } from "./page.js"
import { start } from "./server.js"
import { until } from "./support.js"

describe("browser", { skip, timeout: 90_000 }, () => {
  let browser, pages
  before(async () => {
    pages = await site()
    // Names of other machines lead here, as a name does that its owner lets resolve to loopback.
    const args = ["--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"]
    browser = await launch(args)
  })
  after(async () => {
    await browser?.close()
    pages.close()
  })

  async function open(url) {
    const context = await browser.newContext()
    const page = await context.newPage()
    await page.goto(url)
    return page
  }

  test("a page that reads again gets what is there now", async () => {
    const server = await start()
    try {
      const page = await open(`http://localhost:${pages.port}/`)
      const seen = await page.evaluate(async (route) => {
        const headers = { "content-type": "text/plain" }
        const put = (path, body) => fetch(route + path, { method: "PUT", headers, body })
        const post = (path, body) => fetch(route + path, { method: "POST", headers, body })
        const read = async (path) => (await fetch(route + path)).text()
        const seen = {}
        for (const query of ["", "?offset=-1", "?offset=now"]) {
          const path = `/again${query.replace(/\W/g, "")}`
          await put(path, "one")
          seen[`first ${query}`] = await read(path + query)
          await post(path, "two")
          seen[`appended ${query}`] = await read(path + query)
          await fetch(route + path, { method: "DELETE" })
          await put(path, "x")
          seen[`replaced ${query}`] = await read(path + query)
          await fetch(route + path, { method: "DELETE" })
          seen[`deleted ${query}`] = (await fetch(route + path + query)).status
        }
        // From an offset at the tail of what was read before: new data, with the same URL.
        await put("/tail", "one")
        const offset = (await fetch(`${route}/tail`)).headers.get("stream-next-offset")
        seen.nothing = await read(`/tail?offset=${offset}`)
        await post("/tail", "two")
        seen.more = await read(`/tail?offset=${offset}`)
        await post("/tail", "three")
        seen.most = await read(`/tail?offset=${offset}`)
        return seen
      }, server.route)
      assert.deepEqual(seen, {
        "first ": "one",
        "appended ": "onetwo",
        "replaced ": "x",
        "deleted ": 404,
        "first ?offset=-1": "one",
        "appended ?offset=-1": "onetwo",
        "replaced ?offset=-1": "x",
        "deleted ?offset=-1": 404,
        "first ?offset=now": "",
        "appended ?offset=now": "",
        "replaced ?offset=now": "",
        "deleted ?offset=now": 404,
        nothing: "",
        more: "two",
        most: "twothree",
      })
      await page.context().close()
    } finally {
      await server.stop()
    }
  })

  test("a page that follows from where it read goes on with the new data of a path", async () => {
    const server = await start()
    try {
      const page = await open(`http://localhost:${pages.port}/`)
      const seen = await page.evaluate(async (route) => {
        const headers = { "content-type": "text/plain" }
        const url = `${route}/followed`
        const recreate = async (body) => {
          await fetch(url, { method: "DELETE" })
          await fetch(url, { method: "PUT", headers, body })
        }
        await recreate("a longer text than what comes after it")
        await (await fetch(`${url}?offset=-1`)).text()
        await recreate("new")
        const read = await fetch(`${url}?offset=-1`)
        const text = await read.text()
        const offset = read.headers.get("stream-next-offset")
        await fetch(url, { method: "POST", headers, body: "er" })
        const followed = await fetch(`${url}?offset=${offset}&live=long-poll`)
        return { text, status: followed.status, followed: await followed.text() }
      }, server.route)
      assert.deepEqual(seen, { text: "new", status: 200, followed: "er" })
      await page.context().close()
    } finally {
      await server.stop()
    }
  })

  test("EventSource stops at the end of a closed stream", async () => {
    const server = await start({ config: ["sse_keep_alive: 1s"] })
    try {
      const page = await open(`http://localhost:${pages.port}/`)
      let requests = 0
      page.on("request", (request) => (requests += request.url().includes("live=sse") ? 1 : 0))
      await page.evaluate(async (route) => {
        const headers = { "content-type": "text/plain" }
        await fetch(`${route}/closed`, { method: "PUT", headers, body: "data" })
        await fetch(`${route}/closed`, { method: "POST", headers: { "stream-closed": "true" } })
        globalThis.seen = ""
        globalThis.source = new EventSource(`${route}/closed?offset=-1&live=sse`)
        source.addEventListener("data", (event) => (globalThis.seen += event.data))
      }, server.route)
      const state = () => page.evaluate(() => ({ seen: globalThis.seen, state: globalThis.source.readyState }))
      await until("it gives up", async () => (await state()).state === 2)
      const before = requests
      await page.waitForTimeout(4000)
      assert.equal(requests, before, "no request after the end")
      assert.ok(before <= 2, `${before} requests`)
      assert.equal((await state()).seen, "data", "nothing twice")
      await page.context().close()
    } finally {
      await server.stop()
    }
  })

  test("a server of `dev` acts for pages of this machine only", async () => {
    const server = await start({ dev: [] })
    const send = async (page, host) =>
      page.evaluate(async (url) => {
        // No preflight: a simple request, whose answer the page does not need.
        const body = "from a page"
        const simple = await fetch(url, { method: "POST", mode: "no-cors", body, headers: { "content-type": "text/plain" } })
          .then(() => "sent", () => "failed")
        const answer = await fetch(url).then((response) => response.text(), () => "unreadable")
        return { simple, answer }
      }, `http://${host}:${server.port}/v1/stream/dev`)
    try {
      await fetch(`${server.route}/dev`, { method: "PUT", headers: { "content-type": "text/plain" }, body: "mine;" })
      const kept = async () => (await fetch(`${server.route}/dev`)).text()

      const other = await open(`http://evil.example:${pages.port}/`)
      assert.equal((await send(other, "localhost")).answer, "unreadable")
      assert.equal(await kept(), "mine;", "a simple POST of another site's page changes nothing")

      // The page's own name now resolves to this machine: what it sends there is of the same origin.
      const rebound = await open(`http://evil.example:${server.port}/`)
      const read = await send(rebound, "evil.example")
      assert.ok(!read.answer.includes("mine"), read.answer)
      assert.equal(await kept(), "mine;", "nor does one by a name that resolves to loopback")

      const own = await open(`http://localhost:${pages.port}/`)
      assert.deepEqual(await send(own, "localhost"), { simple: "sent", answer: "mine;from a page" })
    } finally {
      await server.stop()
    }
  })

  test("`dev --allow-host` lets the pages of a host in", async () => {
    const server = await start({ dev: ["--allow-host", "app.example"] })
    try {
      const page = await open(`http://app.example:${pages.port}/`)
      const answer = await page.evaluate(async (url) => {
        const headers = { "content-type": "text/plain", traceparent: "00-1-2-01", baggage: "a=b" }
        await fetch(url, { method: "PUT", headers, body: "mine" })
        return (await fetch(url)).text()
      }, `http://app.example:${server.port}/v1/stream/allowed`)
      assert.equal(answer, "mine")
    } finally {
      await server.stop()
    }
  })

  test("pages of listed origins send cookies", async () => {
    const listed = `http://app.example:${pages.port}`
    const server = await start({ config: [`cors: {origins: ["${listed}"], credentials: true, headers: [x-tenant]}`] })
    try {
      const ask = async (origin) => {
        const page = await open(`${origin}/`)
        return page.evaluate(async (url) => {
          const headers = { "content-type": "text/plain", "x-tenant": "a" }
          const options = { credentials: "include", headers }
          const put = await fetch(url, { method: "PUT", body: "x", ...options }).then((r) => r.status, () => "refused")
          const get = await fetch(url, { credentials: "include" }).then((r) => r.text(), () => "refused")
          return { put, get }
        }, `${server.route}/cookies`)
      }
      assert.deepEqual(await ask(`http://evil.example:${pages.port}`), { put: "refused", get: "refused" })
      assert.deepEqual(await ask(listed), { put: 201, get: "x" })
    } finally {
      await server.stop()
    }
  })
})
