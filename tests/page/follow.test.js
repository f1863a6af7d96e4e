// The live tail: a fast producer, a server that is killed under it, and its controls.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { append, closeBrowser, open, openBrowser, put, received, shot, skip, startServer, state, until } from "./page.js"

const PER_SECOND = 1_000
const SECONDS = 10
const BATCH = 10

/** A frame that takes longer than this is a page that froze. */
const FROZEN_MS = 1_500

const messages = (from, to) => JSON.stringify(Array.from({ length: to - from }, (_, index) => ({ id: from + index, at: Date.now(), text: `message ${from + index}`, exact: 1 })))

/** Appends `total` messages at a steady pace; returns how long it took, seconds. */
async function produce(server, path, total) {
  const began = Date.now()
  for (let sent = 0; sent < total; sent += BATCH) {
    await append(server, path, "application/json", messages(sent, Math.min(total, sent + BATCH)))
    const due = began + ((sent + BATCH) * 1000) / PER_SECOND
    if (due > Date.now()) await sleep(due - Date.now())
  }
  return (Date.now() - began) / 1000
}

/** Begins to record how long each frame takes. */
const recordFrames = (page) =>
  page.evaluate(() => {
    globalThis.frames = []
    let before = performance.now()
    const next = (now) => {
      globalThis.frames.push(now - before)
      before = now
      requestAnimationFrame(next)
    }
    requestAnimationFrame(next)
  })

describe("following a stream", { skip, timeout: 180_000 }, () => {
  let browser
  before(async () => (browser = await openBrowser()))
  after(closeBrowser)

  test(`${PER_SECOND} messages a second, none left out, no frame missed for long`, async () => {
    const server = await startServer()
    try {
      await put(server, "fast", "application/json", "[]")
      const page = await open(browser, server, "#/streams/fast")
      await until("it is live", async () => (await state(page)) === "live")
      await recordFrames(page)
      const total = PER_SECOND * SECONDS
      const seconds = await produce(server, "fast", total)
      await until("all came", async () => (await received(page)) >= total, 30)
      assert.equal(await received(page), total)
      const frames = (await page.evaluate(() => globalThis.frames)).sort((a, b) => a - b)
      const part = (share) => frames[Math.floor((frames.length - 1) * share)].toFixed(0)
      console.log(`${total} messages in ${seconds.toFixed(1)} s; ${frames.length} frames: median ${part(0.5)} ms, 99 % ${part(0.99)} ms, longest ${part(1)} ms`)
      assert.ok(frames.at(-1) < FROZEN_MS, `a frame took ${part(1)} ms`)
      assert.ok((await page.locator(".row.message").count()) < 100, "the document holds a screenful")
      await shot(page, "fast")
      // From the last to the first, and all between are there.
      await page.keyboard.press("e")
      const last = await page.locator(".row.message").last().textContent()
      assert.ok(last.includes(`"id":${total - 1},`), last)
      await page.locator(".row.message").last().click()
      await page.keyboard.press("Home")
      await page.locator(".row.message", { hasText: '"id":0,' }).waitFor()
      page.check()
    } finally {
      await server.stop()
    }
  })

  test("a server that is killed and comes back: nothing twice, nothing left out", async () => {
    const server = await startServer({ storage: "file" })
    try {
      await put(server, "kept", "application/json", "[]")
      const page = await open(browser, server, "#/streams/kept")
      await until("it is live", async () => (await state(page)) === "live")
      let sent = 0
      for (let round = 0; round < 3; round++) {
        for (let step = 0; step < 20; step++) {
          await append(server, "kept", "application/json", messages(sent, sent + 5))
          sent += 5
        }
        if (round === 0) await until("the first came", async () => (await received(page)) > 0)
        await server.crash()
      }
      await append(server, "kept", "application/json", messages(sent, ++sent))
      await until("all came", async () => (await received(page)) >= sent, 30)
      await sleep(500)
      assert.equal(await received(page), sent)
      await until("it is live again", async () => (await state(page)) === "live")
      await page.locator(".row.message", { hasText: `"id":${sent - 1},` }).waitFor()
      page.check()
    } finally {
      await server.stop()
    }
  })

  test("while the server is away, the page says so and keeps what it has", async () => {
    const server = await startServer({ storage: "file" })
    try {
      await put(server, "kept", "application/json", messages(0, 3))
      const page = await open(browser, server, "#/streams/kept")
      await until("they came", async () => (await received(page)) === 3)
      server.process.kill("SIGKILL")
      await server.exit
      await until("it says so", async () => (await state(page)) === "waiting")
      await page.locator(".banner", { hasText: "does not answer" }).waitFor()
      assert.equal(await page.locator(".row.message").count(), 3)
      await shot(page, "server-away")
      await server.start()
      await until("it is live again", async () => (await state(page)) === "live")
      page.check()
    } finally {
      await server.stop()
    }
  })

  test("a pause leaves nothing out, an offset and the last messages are jumped to, a stream ends", async () => {
    const server = await startServer()
    try {
      await put(server, "steered", "application/json", messages(0, 150))
      const page = await open(browser, server, "#/streams/steered")
      await until("the last 100 came", async () => (await received(page)) === 100)
      await page.getByRole("button", { name: "Pause" }).click()
      await append(server, "steered", "application/json", messages(150, 160))
      await sleep(300)
      assert.equal(await received(page), 100)
      await page.getByRole("button", { name: "Resume" }).click()
      await until("what was missed came", async () => (await received(page)) === 110)
      const offset = await page.locator(".facts-line code").textContent()
      await page.getByLabel("Read from").selectOption("start")
      await until("all came", async () => (await received(page)) === 160)
      await append(server, "steered", "application/json", messages(160, 163))
      await page.getByRole("button", { name: "From offset…" }).click()
      await page.getByRole("textbox", { name: /^Offset/ }).fill(offset)
      await page.getByRole("button", { name: "Read" }).click()
      await until("what is behind the offset came", async () => (await received(page)) === 3)
      await fetch(`${server.route}/steered`, { method: "POST", headers: { "stream-closed": "true" } })
      await until("it ended", async () => (await state(page)) === "closed")
      page.check()
    } finally {
      await server.stop()
    }
  })

  test("a long history is held and not raced through", async () => {
    const server = await startServer()
    try {
      await put(server, "long", "application/json", "[]")
      const total = 45_000
      for (let sent = 0; sent < total; sent += 250) await append(server, "long", "application/json", messages(sent, sent + 250))
      const page = await open(browser, server, "#/streams/long")
      await until("it is live", async () => (await state(page)) === "live")
      await page.getByLabel("Read from").selectOption("start")
      await until("it is held", async () => (await state(page)) === "held")
      // A read stops where an event ends, and one event holds at most 512 KiB: some 10,000 of these messages.
      const held = await received(page)
      assert.ok(held >= 10_000 && held < 25_000, `${held}`)
      await page.locator(".message-list .scroller").evaluate((box) => (box.scrollTop = 0))
      await page.locator(".row.message", { hasText: '"id":0,' }).waitFor()
      // Going on, the oldest leave the view, and the page says how many.
      const goOn = page.getByRole("button", { name: "Go on" })
      await until("it is at the end", async () => {
        if ((await state(page)) === "held") await goOn.click()
        return (await state(page)) === "live" && (await received(page)) === total
      })
      await page.getByText("25,000 older ones not kept").waitFor()
      page.check()
    } finally {
      await server.stop()
    }
  })
})
