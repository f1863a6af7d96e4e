// A headless browser over HTTPS: HTTP/2, where readers share one connection, and a certificate that is replaced while
// they read.
import assert from "node:assert/strict"
import { execFileSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { connect } from "node:tls"
import { chromium } from "playwright-core"
import { start } from "./server.js"
import { until } from "./support.js"

const executablePath = process.env.CHROMIUM
const skip = executablePath ? false : "no Chromium here; scripts/bootstrap installs it where apt-get does"
// The certificates here are those of the test itself.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"

const READERS = 50

/** In the page: `count` readers of streams of their own. `window.seen` has what each got, `window.errors` what failed. */
async function follow(count) {
  window.seen = {}
  window.errors = 0
  const headers = { "content-type": "text/plain" }
  for (let reader = 0; reader < count; reader++) {
    const url = `/v1/stream/reader-${reader}`
    await fetch(url, { method: "PUT", headers })
    const source = new EventSource(`${url}?offset=-1&live=sse`)
    source.addEventListener("data", (event) => (window.seen[reader] = (window.seen[reader] ?? "") + event.data))
    source.onerror = () => window.errors++
    await new Promise((resolve) => (source.onopen = resolve))
  }
}

/** In the page: one append to each of the streams. */
async function append([count, text]) {
  const post = (reader) =>
    fetch(`/v1/stream/reader-${reader}`, { method: "POST", headers: { "content-type": "text/plain" }, body: text })
  await Promise.all(Array.from({ length: count }, (_, reader) => post(reader)))
}

describe("browser over HTTPS", { skip, timeout: 90_000 }, () => {
  let browser, application, dir
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), "durable-streams-https-"))
    application = createServer((_, response) => {
      response.writeHead(200, { "content-type": "text/html" })
      response.end("<!doctype html><title>an application</title>")
    })
    await new Promise((resolve) => application.listen(0, "127.0.0.1", resolve))
    browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] })
  })
  after(async () => {
    await browser?.close()
    application.close()
    rmSync(dir, { recursive: true, force: true })
  })

  /** A server with the application behind it, a page of that application, and the responses that the page gets. */
  async function scene(tls) {
    const upstream = `upstreams: [{path: /, servers: ["http://127.0.0.1:${application.address().port}"]}]`
    const server = await start({ storage: "file", tls, config: [upstream] })
    const context = await browser.newContext({ ignoreHTTPSErrors: true })
    const page = await context.newPage()
    const responses = []
    const inspector = await context.newCDPSession(page)
    await inspector.send("Network.enable")
    inspector.on("Network.responseReceived", ({ response }) => responses.push(response))
    await page.goto(`${server.origin}/`)
    return { server, page, responses }
  }

  const all = (page, text) =>
    until(`each reader has ${text}`, () =>
      page.evaluate(([count, text]) => Object.values(window.seen).filter((one) => one === text).length === count, [
        READERS,
        text,
      ]),
    )

  test(`${READERS} EventSources share one HTTP/2 connection`, async () => {
    const { server, page, responses } = await scene("internal")
    try {
      await page.evaluate(follow, READERS)
      await page.evaluate(append, [READERS, "one"])
      await all(page, "one")
      const events = responses.filter((response) => response.mimeType === "text/event-stream")
      assert.equal(events.length, READERS)
      assert.deepEqual(new Set(responses.map((response) => response.protocol)), new Set(["h2"]))
      assert.equal(new Set(events.map((response) => response.connectionId)).size, 1)
      assert.equal(await page.evaluate(() => window.errors), 0)
      await page.context().close()
    } finally {
      await server.stop()
    }
  })

  test("a certificate is replaced and no reader notices", async () => {
    const [certificate, key] = ["certificate.pem", "key.pem"].map((name) => join(dir, name))
    const renew = (name) =>
      execFileSync("openssl", [
        ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
        ...["-subj", `/CN=${name}`, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
      ], { stdio: "pipe" })
    renew("the first")
    const { server, page } = await scene(
      `{certificates: [{certificate: ${JSON.stringify(certificate)}, key: ${JSON.stringify(key)}}]}`,
    )
    try {
      const served = () =>
        new Promise((resolve, reject) => {
          const socket = connect({ host: "127.0.0.1", port: server.port, rejectUnauthorized: false }, () => {
            resolve(socket.getPeerCertificate().subject.CN)
            socket.end()
          })
          socket.on("error", reject)
        })
      assert.equal(await served(), "the first")
      await page.evaluate(follow, READERS)
      await page.evaluate(append, [READERS, "one"])
      await all(page, "one")
      renew("the second")
      server.process.kill("SIGHUP")
      await until("the second certificate is served", async () => (await served()) === "the second")
      await page.evaluate(append, [READERS, "two"])
      await all(page, "onetwo")
      assert.equal(await page.evaluate(() => window.errors), 0)
      await page.context().close()
    } finally {
      await server.stop()
    }
  })
})
