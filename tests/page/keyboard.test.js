// Everything by the keyboard alone: no click, no pointer.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { closeBrowser, open, openBrowser, put, received, skip, startServer, state, until } from "./page.js"

describe("the keyboard alone", { skip, timeout: 300_000 }, () => {
  let server, browser, page
  before(async () => {
    server = await startServer()
    for (const path of ["chat/1", "chat/2", "docs/a/b", "top"]) await put(server, path, "application/json", '[{"n":1},{"n":2}]')
    browser = await openBrowser()
    page = await open(browser, server, "")
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key)
  }
  const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.getAttribute("aria-label"))

  test("the first Tab skips to the content, and every focus is seen", async () => {
    await page.locator(".plot").first().waitFor()
    await press("Tab")
    assert.equal(await focused(), "Skip to the content")
    const seen = []
    for (let step = 0; step < 6; step++) {
      await press("Tab")
      seen.push(await focused())
      const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle)
      assert.notEqual(outline, "none", `${seen.at(-1)} shows no focus`)
    }
    assert.deepEqual(seen.slice(1), ["Overview", "Streams", "Subscriptions", "Server", "Keyboard shortcuts"].map((one) => (one === "Keyboard shortcuts" ? "?" : one)))
  })

  test("the tree is walked with the arrows, and has one stop for Tab", async () => {
    await press("2")
    await page.locator(".row.folder").first().waitFor()
    await press("/")
    assert.equal(await page.evaluate(() => document.activeElement.type), "search")
    await press("ArrowDown")
    assert.equal(await focused(), "chat/")
    await press("ArrowRight")
    await page.locator('.row.stream[aria-level="2"]').first().waitFor()
    await press("ArrowDown", "ArrowDown")
    assert.match(await focused(), /^2/)
    await press("ArrowLeft")
    assert.equal(await focused(), "chat/")
    await press("End")
    assert.match(await focused(), /^top/)
    await press("Home", "ArrowRight")
    assert.match(await focused(), /^1/)
    assert.equal(await page.locator('.pane.list .row[tabindex="0"]').count(), 1)
    await press("Enter")
    await page.locator(".stream-head h2", { hasText: "chat/1" }).waitFor()
  })

  test("messages are chosen, the tail is paused, and more is appended", async () => {
    await until("it is live", async () => (await state(page)) === "live")
    await until("both came", async () => (await received(page)) === 2)
    await press("p")
    assert.equal(await state(page), "paused")
    await press("p")
    await until("it is live", async () => (await state(page)) === "live")
    await press("a")
    await page.locator("dialog textarea").waitFor()
    await page.keyboard.type('{"n":3}')
    await press("Tab", "Tab", "Enter")
    await until("it came", async () => (await received(page)) === 3)
    assert.equal(await page.locator("dialog").count(), 0)
    // From the button, which has the focus again, to the list.
    for (let step = 0; step < 20 && !(await page.evaluate(() => document.activeElement.matches(".row.message"))); step++) await press("Tab")
    await press("Home")
    assert.match(await page.locator(".body").textContent(), /"n": 1/)
    await press("ArrowDown", "ArrowDown")
    assert.match(await page.locator(".body").textContent(), /"n": 3/)
  })

  test("tabs, the list of keys, and deleting by typing the name", async () => {
    await page.locator("#tab-messages").focus()
    await press("ArrowRight")
    await page.locator(".details").waitFor()
    await press("?")
    await page.locator("dialog", { hasText: "Keyboard" }).waitFor()
    await press("Escape")
    await page.getByRole("button", { name: "Delete…" }).focus()
    await press("Enter")
    const button = page.locator("dialog button.danger")
    await page.keyboard.type("chat")
    assert.ok(await button.isDisabled())
    await page.keyboard.type("/1")
    assert.ok(!(await button.isDisabled()))
    await press("Enter")
    await page.getByText("No stream chosen").waitFor()
    assert.equal((await fetch(`${server.route}/chat/1`)).status, 404)
    page.check()
  })

  test("a folder is deleted from the tree, by typing its prefix", async () => {
    for (const path of ["old/1", "old/2"]) await put(server, path, "text/plain", "x")
    await press("2")
    await page.goto(`${server.page}/#/overview`)
    await press("2")
    const folder = page.locator(".row.folder", { hasText: "old/" })
    await folder.waitFor()
    await press("/", "ArrowDown")
    for (let step = 0; step < 10 && (await focused()) !== "old/"; step++) await press("ArrowDown")
    await press("Delete")
    await page.locator("dialog", { hasText: "2 streams" }).waitFor()
    await press("Tab")
    await page.keyboard.type("old/")
    await press("Enter")
    await page.locator(".toast", { hasText: "2 streams deleted" }).waitFor()
    await until("the folder is gone", async () => (await folder.count()) === 0)
    assert.equal((await fetch(`${server.route}/old/1`)).status, 404)
    page.check()
  })

  test("filters are opened and chosen", async () => {
    await press("/")
    for (let step = 0; step < 10 && (await focused()) !== "Filter"; step++) await press("Tab")
    await press("Enter", "Tab")
    await page.keyboard.type("text/plain")
    await page.locator(".note", { hasText: "No stream passes the filter" }).waitFor()
    for (let step = 0; step < 10 && (await focused()) !== "Clear"; step++) await press("Tab")
    await press("Enter")
    await page.locator(".row.stream", { hasText: "top" }).waitFor()
    page.check()
  })

  test("the level of the log is set for a while, and the configuration read again", async () => {
    await press("4")
    await page.getByText("It is info, as configured.").waitFor()
    await page.getByLabel("Level", { exact: true }).focus()
    await press("t", "Tab", "Tab", "Enter")
    await page.getByText(/^It is trace until/).waitFor()
    await press("Tab", "Enter")
    await page.getByText("It is info, as configured.").waitFor()
    await page.getByRole("button", { name: "Reload" }).focus()
    await press("Enter")
    await page.getByText("Read again: nothing has changed.").waitFor()
    assert.equal(await focused(), "Reload", "the button keeps the focus")
    page.check()
  })

  test("a copied command reads the stream", async () => {
    await page.goto(`${server.page}/#/streams/top`)
    await page.locator(".row.message").first().waitFor()
    await press("c")
    await page.locator(".toast", { hasText: "copied" }).waitFor()
    const command = await page.evaluate(() => navigator.clipboard.readText())
    assert.match(command, /^curl -N '?http/)
    const { execFileSync } = await import("node:child_process")
    const output = execFileSync("sh", ["-c", `${command} --silent --max-time 2 || true`], { encoding: "utf8" })
    assert.match(output, /"n":2/)
  })
})
