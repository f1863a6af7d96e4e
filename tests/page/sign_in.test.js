// With access control the page asks for a key, keeps it in its tab only, and does all of its work with it.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import axe from "axe-core"
import { closeBrowser, open, openBrowser, received, shot, skip, startServer, state, until } from "./page.js"

describe("signing in", { skip, timeout: 180_000 }, () => {
  let server, browser, key, folder
  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "durable-streams-page-"))
    const credentials = join(folder, "credentials")
    server = await startServer({ config: [`auth: {credentials: ${JSON.stringify(credentials)}}`] })
    const config = join(server.dir, "config.yaml")
    const made = execFileSync(process.env.BINARY, ["key", "create", "--config", config, "--name", "operator", "--allow", "all,administer"], { encoding: "utf8" })
    key = made.match(/\bds[\w.-]+/)?.[0] ?? made.trim().split("\n").pop()
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
    rmSync(folder, { recursive: true })
  })

  test("a wrong key is refused, the right one opens everything, and another tab knows nothing", async () => {
    const page = await open(browser, server, "#/streams")
    const field = page.getByLabel("API key or token that administers")
    await field.waitFor()
    await shot(page, "sign-in")
    await page.evaluate(axe.source)
    const { violations } = await page.evaluate(() => globalThis.axe.run(document))
    assert.deepEqual(violations.filter(({ impact }) => impact === "serious" || impact === "critical").map(({ id }) => id), [])
    await field.fill("not-a-key")
    await page.keyboard.press("Enter")
    await page.locator(".problem", { hasText: /\w/ }).waitFor()
    await field.fill(key)
    await page.keyboard.press("Enter")
    await page.getByText("No streams yet").waitFor()
    await page.getByRole("button", { name: "New stream" }).click()
    await page.getByRole("textbox", { name: /^Path/ }).fill("guarded/1")
    await page.getByRole("button", { name: "Create", exact: true }).click()
    await until("it is live", async () => (await page.locator(".state").count()) === 1 && (await state(page)) === "live")
    await page.keyboard.press("a")
    await page.locator("dialog textarea").fill('{"secret":1}')
    await page.getByRole("button", { name: "Append", exact: true }).click()
    await until("it came", async () => (await received(page)) === 1)
    const held = await page.evaluate(() => ({ local: JSON.stringify(localStorage), cookies: document.cookie, url: location.href }))
    assert.ok(!JSON.stringify(held).includes(key))
    await page.reload()
    await page.locator(".row.message").waitFor()
    const other = await page.context().newPage()
    await other.goto(`${server.page}/#/streams`)
    await other.getByLabel("API key or token that administers").waitFor()
    page.check()
  })
})
