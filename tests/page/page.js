// The server with its page, and a browser that looks at it. Used by every file here.
import assert from "node:assert/strict"
import { join } from "node:path"
import { chromium } from "playwright-core"
import { freePort, start } from "../clients/server.js"
import { until } from "../clients/support.js"

export { until }

const executablePath = process.env.CHROMIUM

/** Why the tests are skipped, or false. */
export const skip = executablePath ? false : "no Chromium here; scripts/bootstrap installs it where apt-get does"

const launched = []

/** A browser, closed by `closeBrowser`. */
export async function openBrowser() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] })
  launched.push(browser)
  return browser
}

export async function closeBrowser() {
  await Promise.all(launched.splice(0).map((browser) => browser.close()))
}

/** A server whose admin listener has the page. `config`: more lines of YAML; `admin`: more keys of its listener. */
export async function startServer({ config = [], admin = "", ...options } = {}) {
  const port = await freePort()
  const server = await start({ ...options, config: [`admin: {listen: "127.0.0.1:${port}", page: true${admin}}`, ...config] })
  server.page = `http://127.0.0.1:${port}`
  return server
}

/** Creates a stream, or fails. */
export async function put(server, path, contentType, body, headers = {}) {
  const response = await fetch(`${server.route}/${path}`, { method: "PUT", headers: { "content-type": contentType, ...headers }, body })
  assert.equal(response.status, 201, `${path}: ${await response.text()}`)
}

/** Appends, or fails. */
export async function append(server, path, contentType, body) {
  const response = await fetch(`${server.route}/${path}`, { method: "POST", headers: { "content-type": contentType }, body })
  assert.ok(response.ok, `${path}: ${response.status} ${await response.text()}`)
}

/**
 * Opens the page at a view. What no page of this server may do fails the test at its end (`page.check()`): an exception, a
 * dialog, a refusal by its content security policy, a request to another host.
 */
export async function open(browser, server, hash, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, permissions: ["clipboard-read", "clipboard-write"], ...options })
  // A machine whose cores are busy with something else takes its time.
  context.setDefaultTimeout(60_000)
  const page = await context.newPage()
  const wrong = []
  page.on("pageerror", (error) => wrong.push(`exception: ${error.stack ?? error}`))
  page.on("dialog", (dialog) => {
    wrong.push(`dialog: ${dialog.message()}`)
    dialog.dismiss()
  })
  page.on("console", (message) => {
    const expected = /Failed to load resource|net::ERR/.test(message.text())
    if (message.type() === "error" && !expected) wrong.push(`console: ${message.text()}`)
  })
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== server.page) wrong.push(`request: ${request.url()}`)
  })
  page.check = () => assert.deepEqual(wrong, [])
  await page.goto(`${server.page}/${hash}`)
  return page
}

/** How many messages the live tail has received. */
export async function received(page) {
  return Number(await page.locator(".numbers").getAttribute("data-received"))
}

export const state = (page) => page.locator(".state").getAttribute("data-state")

/** Writes a screenshot to the test output. */
export function shot(page, name) {
  return page.screenshot({ path: join(process.env.SHOTS, `${name}.png`) })
}
