// The server's view: status, certificates, upstreams, the configuration and its reload, the log's level, backups.
import assert from "node:assert/strict"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { after, before, describe, test } from "node:test"
import { closeBrowser, open, openBrowser, put, shot, skip, startServer, until } from "./page.js"

// The stream listener has a certificate of the server's own authority.
process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"

describe("the server's view", { skip, timeout: 300_000 }, () => {
  let server, browser, backups, healthy, file, good
  before(async () => {
    backups = mkdtempSync(join(tmpdir(), "durable-streams-backups-"))
    healthy = createServer((_, response) => response.end("ok")).listen(0, "127.0.0.1")
    await new Promise((resolve) => healthy.once("listening", resolve))
    const servers = `["http://127.0.0.1:${healthy.address().port}", "http://127.0.0.1:9"]`
    server = await startServer({
      storage: "file",
      tls: "internal",
      admin: `, backups: ${JSON.stringify(backups)}`,
      config: [
        `upstreams: [{path: /app, servers: ${servers}, health_check: {path: /, interval: 300ms, timeout: 200ms}}]`,
        `auth: {anonymous: [{allow: [all, administer], paths: ["**"]}], issuers: [{name: id, issuer: "https://id.example", audience: [a], jwks_url: "https://user:planted-secret@id.example/keys?key=planted-secret", allow: [read], paths: ["**"]}]}`,
      ],
    })
    file = join(server.dir, "config.yaml")
    good = readFileSync(file, "utf8")
    browser = await openBrowser()
  })
  after(async () => {
    await closeBrowser()
    healthy.close()
    await server?.stop()
    rmSync(backups, { recursive: true })
  })

  const card = (page, name) => page.locator(".server .card", { has: page.getByRole("heading", { name, exact: true }) })

  test("shows status, certificates and the health of upstreams", async () => {
    const page = await open(browser, server, "#/server")
    const status = card(page, "Status")
    await status.locator("dd").first().waitFor()
    const text = await status.textContent()
    for (const part of ["Version", "Readyyes", `files in ${join(server.dir, "data")}`, "Takes writesyes", "Checkpoints", "Disk free"]) assert.ok(text.includes(part), `${part} in ${text}`)
    await card(page, "Certificates").locator("td", { hasText: "localhost" }).waitFor()
    assert.match(await card(page, "Certificates").textContent(), /in \d+ (h|d)/)
    const upstreams = card(page, "Upstreams")
    await upstreams.locator("tr", { hasText: String(healthy.address().port) }).filter({ hasText: "healthy" }).waitFor()
    await upstreams.locator("tr", { hasText: "127.0.0.1:9" }).filter({ hasText: "failing" }).waitFor({ timeout: 15_000 })
    await shot(page, "server")
    page.check()
    await page.context().close()
  })

  test("shows the configuration without secrets, and what a reload makes of it", async () => {
    const page = await open(browser, server, "#/server")
    const config = page.locator(".config")
    await until("it is there", async () => (await config.textContent()).includes("jwks_url"))
    assert.match(await config.textContent(), /jwks_url: https:\/\/\*\*\*@id\.example\/keys\?key=\*\*\*/)
    assert.ok(!(await page.content()).includes("planted-secret"))
    const outcome = page.locator(".outcome")
    const reload = page.getByRole("button", { name: "Reload" })
    await reload.click()
    await outcome.getByText("Read again: nothing has changed.").waitFor()
    writeFileSync(file, `${good}limits: {max_append: 1MiB}\nthreads: 3\n`)
    await reload.click()
    await outcome.getByText("2 keys changed").waitFor()
    assert.match(await outcome.locator("tr", { hasText: "limits.max_append" }).textContent(), /16MiB1MiBin force/)
    assert.match(await outcome.locator("tr", { hasText: "threads" }).textContent(), /needs a restart/)
    await until("it is in force", async () => (await config.textContent()).includes("max_append: 1MiB"))
    writeFileSync(file, `${good}limits: {max_append: nonsense}\nthread: 3\n`)
    await reload.click()
    await outcome.getByText("The new configuration is refused; the running one stays.").waitFor()
    assert.equal(await outcome.locator(".path").count(), 2, "each problem has its line")
    assert.match(await outcome.textContent(), /config\.yaml:\d+:\d+: limits\.max_append = "nonsense"/)
    assert.ok((await config.textContent()).includes("max_append: 1MiB"))
    await shot(page, "server-reload-refused")
    writeFileSync(file, good)
    await reload.click()
    await outcome.getByText("1 key changed").waitFor()
    page.check()
    await page.context().close()
  })

  test("changes the level of the log for a while, and back", async () => {
    const page = await open(browser, server, "#/server")
    await page.getByText("It is info, as configured.").waitFor()
    const back = page.getByRole("button", { name: "Back to the configured level" })
    assert.equal(await back.isVisible(), false)
    await page.getByLabel("Level", { exact: true }).selectOption("debug")
    await page.getByLabel("For how long").selectOption("60")
    await page.getByRole("button", { name: "Set" }).click()
    await page.getByText(/^It is debug until/).waitFor()
    const level = await (await fetch(`${server.page}/admin/v1/log-level`)).json()
    const left = Date.parse(level.until) - Date.now()
    assert.ok(level.level === "debug" && left > 50_000 && left <= 60_000, JSON.stringify(level))
    // Another administrator changes it, too.
    await fetch(`${server.page}/admin/v1/log-level`, { method: "PUT", headers: { "content-type": "application/json" }, body: '{"level":"warn","seconds":30}' })
    await page.getByText(/^It is warn until/).waitFor({ timeout: 15_000 })
    await back.click()
    await page.getByText("It is info, as configured.").waitFor()
    page.check()
    await page.context().close()
  })

  test("begins a backup and shows how far it is", async () => {
    const put = (number) => fetch(`${server.page}/admin/v1/data/backed/${number}`, { method: "PUT", headers: { "content-type": "text/plain" }, body: "x".repeat(1_000) })
    for (let number = 0; number < 200; number++) assert.equal((await put(number)).status, 201)
    const page = await open(browser, server, "#/server")
    // What the server says of a job is shown, whatever it is: a long one is played.
    let done = 0
    const playing = { id: "7", kind: "backup", state: "running", started: new Date().toISOString(), ended: null, by: "x", tenant: null, prefix: null, destination: "/played", total: 4096, failed: 0, error: null }
    await page.route("**/admin/v1/jobs", (route) => route.fulfill({ json: { jobs: [{ ...playing, done: (done = Math.min(4096, done + 1024)), state: done < 4096 ? "running" : "done", ended: done < 4096 ? null : playing.started }] } }))
    const job = page.locator(".job", { hasText: "/played" })
    await job.waitFor({ timeout: 15_000 })
    const seen = new Set()
    await until("it is done", async () => {
      const bar = job.locator("progress")
      if (await bar.isVisible()) seen.add(await bar.evaluate((one) => one.value / one.max))
      return (await job.textContent()).includes("done")
    }, 15)
    assert.ok([...seen].some((part) => part > 0 && part < 1), `progress seen: ${[...seen]}`)
    assert.match(await job.textContent(), /4\.00 KiB of 4\.00 KiB/)
    await page.unroute("**/admin/v1/jobs")

    await page.getByRole("button", { name: "Back up…" }).click()
    const name = page.getByLabel(/^Name/)
    assert.match(await name.inputValue(), /^backup-\d{4}-\d\d-\d\d-\d\d-\d\d$/)
    await name.fill("../elsewhere")
    const begin = page.locator("dialog").getByRole("button", { name: "Back up" })
    await begin.click()
    await page.locator("dialog .problem", { hasText: "letters, digits" }).waitFor()
    await name.fill("nightly")
    await begin.click()
    const made = page.locator(".job", { hasText: join(backups, "nightly") })
    await made.locator(".tag", { hasText: "done" }).waitFor()
    assert.equal(await made.getByRole("button", { name: "Cancel" }).isVisible(), false)
    assert.ok(existsSync(join(backups, "nightly")))
    await page.getByRole("button", { name: "Back up…" }).click()
    await name.fill("nightly")
    await begin.click()
    await page.locator("dialog .problem", { hasText: "choose another" }).waitFor()
    await page.keyboard.press("Escape")
    await shot(page, "server-backup")
    page.check()
    await page.context().close()
  })
})
