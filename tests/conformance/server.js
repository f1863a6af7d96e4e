// Starts the server under test on a free port of localhost with a configuration of its own, and ends it.
//
// Environment, set by ./run: BINARY (path), STORAGE (memory | file), SEALED (1: everything is sealed at once), COLD (1: and
// leaves the disk for an object store in a directory), CONFIG_EXTRA (a YAML file appended to the
// configuration), TLS_DATA (a data directory with the authority of `tls: internal`, for HTTPS), CREDENTIALS (a file
// with the key that key.js sends), or CONFORMANCE_URL (a server that is already running; nothing is started).
import { spawn } from "node:child_process"
import { closeSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { pathToFileURL } from "node:url"

const READY_WITHIN_MS = 20_000
const STOP_WITHIN_MS = 10_000

export default async function setup({ provide }) {
  if (process.env.CONFORMANCE_URL) {
    const baseUrl = process.env.CONFORMANCE_URL.replace(/\/+$/, "")
    await answers(baseUrl, () => null)
    provide("baseUrl", baseUrl)
    return
  }

  const dir = mkdtempSync(join(tmpdir(), "durable-streams-conformance-"))
  const port = await freePort()
  const config = join(dir, "config.yaml")
  const bucket = join(dir, "bucket")
  writeFileSync(config, configuration(port, dir, bucket))

  const log = join(dir, "server.log")
  const output = openSync(log, "w")
  const server = spawn(process.env.BINARY, ["run", "--config", config], {
    stdio: ["ignore", output, output],
  })
  closeSync(output)
  const exited = new Promise((resolve) => {
    server.on("exit", (code, signal) => resolve(signal ?? code))
    server.on("error", (error) => resolve(error.message))
  })
  let ended = null
  exited.then((how) => (ended = how))
  const killNow = () => server.kill("SIGKILL")
  process.once("exit", killNow)

  try {
    const baseUrl = `${process.env.TLS_DATA ? "https" : "http"}://127.0.0.1:${port}`
    await answers(baseUrl, () => ended)
    provide("baseUrl", baseUrl)
  } catch (error) {
    killNow()
    console.error(readFileSync(log, "utf8"))
    rmSync(dir, { recursive: true, force: true })
    throw error
  }

  return async function teardown() {
    const crashed = ended !== null
    server.kill("SIGTERM")
    const how = await Promise.race([exited, sleep(STOP_WITHIN_MS, "no exit", { ref: false })])
    killNow()
    process.removeListener("exit", killNow)
    const objects = process.env.COLD === "1" ? readdirSync(bucket, { recursive: true }) : []
    if (crashed || how !== 0) console.error(readFileSync(log, "utf8").slice(-20_000))
    rmSync(dir, { recursive: true, force: true })
    if (process.env.COLD === "1" && !objects.some((name) => name.endsWith(".seg")))
      throw new Error("no segment went to the object store")
    if (crashed) throw new Error(`the server ended during the tests: ${how}`)
    if (how !== 0) throw new Error(`the server did not stop cleanly on SIGTERM: ${how}`)
  }
}

function configuration(port, dir, bucket) {
  const tls = process.env.TLS_DATA
  const address = JSON.stringify(`127.0.0.1:${port}`)
  const listen = tls ? `listen: [{address: ${address}, tls: internal}]` : `listen: ${address}`
  const lines = [listen, `long_poll_timeout: 2s`]
  if (process.env.STORAGE === "file") lines.push(`data_dir: ${JSON.stringify(tls || join(dir, "data"))}`)
  // Every stream leaves memory and index within a tenth of a second.
  if (process.env.SEALED === "1") {
    const segments = "{min: 100B, keep: 0B, size: 1KiB, idle: 0ms, share: 1B, interval: 10ms}"
    lines.push(`storage: {checkpoint_interval: 100ms, cache: 0B, segments: ${segments}}`)
  }
  // And the disk within as much, for an object store: nothing of it is kept in memory.
  if (process.env.COLD === "1") {
    mkdirSync(bucket)
    lines.push(`tier: {url: ${JSON.stringify(pathToFileURL(bucket).href)}, interval: 50ms, index_interval: 1s, local: 0B, cache: 0B, cache_block: 64KiB}`)
  }
  // The suite's webhook receivers listen on loopback.
  if (process.env.CONFORMANCE_SUBSCRIPTIONS === "1") lines.push("subscriptions:", "  allow_http_localhost: true")
  if (process.env.CREDENTIALS) lines.push("auth:", `  credentials: ${JSON.stringify(process.env.CREDENTIALS)}`)
  if (process.env.CONFIG_EXTRA) lines.push(readFileSync(process.env.CONFIG_EXTRA, "utf8"))
  return lines.join("\n") + "\n"
}

/** Resolves once the server gives any HTTP answer on a stream URL; `ended()` tells how it ended, or null. */
async function answers(baseUrl, ended) {
  const deadline = Date.now() + READY_WITHIN_MS
  for (;;) {
    try {
      await fetch(`${baseUrl}/v1/stream/readiness-probe`, { method: "HEAD" })
      return
    } catch (error) {
      if (ended() !== null) throw new Error(`the server ended before it was ready: ${ended()}`)
      if (Date.now() > deadline)
        throw new Error(`${baseUrl} did not answer within ${READY_WITHIN_MS} ms: ${error.cause ?? error}`)
    }
    await sleep(50)
  }
}

function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.on("error", reject)
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })
}
