// Choosing streams: filters, order, tenants, and deleting all below a prefix.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { append, closeBrowser, open, openBrowser, put, shot, skip, startServer, until } from "./page.js"

/** The streams that are listed, from top to bottom. */
const listed = (page) => page.locator(".pane.list .row.stream .name").allTextContents()

async function assertListed(page, expected) {
  await until(`${expected} are listed`, async () => JSON.stringify(await listed(page)) === JSON.stringify(expected))
}

describe("choosing streams", { skip, timeout: 300_000 }, () => {
  let server, browser
  before(async () => {
    server = await startServer()
    await put(server, "a-json", "application/json; charset=utf-8", '[{"n":1}]')
    await put(server, "b-text", "text/plain", "x".repeat(2_000))
    await put(server, "c-soon", "text/plain", "x", { "stream-ttl": "600" })
    await put(server, "d-empty", "text/plain", "")
    await put(server, "folder/large", "application/octet-stream", Buffer.alloc(2 << 20))
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  test("by content type, size and what ends them", async () => {
    const page = await open(browser, server, "#/streams")
    await assertListed(page, ["a-json", "b-text", "c-soon", "d-empty"])
    const folder = page.locator(".row.folder", { hasText: "folder/" })
    await folder.waitFor()
    const summary = page.locator(".filters summary")
    await summary.click()
    const filters = page.locator(".filters")
    await filters.getByLabel("Content type").fill("application/json")
    await assertListed(page, ["a-json"])
    assert.equal(await folder.count(), 0, "a folder without a stream that passes is not there")
    assert.equal(await summary.textContent(), "Filter (1)")
    await filters.getByLabel("Content type").fill("")
    await filters.getByLabel("Larger than").selectOption({ label: "0 B" })
    await assertListed(page, ["a-json", "b-text", "c-soon"])
    await filters.getByLabel("Larger than").selectOption({ label: "1 MiB" })
    await assertListed(page, [])
    await folder.waitFor()
    await filters.getByLabel("Larger than").selectOption({ label: "100 MiB" })
    await page.getByText("No stream passes the filter.").waitFor()
    await page.getByRole("button", { name: "Clear the filter" }).click()
    await assertListed(page, ["a-json", "b-text", "c-soon", "d-empty"])
    assert.equal(await summary.textContent(), "Filter")
    await filters.getByLabel("Ends within").selectOption({ label: "1 hour" })
    await assertListed(page, ["c-soon"])
    await filters.getByLabel("Content type").fill("text/html")
    await page.getByText("No stream passes the filter.").waitFor()
    assert.equal(await summary.textContent(), "Filter (2)")
    await filters.getByRole("button", { name: "Clear" }).click()
    await assertListed(page, ["a-json", "b-text", "c-soon", "d-empty"])
    page.check()
    await page.context().close()
  })

  test("by how long they were not used", async () => {
    const page = await open(browser, server, "#/streams")
    await assertListed(page, ["a-json", "b-text", "c-soon", "d-empty"])
    const asked = []
    page.on("request", (request) => asked.push(new URL(request.url()).searchParams.get("idle_since")))
    await page.locator(".filters summary").click()
    await page.getByLabel("Not used for").selectOption({ label: "1 hour" })
    await page.getByText("No stream passes the filter.").waitFor()
    const since = Date.parse(asked.filter(Boolean).at(-1))
    assert.ok(Math.abs(Date.now() - 3_600_000 - since) < 10_000, asked.join())
    // In an hour it will be true of all of them; the page's clock says that it is then.
    await page.clock.setFixedTime(Date.now() + 3_700_000)
    await page.getByLabel("Not used for").selectOption({ label: "1 day" })
    await page.getByLabel("Not used for").selectOption({ label: "1 hour" })
    await assertListed(page, ["a-json", "b-text", "c-soon", "d-empty"])
    page.check()
    await page.context().close()
  })

  test("in the order of their size, and of their last append", async () => {
    const page = await open(browser, server, "#/streams")
    await page.getByLabel("Order").selectOption("size")
    await assertListed(page, ["folder/large", "b-text", "a-json", "c-soon", "d-empty"])
    await sleep(20)
    await append(server, "d-empty", "text/plain", "now")
    await page.getByLabel("Order").selectOption("last_used")
    await until("the last one is first", async () => (await listed(page))[0] === "d-empty")
    // With a filter, too.
    await page.locator(".filters summary").click()
    await page.locator(".filters").getByLabel("Content type").fill("application/octet-stream")
    await assertListed(page, ["folder/large"])
    await shot(page, "filters")
    page.check()
    await page.context().close()
  })

  test("all below a prefix are deleted, and the page shows how far it is", async () => {
    for (let number = 0; number < 40; number++) await put(server, `old/${number}`, "text/plain", "12345")
    await put(server, "older", "text/plain", "stays")
    const page = await open(browser, server, "#/streams")
    const folder = page.locator(".row.folder", { hasText: "old/" })
    await folder.click()
    await page.locator('.row.stream[aria-level="2"]').first().waitFor()
    await folder.focus()
    await page.getByRole("button", { name: "Delete by prefix…" }).click()
    const dialog = page.locator("dialog")
    assert.equal(await dialog.getByLabel(/^Prefix/).inputValue(), "old/", "the folder in which one is")
    await dialog.getByText("40 streams, 200 B").waitFor()
    const button = dialog.getByRole("button", { name: "Delete them all" })
    assert.ok(await button.isDisabled())
    await dialog.getByLabel("The prefix again").fill("old")
    assert.ok(await button.isDisabled(), "another prefix")
    await dialog.getByLabel("The prefix again").fill("old/")
    // The job is shown while it runs: slowly, here.
    let polls = 0
    await page.route("**/admin/v1/jobs/*", async (route) => {
      if (route.request().method() !== "GET" || ++polls > 3) return route.continue()
      const job = await (await route.fetch()).json()
      await route.fulfill({ json: { ...job, state: "running", ended: null, done: polls * 10 } })
    })
    await button.click()
    const job = page.locator(".job", { hasText: "old/" })
    const bar = job.locator("progress")
    await until("it is half done", async () => (await bar.evaluate((one) => one.value / one.max)) === 0.5)
    assert.match(await job.textContent(), /20 streams deleted of 40/)
    assert.ok(await job.getByRole("button", { name: "Cancel" }).isVisible())
    await shot(page, "deleting-by-prefix")
    await page.locator(".toast", { hasText: "40 streams deleted" }).waitFor()
    await until("the tree has lost the folder", async () => (await folder.count()) === 0)
    await until("the tree is read again", async () => (await listed(page)).includes("older"))
    assert.equal((await fetch(`${server.route}/old/7`)).status, 404)
    await page.getByRole("button", { name: "Dismiss" }).click()
    assert.equal(await job.count(), 0)
    page.check()
    await page.context().close()
  })

  test("a deletion is cancelled, and a refusal is shown where it was asked for", async () => {
    const page = await open(browser, server, "#/streams")
    await page.getByRole("searchbox").fill("never/")
    await page.getByRole("button", { name: "Delete by prefix…" }).click()
    const dialog = page.locator("dialog")
    assert.equal(await dialog.getByLabel(/^Prefix/).inputValue(), "never/", "what was looked for")
    await dialog.getByText("0 streams").waitFor()
    await dialog.getByLabel("The prefix again").fill("never/")
    const running = { id: "99", kind: "delete-prefix", state: "running", started: new Date().toISOString(), prefix: "never/", done: 0, failed: 0 }
    let cancelled = false
    await page.route("**/admin/v1/jobs", (route) => route.fulfill({ status: 429, contentType: "application/problem+json", body: '{"code":"too-many-jobs","detail":"4 jobs run already"}' }))
    await dialog.getByRole("button", { name: "Delete them all" }).click()
    await dialog.locator(".problem", { hasText: "4 jobs run already" }).waitFor()
    await page.unroute("**/admin/v1/jobs")
    await page.route("**/admin/v1/jobs", (route) => route.fulfill({ status: 202, json: running }))
    await page.route("**/admin/v1/jobs/99", (route) => {
      if (route.request().method() === "DELETE") {
        cancelled = true
        return route.fulfill({ status: 204 })
      }
      return route.fulfill({ json: { ...running, state: cancelled ? "cancelled" : "running", ended: cancelled ? running.started : null } })
    })
    await dialog.getByRole("button", { name: "Delete them all" }).click()
    await page.locator(".job").getByRole("button", { name: "Cancel" }).click()
    await page.locator(".job .tag", { hasText: "cancelled" }).waitFor()
    assert.ok(cancelled)
    page.check()
    await page.context().close()
  })
})

describe("tenants", { skip, timeout: 300_000 }, () => {
  let server, browser, folder
  const keys = {}
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "durable-streams-page-"))
    const credentials = join(folder, "credentials")
    const make = (name, ...more) => execFileSync(process.env.BINARY, ["key", "create", "--credentials", credentials, "--name", name, "--allow", "all,administer", ...more], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
    const tenants = ["acme", "globex"]
    keys.operator = make("operator")
    for (const tenant of tenants) keys[tenant] = make(tenant, "--tenant", tenant)
    server = await startServer({ config: [`auth: {credentials: ${JSON.stringify(credentials)}}`] })
    for (const tenant of tenants) {
      await put(server, "rooms/1", "text/plain", tenant, { authorization: `Bearer ${keys[tenant]}` })
    }
    await put(server, "of-nobody", "text/plain", "x", { authorization: `Bearer ${keys.operator}` })
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
    rmSync(folder, { recursive: true })
  })

  async function signedIn(hash, key) {
    const page = await open(browser, server, "")
    await page.evaluate((token) => sessionStorage.setItem("durable-streams-admin-token", token), key)
    await page.goto(`${server.page}/?again${hash}`)
    return page
  }

  test("are chosen, and have their own paths", async () => {
    const page = await signedIn("#/streams", keys.operator)
    await assertListed(page, ["of-nobody"])
    const choice = page.getByLabel("Tenant")
    await choice.waitFor()
    assert.deepEqual(await choice.locator("option").allTextContents(), ["All tenants", "acme", "globex"])
    await choice.selectOption("acme")
    await page.locator(".row.folder", { hasText: "rooms/" }).click()
    await page.locator(".row.stream", { hasText: "1" }).click()
    await page.locator(".stream-head .tag", { hasText: "tenant acme" }).waitFor()
    await page.locator(".row.message", { hasText: "acme" }).waitFor()
    assert.match(page.url(), /#\/streams\/rooms\/1\?tenant=acme$/)
    await page.getByRole("button", { name: "New stream" }).click()
    await page.locator("dialog", { hasText: "Of tenant acme" }).waitFor()
    await page.getByLabel(/^Path/).fill("rooms/2")
    await page.getByRole("button", { name: "Create", exact: true }).click()
    await page.locator(".stream-head h2", { hasText: "rooms/2" }).waitFor()
    // Of one tenant only.
    await page.getByRole("button", { name: "Delete by prefix…" }).click()
    const dialog = page.locator("dialog")
    await dialog.getByLabel(/^Prefix/).fill("rooms/")
    await dialog.getByText("2 streams, 4 B").waitFor()
    await dialog.getByLabel("The prefix again").fill("rooms/")
    await dialog.getByRole("button", { name: "Delete them all" }).click()
    await page.locator(".job", { hasText: "of tenant acme" }).getByText("2 streams deleted").waitFor()
    await shot(page, "tenants")
    await choice.selectOption("globex")
    await page.locator(".row.folder", { hasText: "rooms/" }).waitFor()
    page.check()
    await page.context().close()
  })

  test("a link names one, and a tenant's own administrator has nothing to choose", async () => {
    const page = await signedIn("#/streams?tenant=globex", keys.operator)
    await page.locator(".row.folder", { hasText: "rooms/" }).waitFor()
    await until("it is chosen", async () => (await page.getByLabel("Tenant").inputValue()) === "globex")
    page.check()
    await page.context().close()
    const own = await signedIn("#/streams", keys.globex)
    await own.locator(".row.folder", { hasText: "rooms/" }).waitFor()
    assert.equal(await own.getByLabel("Tenant").isVisible(), false)
    await own.goto(`${server.page}/?again#/server`)
    await own.getByText("These credentials are of a tenant").waitFor()
    assert.equal(await own.getByRole("button", { name: "Back up…" }).isVisible(), false)
    assert.equal(await own.locator(".config").count(), 0)
    own.check()
    await own.context().close()
  })
})
