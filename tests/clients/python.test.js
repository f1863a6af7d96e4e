// The official Python client: create, append, every form of reading, and exactly once over kill -9. See client.py.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { STORAGES, start } from "./server.js"

const skip = process.env.PYTHON ? false : "no Python with durable-streams; scripts/bootstrap installs it"
const script = new URL("client.py", import.meta.url).pathname

/** Runs one part of client.py; `onLine` gets what it prints. */
function python(server, part, onLine = () => {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.env.PYTHON, [script, server.route, part])
    let said = ""
    child.stdout.on("data", (piece) => {
      said += piece
      onLine(String(piece))
    })
    child.stderr.on("data", (piece) => (said += piece))
    child.on("error", reject)
    child.on("exit", (code) => {
      if (code === 0) resolve()
      else reject(new Error(`client.py ${part}: ${code}\n${said.slice(-3000)}`))
    })
  })
}

for (const storage of STORAGES) {
  describe(`Python client, ${storage}`, { skip }, () => {
    let server
    before(async () => (server = await start({ storage })))
    after(() => server.stop())
    test("create, append, head, delete", () => python(server, "life"))
    test("every form of reading", () => python(server, "reading"))
    test("`live=False` returns all of a stream larger than a page", () => python(server, "complete"))
  })
}

test("a Python producer and its reader go on over kill -9", { skip, timeout: 60_000 }, async () => {
  const server = await start({ storage: "file" })
  let running = true
  let kills = 0
  try {
    let killing
    await python(server, "producer", (line) => {
      if (!line.includes("kill") || killing) return
      killing = (async () => {
        while (running && kills < 3) {
          await server.crash()
          kills += 1
          await sleep(300)
        }
      })()
    })
    running = false
    await killing
    assert.ok(kills > 0, "the server was killed while the producer wrote")
  } finally {
    await server.stop()
  }
})
