// The commands on streams, and with them the Rust client, against another server: the protocol's reference server, and
// by `peers` Electric's and the Caddy plugin.
import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { after, before, describe, test } from "node:test"
import { startPeer } from "./peer.js"
import { start } from "./server.js"
import { within } from "./support.js"

let peer, base
before(async () => {
  peer = await startPeer()
  base = peer.base
})
after(() => peer.stop())

/** Runs a command to its end; `input` goes to its standard input. */
async function run(args, { input = "", code = 0, url = base } = {}) {
  const child = spawn(process.env.BINARY, args, { env: { ...process.env, STREAMS_URL: url } })
  let [out, error] = ["", ""]
  child.stdout.on("data", (data) => (out += data))
  child.stderr.on("data", (data) => (error += data))
  child.stdin.on("error", () => {})
  child.stdin.end(input)
  const ended = new Promise((resolve) => child.on("close", resolve))
  assert.equal(await within(30, args.join(" "), ended), code, `${args.join(" ")}: ${error}`)
  return out
}

describe("the Rust client against another server", () => {
  test("create, append, head, read, close, delete", async () => {
    await run(["create", "life", "--type", "text/plain"])
    await run(["create", "life", "--json"], { code: 5 })
    await run(["append", "life", "--input", "lines"], { input: "one\ntwo\r\n" })
    const offset = (await run(["append", "life", "--data", "three", "--print-offset"])).trim()
    assert.equal(await run(["read", "life"]), "one\ntwo\r\nthree")
    assert.equal(await run(["read", "life", "--from", offset]), "")
    assert.equal(await run(["read", "life", "--from", "now"]), "")
    const head = JSON.parse(await run(["head", "life", "--json"]))
    assert.deepEqual([head.content_type, head.offset, head.closed], ["text/plain", offset, false])
    await run(["close", "life"])
    await run(["append", "life", "--data", "x"], { code: 5 })
    assert.equal(await run(["follow", "life"]), "one\ntwo\r\nthree")
    await run(["delete", "life"])
    await run(["read", "life"], { code: 3 })
  })

  for (const mode of [[], ["--long-poll"]]) {
    test(`numbered messages are followed live, ${mode[0] ?? "SSE"}`, async () => {
      const path = `numbers${mode.length}`
      const lines = Array.from({ length: 3000 }, (_, n) => `{"n":${n}}\n`).join("")
      await run(["create", path, "--json"])
      const following = run(["follow", path, ...mode])
      await run(["append", path, "--close"], { input: lines })
      assert.equal(await following, lines)
    })
  }

  test("bytes are followed live", async () => {
    await run(["create", "bytes"])
    const following = run(["follow", "bytes"])
    const words = Array.from({ length: 20_000 }, (_, n) => n.toString(36)).join(" ")
    await run(["append", "bytes", "--close"], { input: words })
    assert.equal(await following, words)
  })

  test("a producer is claimed, repeated and fenced", async () => {
    await run(["create", "claimed", "--json"])
    const named = ["append", "claimed", "--producer-id", "p"]
    for (const n of [1, 2, 3]) await run([...named, "--data", `${n}`])
    for (let n = 0; n < 2; n++) await run([...named, "--epoch", "4000000", "--data", "4"])
    await run([...named, "--epoch", "7", "--data", "5"], { code: 5 })
    assert.equal(await run(["read", "claimed"]), "1\n2\n3\n4\n")
  })

  // The reference server takes minutes for it.
  const large = process.env.ELECTRIC || process.env.CADDY ? test : () => {}
  large("a stream is copied that is larger than an append may be", async () => {
    const server = await start({ storage: "memory" })
    try {
      const line = `{"text":"${"x".repeat(100_000)}"}\n`
      await run(["append", "large", "--create", "application/json"], { input: line.repeat(200) })
      await run(["copy", `${base}/large`, `${server.route}/large`])
      assert.equal(await run(["read", "large"], { url: server.route }), line.repeat(200))
    } finally {
      await server.stop()
    }
  })

  test("a stream is copied from it and to it", async () => {
    const server = await start({ storage: "memory" })
    try {
      const lines = Array.from({ length: 500 }, (_, n) => `{"n":${n}}\n`).join("")
      await run(["append", "moved", "--create", "application/json", "--close"], { input: lines })
      await run(["copy", `${base}/moved`, `${server.route}/moved`])
      await run(["copy", `${server.route}/moved`, `${base}/back`])
      assert.equal(await run(["read", "moved"], { url: server.route }), lines)
      assert.equal(await run(["follow", "back"]), lines)
    } finally {
      await server.stop()
    }
  })
})
