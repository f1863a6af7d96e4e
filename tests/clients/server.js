// The server under test: started on a free port of loopback, killed, started again on the same port, ended.
//
// BINARY (environment): its path. `stop` fails the test when the server crashed or does not end by itself.
import { spawn } from "node:child_process"
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"

const READY_WITHIN_MS = 20_000
const STOP_WITHIN_MS = 15_000

export const STORAGES = ["memory", "file"]

/**
 * Starts a server. `options.storage`: memory | file; `options.dev`: arguments of `dev` instead of a configuration;
 * `options.config`: lines of YAML; `options.tls`: the `tls` of its listener, as YAML, for HTTPS.
 */
export async function start(options = {}) {
  const dir = mkdtempSync(join(tmpdir(), "durable-streams-clients-"))
  const port = await freePort()
  const server = new Server(dir, port, options)
  await server.start()
  return server
}

class Server {
  constructor(dir, port, { storage = "memory", dev = null, config = [], tls = null }) {
    this.dir = dir
    this.port = port
    this.origin = `${tls ? "https" : "http"}://127.0.0.1:${port}`
    this.route = `${this.origin}/v1/stream`
    const file = join(dir, "config.yaml")
    const address = `"127.0.0.1:${port}"`
    const listen = tls ? `[{address: ${address}, tls: ${tls}}]` : address
    const lines = [`listen: ${listen}`, "long_poll_timeout: 2s", "log: {access: false}", ...config]
    if (storage === "file") lines.push(`data_dir: ${JSON.stringify(join(dir, "data"))}`)
    writeFileSync(file, lines.join("\n") + "\n")
    this.command = dev ? ["dev", "--port", String(port), ...dev] : ["run", "--config", file]
  }

  async start() {
    const log = openSync(join(this.dir, "server.log"), "a")
    this.process = spawn(process.env.BINARY, this.command, { stdio: ["ignore", log, log] })
    closeSync(log)
    this.ended = null
    this.exit = new Promise((resolve) => {
      this.process.on("exit", (code, signal) => resolve((this.ended = signal ?? code)))
      this.process.on("error", (error) => resolve((this.ended = error.message)))
    })
    const child = this.process
    process.once("exit", () => child.kill("SIGKILL"))
    const deadline = Date.now() + READY_WITHIN_MS
    for (;;) {
      try {
        await fetch(`${this.route}/readiness-probe`, { method: "HEAD" })
        return
      } catch (error) {
        if (this.ended !== null) throw new Error(`the server ended: ${this.ended}\n${this.log()}`)
        if (Date.now() > deadline) throw new Error(`no answer: ${error.cause ?? error}\n${this.log()}`)
      }
      await sleep(30)
    }
  }

  /** kill -9, and a new process on the same port and directory. */
  async crash() {
    this.process.kill("SIGKILL")
    await this.exit
    await this.start()
  }

  async stop() {
    const crashed = this.ended
    this.process.kill("SIGTERM")
    const how = await Promise.race([this.exit, sleep(STOP_WITHIN_MS, "no exit", { ref: false })])
    this.process.kill("SIGKILL")
    const log = this.log()
    rmSync(this.dir, { recursive: true, force: true })
    if (crashed !== null) throw new Error(`the server ended during the test: ${crashed}\n${log}`)
    if (how !== 0) throw new Error(`the server did not stop on SIGTERM: ${how}\n${log}`)
  }

  log() {
    return readFileSync(join(this.dir, "server.log"), "utf8").slice(-5000)
  }
}

export function freePort() {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.on("error", reject)
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address()
      probe.close(() => resolve(port))
    })
  })
}
