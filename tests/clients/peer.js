// Another server of the protocol, for the commands and the Rust client to use: the reference server of npm, or the
// program in ELECTRIC (Electric's Rust server) or CADDY (Caddy with the Durable Streams plugin); see `peers`.
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { DurableStreamTestServer } from "@durable-streams/server"
import { freePort } from "./server.js"

const READY_WITHIN_MS = 20_000

/** Starts the peer; `base` is where its streams are, `name` what messages call it. */
export async function startPeer() {
  const { ELECTRIC, CADDY } = process.env
  if (!ELECTRIC && !CADDY) {
    const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", longPollTimeout: 1000 })
    const base = (await server.start()).replace(/\/$/, "") + "/v1/stream"
    return { name: "the reference server", base, stop: () => server.stop() }
  }
  const port = await freePort()
  const dir = mkdtempSync(join(tmpdir(), "durable-streams-peer-"))
  const data = join(dir, "data")
  let command
  if (ELECTRIC) {
    command = [ELECTRIC, "--host", "127.0.0.1", "--port", String(port), "--durability", "wal", "--data-dir", data]
  } else {
    const file = join(dir, "Caddyfile")
    const route = `\troute /v1/stream/* {\n\t\tdurable_streams {\n\t\t\tdata_dir ${data}\n\t\t}\n\t}\n`
    writeFileSync(file, `{\n\tadmin off\n\tauto_https off\n}\n\nhttp://127.0.0.1:${port} {\n${route}}\n`)
    command = [CADDY, "run", "--config", file, "--adapter", "caddyfile"]
  }
  const child = spawn(command[0], command.slice(1), { stdio: "ignore", env: { ...process.env, HOME: dir } })
  const exited = new Promise((resolve) => child.on("exit", resolve))
  const base = `http://127.0.0.1:${port}/v1/stream`
  const ready = Date.now() + READY_WITHIN_MS
  while (!(await fetch(`${base}/none`, { method: "HEAD" }).catch(() => null))) {
    if (Date.now() > ready || child.exitCode !== null) throw new Error(`${command[0]} does not answer`)
    await sleep(50)
  }
  const stop = async () => {
    child.kill("SIGKILL")
    await exited
    rmSync(dir, { recursive: true, force: true })
  }
  return { name: ELECTRIC ? "Electric's server" : "the Caddy plugin", base, stop }
}
