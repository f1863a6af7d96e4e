// The official JavaScript client with tokens that the application signs: a plain one, one that ends while its reader follows,
// and ones that take turns.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { DurableStream, stream } from "@durable-streams/client"
import { Credentials, follow, rotating, seconds, signed } from "./credentials.js"
import { STORAGES, start } from "./server.js"
import { until, within } from "./support.js"

for (const storage of STORAGES) {
  describe(`tokens, ${storage}`, { timeout: 90_000 }, () => {
    let credentials, secret, server
    before(async () => {
      credentials = new Credentials()
      secret = credentials.run("project", "create", "chat")
      server = await start({ storage, config: [`auth: {credentials: ${JSON.stringify(credentials.file)}}`] })
    })
    after(async () => {
      await server?.stop()
      credentials?.remove()
    })

    const token = (scope, later) => signed(secret, { sub: "chat", scope, exp: seconds(later) })
    const bearer = (scope, later = 60) => ({ authorization: `Bearer ${token(scope, later)}` })

    test("a client does what its token allows, and no more", async () => {
      const url = `${server.route}/chat/plain`
      const contentType = "application/json"
      const handle = await DurableStream.create({ url, contentType, headers: bearer("write") })
      await handle.append(JSON.stringify({ n: 1 }))
      const read = await stream({ url, offset: "-1", live: false, headers: bearer("read") })
      assert.deepEqual(await read.json(), [{ n: 1 }])
      const reader = new DurableStream({ url, contentType, headers: bearer("read") })
      await assert.rejects(reader.append(JSON.stringify({ n: 2 })), { status: 403 })
      await assert.rejects(stream({ url, offset: "-1", live: false }), { status: 401 })
      const forged = { authorization: `Bearer ${signed("dsp_guessed", { sub: "chat", scope: "read", exp: seconds(60) })}` }
      await assert.rejects(stream({ url, offset: "-1", live: false, headers: forged }), { status: 401 })
      const other = { url: `${server.route}/other/plain`, offset: "-1", live: false, headers: bearer("read") }
      await assert.rejects(stream(other), { status: 404 })
    })

    test("a live read ends with its token", async () => {
      const url = `${server.route}/chat/ending`
      const handle = await DurableStream.create({ url, contentType: "application/json", headers: bearer("write") })
      await handle.append(JSON.stringify(1))
      for (const live of ["sse", "long-poll"]) {
        const began = Date.now()
        const reader = follow(url, live, `Bearer ${token("read", 3)}`)
        await until(`the message, ${live}`, () => reader.seen.length === 1)
        await within(20, `the end, ${live}`, reader.ended)
        assert.equal(reader.failed?.status, 401, `${live}: ${reader.failed}`)
        assert.ok(Date.now() - began > 1500, `${live}: not before its token`)
      }
    })

    test("a live read goes on with the next token where the last one ended", async () => {
      const url = `${server.route}/chat/turns`
      const handle = await DurableStream.create({ url, contentType: "application/json", headers: bearer("write") })
      const tokens = ["sse", "long-poll"].map(() => rotating(() => token("read", 3)))
      const readers = [follow(url, "sse", tokens[0].header), follow(url, "long-poll", tokens[1].header)]
      const count = 90
      for (let n = 0; n < count; n++) {
        await handle.append(JSON.stringify(n))
        await sleep(100)
      }
      await until("all messages", () => readers.every((reader) => reader.failed || reader.seen.length >= count))
      const expected = Array.from({ length: count }, (_, n) => n)
      for (const [at, reader] of readers.entries()) {
        assert.equal(reader.failed, null)
        assert.deepEqual(reader.seen, expected, "each message once, in order")
        assert.ok(tokens[at].made.length >= 3, `${tokens[at].made.length} tokens in nine seconds`)
        assert.ok(new Set(reader.requests).size >= 3, "each of them was used")
      }
      // An event stream would last a minute: these ended with their tokens.
      assert.ok(readers[0].requests.length <= 8, `${readers[0].requests.length} requests for an event stream`)
      await Promise.all(readers.map((reader) => reader.stop()))
    })

    test("a token of a secret that was dropped ends the reads that it began", async () => {
      const url = `${server.route}/chat/dropped`
      await DurableStream.create({ url, contentType: "application/json", headers: bearer("write") })
      let current = secret
      const header = () => `Bearer ${signed(current, { sub: "chat", scope: "read", exp: seconds(600) })}`
      const fixed = header()
      const renewed = follow(url, "sse", header)
      const stale = follow(url, "sse", fixed)
      // A request that waits in this process while the command runs would come with the dropped secret, and be refused.
      await until("both read", () => renewed.responses >= 1 && stale.responses >= 1)
      current = secret = credentials.run("project", "rotate", "chat", "--drop-older")
      await within(20, "the end of the old token", stale.ended)
      assert.equal(stale.failed?.status, 401, `${stale.failed}`)
      const handle = new DurableStream({ url, contentType: "application/json", headers: bearer("write") })
      await handle.append(JSON.stringify("after"))
      await until("the message", () => renewed.failed || renewed.seen.length === 1)
      assert.equal(renewed.failed, null)
      await renewed.stop()
    })
  })
}
