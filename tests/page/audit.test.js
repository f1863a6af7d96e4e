// axe-core on every view, light and dark and on a phone: nothing serious or critical. And the pictures of docs/admin.md.
import assert from "node:assert/strict"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import axe from "axe-core"
import { append, closeBrowser, open, openBrowser, put, skip, startServer, shot, until } from "./page.js"

const SCREENS = {
  light: { colorScheme: "light", viewport: { width: 1280, height: 800 } },
  dark: { colorScheme: "dark", viewport: { width: 1280, height: 800 } },
  phone: { colorScheme: "light", viewport: { width: 390, height: 844 } },
}

/** What is looked at: a view, what is done in it first, and whether the document has a picture of it. */
const VIEWS = {
  overview: { hash: "#/overview", ready: ".plot .line", picture: ["dark"] },
  streams: { hash: "#/streams", ready: ".row.folder" },
  messages: { hash: "#/streams/chat/42", ready: ".row.message", picture: ["light", "phone"], does: chooseOne },
  details: { hash: "#/streams/chat/42", ready: ".row.message", does: (page) => page.getByRole("tab", { name: "Details" }).click() },
  deleting: { hash: "#/streams/chat/42", ready: ".row.message", does: (page) => page.getByRole("button", { name: "Delete…" }).click() },
  keys: { hash: "#/streams/chat/42", ready: ".row.message", does: (page) => page.keyboard.press("?") },
  missing: { hash: "#/streams/none", ready: ".problem" },
  subscriptions: { hash: "#/subscriptions", ready: ".subscription" },
  server: { hash: "#/server", ready: ".config:not(:empty)", picture: ["light"], does: reload },
  filters: { hash: "#/streams", ready: ".row.folder", does: (page) => page.locator(".filters summary").click() },
  tenants: { hash: "#/streams?tenant=acme", ready: ".tenant select" },
  deletion: { hash: "#/streams", ready: ".row.folder", does: askToDelete },
  progress: { hash: "#/streams", ready: ".row.folder", does: deleteSome },
  backup: { hash: "#/server", ready: ".config:not(:empty)", does: backUp },
}

async function chooseOne(page) {
  await page.locator(".row.message").nth(1).click()
}

async function reload(page) {
  await page.getByRole("button", { name: "Reload" }).click()
  await page.getByText("Read again").waitFor()
  await page.evaluate(() => scrollTo(0, 0))
}

async function askToDelete(page) {
  await page.getByRole("button", { name: "Delete by prefix…" }).click()
  await page.getByLabel(/^Prefix/).fill("orders/")
  await page.locator("dialog", { hasText: "3 streams" }).waitFor()
}

/** A deletion that has ended, in its place above the list. */
async function deleteSome(page) {
  await page.getByRole("button", { name: "Delete by prefix…" }).click()
  await page.getByLabel(/^Prefix/).fill("nothing/")
  await page.getByLabel("The prefix again").fill("nothing/")
  await page.getByRole("button", { name: "Delete them all" }).click()
  await page.getByRole("button", { name: "Dismiss" }).waitFor()
}

async function backUp(page) {
  await page.getByRole("button", { name: "Back up…" }).click()
  await page.getByLabel(/^Name/).fill(`audit-${Date.now()}`)
  await page.locator("dialog").getByRole("button", { name: "Back up" }).click()
  await page.locator(".job .tag", { hasText: "done" }).first().waitFor()
}

async function fill(server) {
  const words = "the quick brown fox jumps over a lazy dog while streams flow on".split(" ")
  await put(server, "chat/42", "application/json", "[]")
  for (let id = 1; id <= 40; id++) {
    const text = words.slice(id % 5, 3 + (id % 9)).join(" ")
    await append(server, "chat/42", "application/json", JSON.stringify({ id, author: ["ada", "grace", "linus"][id % 3], text, sent: 1764347000 + id, tags: id % 4 ? [] : ["pinned", "seen"] }))
  }
  for (const path of ["chat/43", "chat/44", "orders/eu/1001", "orders/eu/1002", "orders/us/2001", "uploads/photo", "audit"]) await put(server, path, "text/plain", `${path}\n`)
  const fork = await fetch(`${server.route}/chat/42-draft`, { method: "PUT", headers: { "stream-forked-from": "/v1/stream/chat/42" } })
  assert.equal(fork.status, 201)
  const subscription = await fetch(`${server.route}/__ds/subscriptions/search`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ type: "pull-wake", pattern: "orders/**", wake_stream: "wakes/search" }),
  })
  assert.equal(subscription.status, 201, await subscription.text())
}

/** Appends, reads, readers and a few mistakes, more at some times than at others, so that the plots have something to show. */
function makeTraffic(server) {
  const abort = new AbortController()
  const ask = (path, options) => fetch(`${server.route}/${path}`, options).then((response) => response.text()).catch(() => {})
  let turn = 0
  const timer = setInterval(() => {
    turn++
    const busy = 1.5 + Math.sin(turn / 260)
    if (Math.random() < busy) ask("audit", { method: "POST", headers: { "content-type": "text/plain" }, body: "x" })
    if (Math.random() < busy / 3) ask("chat/42")
    if (turn % 90 < 3) ask("none")
  }, 25)
  for (let reader = 0; reader < 3; reader++) ask("audit?offset=now&live=sse", { signal: abort.signal })
  return { stop: () => (clearInterval(timer), abort.abort()) }
}

/** The picture as WebP, which is what the document has. */
async function picture(page, file) {
  const session = await page.context().newCDPSession(page)
  const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: 70 })
  writeFileSync(file, Buffer.from(data, "base64"))
}

describe("accessibility", { skip, timeout: 400_000 }, () => {
  let server, browser, traffic, backups
  before(async () => {
    // Files, so that the overview has a log and a disk.
    backups = mkdtempSync(join(tmpdir(), "durable-streams-backups-"))
    server = await startServer({ storage: "file", admin: `, backups: ${JSON.stringify(backups)}`, config: ["upstreams: [{path: /app, servers: ['http://127.0.0.1:9']}]"] })
    browser = await openBrowser()
    await fill(server)
    traffic = makeTraffic(server)
    await until("the overview has a history", async () => {
      const overview = await (await fetch(`${server.page}/admin/v1/overview`)).json()
      return overview.history.length >= (process.env.PICTURES ? 24 : 2)
    }, 200)
  })
  after(async () => {
    traffic?.stop()
    await closeBrowser()
    await server.stop()
    rmSync(backups, { recursive: true })
  })

  for (const [name, { hash, ready, does, picture: pictured = [] }] of Object.entries(VIEWS)) {
    test(name, async () => {
      const page = await open(browser, server, hash)
      await page.locator(ready).first().waitFor()
      await does?.(page)
      await page.evaluate(axe.source)
      for (const [screen, { colorScheme, viewport }] of Object.entries(SCREENS)) {
        await page.emulateMedia({ colorScheme })
        await page.setViewportSize(viewport)
        await page.waitForTimeout(150)
        await shot(page, `${name}-${screen}`)
        if (process.env.PICTURES && pictured.includes(screen)) await picture(page, join(process.env.PICTURES, `page-${name}-${screen}.webp`))
        const width = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)
        assert.ok(width <= 0, `${screen}: it is ${width} pixels wider than the screen`)
        const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }))
        const serious = violations.filter(({ impact }) => impact === "serious" || impact === "critical")
        const told = serious.map(({ id, help, nodes }) => `${screen}: ${id}: ${help}\n  ${nodes.map((node) => node.html + "\n    " + node.failureSummary).join("\n  ")}`)
        for (const { id, impact, nodes } of violations) if (!serious.some((one) => one.id === id)) console.log(`${name}, ${screen}: ${impact}: ${id} (${nodes.length})`)
        assert.deepEqual(told, [])
      }
      page.check()
      await page.context().close()
    })
  }
})
