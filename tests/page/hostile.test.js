// Names, bodies and errors that want to be more than text, and a message of 100 MB.
import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { append, closeBrowser, open, openBrowser, put, received, shot, skip, startServer, until } from "./page.js"

const MARKUP = `<img src=x onerror="globalThis.pwned=1"><script>globalThis.pwned=2</script><style>*{display:none}</style>`
const NAMES = [MARKUP, "invoice\u202Efdp.exe", "zero\u200bwidth", "{{7*7}}${7*7}", "'\"&amp;<b>", "a".repeat(600), "\u0430\u0440\u0440le", "https://evil.example/x"]
const BODIES = [MARKUP, "\u001b[2J\u001b]0;title\u0007 red", "a\u202Eb\u2066c", "\u0000\u0001\u007f\u009b31m", "z\u0300\u0301\u0302\u0303".repeat(200)]

/** The path of a stream in a URL. */
const url = (path) => path.split("/").map(encodeURIComponent).join("/")

describe("hostile data stays text", { skip, timeout: 180_000 }, () => {
  let server, browser
  before(async () => {
    server = await startServer({ config: ["limits: {max_append: 128MiB}"] })
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  /** Nothing ran, and nothing of the markup became an element. */
  async function assertText(page) {
    assert.equal(await page.evaluate(() => globalThis.pwned), undefined)
    assert.equal(await page.locator("#main script, #main img, #main style, #main iframe, #main b:text('x')").count(), 0)
    page.check()
  }

  test("names", async () => {
    for (const name of NAMES) await put(server, url(`names/${name}`), "text/plain", "x")
    const page = await open(browser, server, "#/streams")
    await page.locator(".row.folder", { hasText: "names/" }).click()
    await page.locator(".row.stream").first().waitFor()
    const shown = (await page.locator(".row .name").allTextContents()).join("\n")
    assert.ok(shown.includes("invoice\\u202efdp.exe") && shown.includes("zero\\u200bwidth"), shown)
    for (const name of NAMES) {
      await page.goto(`${server.page}/#/streams/${url(`names/${name}`)}`)
      await page.locator(".stream-head h2", { hasText: name.slice(0, 5) }).waitFor()
      assert.ok(!(await page.title()).includes("\u202e"))
      await page.getByRole("tab", { name: "Details" }).click()
      await page.locator(".details").waitFor()
      await page.getByRole("button", { name: "Delete…" }).click()
      await page.locator("dialog").waitFor()
      await page.keyboard.press("Escape")
    }
    await shot(page, "hostile-names")
    await assertText(page)
    await page.context().close()
  })

  test("bodies, as text, JSON and bytes", async () => {
    await put(server, "bodies/text", "text/plain", BODIES[0])
    for (const body of BODIES.slice(1)) await append(server, "bodies/text", "text/plain", body)
    await put(server, "bodies/json", "application/json", JSON.stringify(BODIES.map((text) => ({ [text]: text }))))
    await put(server, "bodies/html", "text/html", MARKUP)
    await put(server, "bodies/bytes", "application/octet-stream", Buffer.from(Array.from({ length: 300 }, (_, index) => index % 256)))
    for (const name of ["text", "json", "html", "bytes"]) {
      const page = await open(browser, server, `#/streams/bodies/${name}`)
      await page.locator(".row.message").first().waitFor()
      const forms = await page.getByLabel("Shown as").locator("option").evaluateAll((all) => all.map((one) => one.value))
      for (const form of forms) {
        await page.getByLabel("Shown as").selectOption(form)
        assert.notEqual(await page.locator(".body").textContent(), "")
        const text = await page.locator("#main").textContent()
        assert.ok(!/[\u0000-\u0008\u000b-\u001f\u202e\u2066\u009b]/.test(text), `${name} as ${form} has a control character`)
      }
      await shot(page, `hostile-${name}`)
      await assertText(page)
      await page.context().close()
    }
  })

  test("what an error quotes", async () => {
    const page = await open(browser, server, `#/streams/${encodeURIComponent(MARKUP)}`)
    await page.getByText("There is no such stream").waitFor()
    await page.goto(`${server.page}/#/streams?x=${encodeURIComponent(MARKUP)}`)
    await page.getByRole("searchbox").fill(MARKUP)
    await page.getByText("No path begins with this").waitFor()
    await assertText(page)
    await page.context().close()
  })

  test("prefixes of deletions, and what a refused configuration quotes", async () => {
    const prefix = `${MARKUP}\u202e/`
    await put(server, url(`${prefix}1`), "text/plain", "x")
    const page = await open(browser, server, "#/streams")
    await page.getByRole("button", { name: "Delete by prefix…" }).click()
    await page.getByLabel(/^Prefix/).fill(prefix)
    await page.locator("dialog", { hasText: "1 stream" }).waitFor()
    await page.getByLabel("The prefix again").fill(prefix)
    await page.getByRole("button", { name: "Delete them all" }).click()
    await page.locator(".job", { hasText: "1 stream deleted" }).waitFor()
    assert.ok((await page.locator(".job").textContent()).includes(MARKUP))
    await assertText(page)
    const file = join(server.dir, "config.yaml")
    const good = readFileSync(file, "utf8")
    writeFileSync(file, `${good}data_dir: ${JSON.stringify(MARKUP)}\nlog_level: ${JSON.stringify(MARKUP)}\n`)
    await page.goto(`${server.page}/#/server`)
    await page.locator(".job", { hasText: MARKUP }).waitFor()
    await page.getByRole("button", { name: "Reload" }).click()
    await page.locator(".outcome .banner", { hasText: "log_level" }).waitFor()
    writeFileSync(file, `${good}browser: {content_security_policy: ${JSON.stringify(`sandbox; report-to ${MARKUP}`)}}\n`)
    await page.getByRole("button", { name: "Reload" }).click()
    await page.locator(".outcome", { hasText: "browser.content_security_policy" }).waitFor()
    await page.locator(".config", { hasText: "report-to" }).waitFor()
    writeFileSync(file, good)
    await shot(page, "hostile-server")
    await assertText(page)
    await page.context().close()
  })

  test("numbers are shown as they were sent", async () => {
    const exact = ["12345678901234567890", "1.10", "-0", "1e400", "0.1000000000000000055511151231257827"]
    await put(server, "exact", "application/json", `[{"n":[${exact.join(",")}],"s":"\\u00e9\\/"}]`)
    const page = await open(browser, server, "#/streams/exact")
    await page.locator(".body").waitFor()
    const shown = await page.locator(".body").textContent()
    for (const number of exact) assert.ok(shown.includes(`\n    ${number}`), `${number} in ${shown}`)
    assert.ok(shown.includes('"\\u00e9\\/"'), shown)
    page.check()
    await page.context().close()
  })

  test("a message of 100 MB is cut, and the page says so", async () => {
    const size = 100_000_000
    for (const [name, type, body] of [
      ["huge/text", "text/plain", "x".repeat(size)],
      ["huge/json", "application/json", `["${"y".repeat(size)}"]`],
      ["huge/bytes", "application/octet-stream", Buffer.alloc(size, 7)],
    ]) {
      await put(server, name, type, body)
      const page = await open(browser, server, `#/streams/${name}`)
      await page.getByLabel("Read from").selectOption("start")
      const began = Date.now()
      await until("it came", async () => (await received(page)) === 1, 60)
      await page.locator(".cut", { hasText: "not shown" }).last().waitFor()
      const kept = await page.locator(".body").evaluate((body) => body.textContent.length)
      console.log(`${name}: shown in part after ${Date.now() - began} ms, ${kept} characters in the document`)
      assert.ok(kept < 200_000, `${kept}`)
      assert.match(await page.locator(".row.message .size").textContent(), /95\.\d MiB/)
      await shot(page, name.replace("/", "-"))
      page.check()
      await page.context().close()
      await fetch(`${server.route}/${name}`, { method: "DELETE" })
    }
  })
})
