// A stream is trimmed and gets another expiry from the page.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { append, closeBrowser, open, openBrowser, put, received, skip, startServer, state, until } from "./page.js"

describe("steering a stream", { skip, timeout: 180_000 }, () => {
  let server, browser
  before(async () => {
    server = await startServer()
    browser = await openBrowser()
    await put(server, "room", "application/json", "[]")
    for (let n = 0; n < 5; n++) await append(server, "room", "application/json", `{"n":${n}}`)
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  const head = async () => (await fetch(`${server.route}/room`, { method: "HEAD" })).headers
  const dialog = (page) => page.getByRole("dialog")

  test("its expiry is changed, to a time to live, to a time, to none", async () => {
    const page = await open(browser, server, "#/streams/room")
    await until("it is live", async () => (await state(page)) === "live")
    const change = async (choice, label, value) => {
      await page.getByRole("button", { name: "Change expiry…" }).click()
      await dialog(page).getByLabel("It expires").selectOption(choice)
      if (label) await dialog(page).getByLabel(label).fill(value)
      await dialog(page).getByRole("button", { name: "Change", exact: true }).click()
      await dialog(page).waitFor({ state: "detached" })
    }
    await change("ttl", /^Seconds/, "7200")
    assert.equal((await head()).get("stream-ttl"), "7200")
    await change("at", /^Time/, "2099-01-31T12:00:00Z")
    assert.match((await head()).get("stream-expires-at"), /^2099-01-31T12:00:00/)
    await change("never")
    const none = await head()
    assert.deepEqual([none.get("stream-ttl"), none.get("stream-expires-at")], [null, null])
    // What the server refuses stays in the dialog, with its reason.
    await page.getByRole("button", { name: "Change expiry…" }).click()
    await dialog(page).getByLabel("It expires").selectOption("at")
    await dialog(page).getByLabel(/^Time/).fill("tomorrow")
    await dialog(page).getByRole("button", { name: "Change", exact: true }).click()
    await dialog(page).getByText("expires_at is a time as in").waitFor()
    page.check()
  })

  test("it is trimmed before a message", async () => {
    const page = await open(browser, server, "#/streams/room")
    await until("it is live", async () => (await state(page)) === "live")
    await page.getByLabel("Read from").selectOption("start")
    await until("all came", async () => (await received(page)) === 5)
    await append(server, "room", "application/json", '{"n":5}')
    await until("one more came", async () => (await received(page)) === 6)
    await page.locator(".row.message", { hasText: '"n":5' }).click()
    await page.getByRole("button", { name: "Trim before this…" }).click()
    await dialog(page).getByRole("button", { name: "Trim", exact: true }).click()
    await dialog(page).waitFor({ state: "detached" })
    assert.ok((await head()).get("stream-earliest-offset"))
    const left = await fetch(`${server.route}/room?offset=-1`)
    assert.deepEqual(await left.json(), [{ n: 5 }])
    page.check()
  })
})
