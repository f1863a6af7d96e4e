// Answers that are late: whoever has gone on stays where they went, whatever the place before still brings.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { closeBrowser, open, openBrowser, put, skip, startServer, until } from "./page.js"

const LATE_MS = 700

/** Keeps the answers to some requests back, those of the browser's aborted requests too. */
async function late(page, pattern) {
  const held = { count: 0 }
  await page.route(pattern, async (route) => {
    held.count++
    const response = await route.fetch()
    await sleep(LATE_MS)
    await route.fulfill({ response }).catch(() => {})
  })
  return held
}

describe("a place that was left", { skip, timeout: 300_000 }, () => {
  let server, browser
  before(async () => {
    server = await startServer()
    await put(server, "slow", "application/json", '[{"of":"slow"}]')
    await put(server, "fast", "application/json", '[{"of":"fast"}]')
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  const go = (page, hash) => page.evaluate((to) => void (location.hash = to), hash)

  /** What is shown is the stream `fast`, and stays it. */
  async function assertFast(page) {
    await page.locator(".row.message", { hasText: "fast" }).waitFor()
    await sleep(2 * LATE_MS)
    assert.equal(await page.locator(".stream-head h2").textContent(), "fast")
    assert.equal(await page.locator(".row.message").count(), 1)
    assert.match(await page.locator(".body").textContent(), /"fast"/)
    assert.match(await page.title(), /^fast/)
    assert.equal(await page.locator('nav [aria-current="page"]').textContent(), "Streams")
    page.check()
  }

  test("a stream whose details come late does not replace the next one", async () => {
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.stream").first().waitFor()
    const held = await late(page, "**/admin/v1/streams/slow*")
    await go(page, "#/streams/slow")
    await until("it was asked for", () => held.count > 0)
    await go(page, "#/streams/fast")
    await assertFast(page)
    await page.context().close()
  })

  test("a tail whose beginning comes late brings nothing into the next one", async () => {
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.stream").first().waitFor()
    const held = await late(page, "**/admin/v1/{tail,data}/slow*")
    await go(page, "#/streams/slow")
    await until("it was asked for", () => held.count > 0)
    await go(page, "#/streams/fast")
    await assertFast(page)
    await page.context().close()
  })

  test("views that come late do not replace the stream that was gone to, nor after Back", async () => {
    const page = await open(browser, server, "#/streams/fast")
    await page.locator(".row.message").waitFor()
    for (const [view, pattern] of [
      ["overview", "**/admin/v1/overview"],
      ["subscriptions", "**/admin/v1/subscriptions*"],
      ["server", "**/admin/v1/{status,config,jobs,log-level}"],
    ]) {
      const held = await late(page, pattern)
      await go(page, `#/${view}`)
      await until(`${view} was asked for`, () => held.count > 0)
      await page.goBack()
      await assertFast(page)
      await page.unroute(pattern)
    }
    await page.context().close()
  })

  test("a list of before, and a deletion's question, are gone with their view", async () => {
    const page = await open(browser, server, "#/overview")
    const held = await late(page, "**/admin/v1/streams?*")
    await go(page, "#/streams")
    await until("it was asked for", () => held.count > 0)
    await go(page, "#/subscriptions")
    await page.getByText("No subscriptions").waitFor()
    await sleep(2 * LATE_MS)
    assert.equal(await page.locator(".row").count(), 0)
    await page.unroute("**/admin/v1/streams?*")
    await go(page, "#/streams")
    await page.locator(".row.stream").first().waitFor()
    await page.getByRole("button", { name: "Delete by prefix…" }).click()
    await page.locator("dialog").waitFor()
    await page.goBack()
    await page.getByText("No subscriptions").waitFor()
    assert.equal(await page.locator("dialog").count(), 0)
    page.check()
    await page.context().close()
  })

  test("a stream that is created late does not take its maker back", async () => {
    const page = await open(browser, server, "#/streams/fast")
    await page.locator(".row.message").waitFor()
    await go(page, "#/streams")
    const held = await late(page, "**/admin/v1/data/made*")
    await page.getByRole("button", { name: "New stream" }).click()
    await page.getByLabel(/^Path/).fill("made")
    await page.getByRole("button", { name: "Create", exact: true }).click()
    await until("it was asked for", () => held.count > 0)
    await page.goBack()
    await assertFast(page)
    assert.match(page.url(), /#\/streams\/fast$/)
    assert.equal((await fetch(`${server.route}/made`, { method: "HEAD" })).status, 200)
    await page.context().close()
  })

  test("of two readings of one list the later one is shown", async () => {
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.stream").first().waitFor()
    await page.route("**/admin/v1/streams?*prefix=s*", async (route) => {
      const response = await route.fetch()
      await sleep(LATE_MS)
      await route.fulfill({ response }).catch(() => {})
    })
    const find = page.getByRole("searchbox")
    await find.fill("s")
    await find.press("Enter")
    await find.fill("f")
    await find.press("Enter")
    await page.locator(".row.stream", { hasText: "fast" }).waitFor()
    await sleep(2 * LATE_MS)
    assert.deepEqual(await page.locator(".pane.list .row.stream .name").allTextContents(), ["fast"])
    page.check()
    await page.context().close()
  })
})
