// One stream among 100,000: by its prefix, by a part of its path, and by opening folders.
import assert from "node:assert/strict"
import { connect } from "node:net"
import { after, before, describe, test } from "node:test"
import { closeBrowser, open, openBrowser, shot, skip, startServer } from "./page.js"

const STREAMS = Number(process.env.STREAMS ?? 100_000)
const TENANTS = 100
const CONNECTIONS = 4
const MOST_ROWS = 120

/** Paths such as shop-042/orders/order-0000042, every hundredth in a folder. */
const path = (number) => `shop-${String(number % TENANTS).padStart(3, "0")}/orders/order-${String(number).padStart(7, "0")}`

/** Creates streams over one connection, in pipelined requests: 100,000 of them are not what is tested. */
function create(server, from, to) {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1")
    let sent = from
    let done = from
    let tail = ""
    const more = () => {
      let text = ""
      while (sent < to && sent - done < 200) text += `PUT /v1/stream/${path(sent++)} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx`
      if (text !== "") socket.write(text)
    }
    socket.setEncoding("latin1")
    socket.on("connect", more)
    socket.on("error", reject)
    socket.on("close", () => (done < to ? reject(new Error(`closed after ${done} of ${to}`)) : resolve()))
    socket.on("data", (text) => {
      // A status line may be cut between two pieces; what is counted once is not looked at again.
      const seen = tail + text
      const lines = seen.match(/HTTP\/1\.1 \d{3}/g) ?? []
      if (lines.some((line) => !line.endsWith("201"))) return socket.destroy(new Error(seen))
      done += lines.length
      const last = seen.lastIndexOf("HTTP/1.1 2")
      tail = seen.slice(Math.max(last < 0 ? 0 : last + 12, seen.length - 12))
      if (done === to) socket.end()
      else more()
    })
  })
}

describe("finding a stream", { skip, timeout: 300_000 }, () => {
  let server, browser
  before(async () => {
    server = await startServer()
    const part = Math.ceil(STREAMS / CONNECTIONS)
    const began = Date.now()
    await Promise.all(Array.from({ length: CONNECTIONS }, (_, index) => create(server, index * part, Math.min(STREAMS, (index + 1) * part))))
    console.log(`${STREAMS} streams made in ${((Date.now() - began) / 1000).toFixed(1)} s`)
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  test("among all of them by the beginning of its path", async () => {
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.folder").first().waitFor()
    assert.equal(await page.locator(".row.folder .name").first().textContent(), "shop-000/")
    const wanted = path(STREAMS - 58)
    const began = Date.now()
    await page.getByRole("searchbox").fill(wanted)
    await page.locator(".row.stream", { hasText: wanted }).click()
    await page.locator(".stream-head h2", { hasText: wanted }).waitFor()
    await page.locator(".row.message").first().waitFor()
    console.log(`found and shown in ${Date.now() - began} ms`)
    assert.equal(await page.locator(".pane.list .row").count(), 1)
    await shot(page, "found")
    page.check()
    await page.context().close()
  })

  test("by a part of its path", async () => {
    const page = await open(browser, server, "#/streams")
    const wanted = path(STREAMS - 1)
    await page.getByRole("searchbox").fill(wanted.slice(-7))
    const began = Date.now()
    await page.getByRole("button", { name: "Look inside all paths" }).click()
    await page.locator(".row.stream", { hasText: wanted }).waitFor({ timeout: 60_000 })
    console.log(`found inside of ${STREAMS} paths in ${Date.now() - began} ms`)
    page.check()
    await page.context().close()
  })

  test("by a part of its path that was typed just before", async () => {
    const page = await open(browser, server, "#/streams")
    const wanted = path(STREAMS - 1)
    await page.getByRole("searchbox").fill("no path begins so")
    const look = page.getByRole("button", { name: "Look inside all paths" })
    await look.waitFor()
    await look.evaluate((button, text) => {
      const box = document.querySelector("input[type=search]")
      box.value = text
      box.dispatchEvent(new Event("input", { bubbles: true }))
      button.click()
    }, wanted.slice(-7))
    await page.locator(".row.stream", { hasText: wanted }).waitFor({ timeout: 60_000 })
    await page.waitForTimeout(1000)
    assert.equal(await page.locator(".row.stream", { hasText: wanted }).count(), 1)
    page.check()
    await page.context().close()
  })

  test("by opening folders, of which the document holds a screenful", async () => {
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.folder", { hasText: "shop-007/" }).click()
    await page.locator(".row.folder", { hasText: "orders/" }).click()
    await page.locator(".row.stream", { hasText: "order-0000007" }).waitFor()
    // The end of the folder is reached page by page, as it comes into view.
    const last = path(STREAMS - TENANTS + 7).split("/").pop()
    await page.locator(".row.folder", { hasText: "orders/" }).focus()
    for (let step = 0; step < 200 && (await page.locator(".row.stream", { hasText: last }).count()) === 0; step++) {
      await page.locator(".pane.list .scroller").evaluate((box) => (box.scrollTop += box.clientHeight))
      await page.waitForTimeout(30)
      assert.ok((await page.locator(".pane.list .row").count()) < MOST_ROWS)
    }
    assert.equal(await page.locator(".row.stream", { hasText: last }).count(), 1)
    await shot(page, "tree")
    page.check()
    await page.context().close()
  })
})
