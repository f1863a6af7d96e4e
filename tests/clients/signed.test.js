// A signed URL in a page: `EventSource`, which cannot send headers, follows a protected stream until the URL ends. A cookie, and
// a public stream, beside it.
import assert from "node:assert/strict"
import { createHmac } from "node:crypto"
import { after, before, describe, test } from "node:test"
import { Credentials, seconds } from "./credentials.js"
import { launch, site, skip } from "./page.js"
import { start } from "./server.js"
import { until } from "./support.js"

/** The query of a signed URL, as docs/access.md says. */
function sign([id, secret], path, expires, operation = "read") {
  const text = ["ds-url-v1", operation, expires, id, path].join("\n")
  const signature = createHmac("sha256", secret).update(text).digest("base64url")
  return new URLSearchParams({ "ds-op": operation, "ds-exp": expires, "ds-key": id, "ds-sig": signature }).toString()
}

describe("signed URLs in a browser", { skip, timeout: 90_000 }, () => {
  let credentials, key, urlKey, server, pages, browser, page
  before(async () => {
    credentials = new Credentials()
    key = credentials.run("key", "create", "--name", "backend", "--allow", "all")
    urlKey = credentials.run("url-key", "create", "--name", "site", "--allow", "read", "--path", "chat/**").split(" ")
    const auth = `auth: {credentials: ${JSON.stringify(credentials.file)}, cookie: ds_token}`
    pages = await site()
    const upstreams = `upstreams: [{path: /, servers: ["http://127.0.0.1:${pages.port}"]}]`
    server = await start({ config: [auth, upstreams] })
    browser = await launch()
    page = await (await browser.newContext()).newPage()
    await page.goto(`http://localhost:${pages.port}/`)
  })
  after(async () => {
    await browser?.close()
    pages?.close()
    await server?.stop()
    credentials?.remove()
  })

  const send = async (method, path, body) => {
    const headers = { authorization: `Bearer ${key}`, "content-type": "text/plain" }
    const response = await fetch(`${server.route}/${path}`, { method, headers, body })
    assert.ok(response.ok, `${method} ${path}: ${response.status}`)
  }
  /** Follows a URL in the page; `state` says how far that is. */
  const follow = (url) =>
    page.evaluate((url) => {
      globalThis.seen = ""
      globalThis.opened = 0
      globalThis.source = new EventSource(url)
      source.onopen = () => globalThis.opened++
      source.addEventListener("data", (event) => (globalThis.seen += event.data))
    }, url)
  const state = () => page.evaluate(() => ({ seen, opened, state: source.readyState }))

  test("EventSource follows a protected stream until its URL ends", async () => {
    await send("PUT", "chat/room", "one;")
    const query = sign(urlKey, "chat/room", seconds(5))
    await follow(`${server.route}/chat/room?offset=-1&live=sse&${query}`)
    await until("what is there", async () => (await state()).seen === "one;")
    await send("POST", "chat/room", "two;")
    await until("what comes", async () => (await state()).seen === "one;two;")
    // The server ends the read, the browser comes back with the same URL, and is refused.
    await until("the end", async () => (await state()).state === 2)
    await send("POST", "chat/room", "three;")
    const { seen, opened } = await state()
    assert.equal(seen, "one;two;", "nothing twice, and nothing after the end")
    assert.equal(opened, 1)
  })

  test("a URL opens one stream, for reading", async () => {
    await send("PUT", "chat/other", "secret")
    const query = sign(urlKey, "chat/room", seconds(60))
    await follow(`${server.route}/chat/other?offset=-1&live=sse&${query}`)
    await until("the refusal", async () => (await state()).state === 2)
    assert.deepEqual(await state(), { seen: "", opened: 0, state: 2 })
    const tried = await page.evaluate(async ([route, query]) => {
      const headers = { "content-type": "text/plain" }
      const post = await fetch(`${route}/chat/room?${query}`, { method: "POST", headers, body: "x" })
      const read = await fetch(`${route}/chat/room?offset=-1&${query}`)
      const none = await fetch(`${route}/chat/room?offset=-1`)
      return [post.status, read.status, read.headers.get("cache-control"), none.status]
    }, [server.route, query])
    assert.deepEqual(tried, [403, 200, "private, no-cache", 401])
  })

  test("deleting the key of a URL ends the reads of its pages", async () => {
    await send("PUT", "chat/brief", "one;")
    const made = credentials.run("url-key", "create", "--name", "brief", "--allow", "read", "--path", "chat/**").split(" ")
    const url = `${server.route}/chat/brief?offset=-1&live=sse&${sign(made, "chat/brief", seconds(600))}`
    await until("the key is known", async () => (await fetch(url.replace("&live=sse", ""))).status === 200)
    await follow(url)
    await until("what is there", async () => (await state()).seen === "one;")
    credentials.run("url-key", "delete", made[0])
    await until("the end", async () => (await state()).state === 2)
  })

  test("a page reads public streams without anything, and with a cookie what that allows", async () => {
    await send("PUT", "news?public=true", "for all")
    await send("PUT", "chat/own", "for some")
    const own = await (await browser.newContext()).newPage()
    // The application's pages have the origin of the streams: cookies of other sites are not sent.
    await own.goto(`${server.origin}/`)
    const read = (path) => own.evaluate(async (url) => {
      const response = await fetch(url)
      return response.ok ? response.text() : response.status
    }, `${server.route}/${path}?offset=-1`)
    assert.deepEqual([await read("news"), await read("chat/own")], ["for all", 401])
    await own.context().addCookies([{ name: "ds_token", value: key, url: server.origin, httpOnly: true, sameSite: "Strict" }])
    assert.deepEqual([await read("news"), await read("chat/own")], ["for all", "for some"])
    const wrote = await own.evaluate(async (url) => {
      const headers = { "content-type": "text/plain" }
      return (await fetch(url, { method: "POST", headers, body: "x" })).status
    }, `${server.route}/chat/own`)
    assert.equal(wrote, 401, "a cookie never changes anything")
  })
})
