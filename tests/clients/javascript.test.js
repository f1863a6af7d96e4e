// The official JavaScript client: create, append, every form of reading, and an idempotent producer over kill -9.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { STORAGES, start } from "./server.js"
import { bytes, retrying, text, until, within } from "./support.js"

for (const storage of STORAGES) {
  describe(`JavaScript client, ${storage}`, () => {
    let server
    before(async () => (server = await start({ storage })))
    after(() => server.stop())

    test("create, append, head, close, delete", async () => {
      const handle = await DurableStream.create({ url: `${server.route}/life`, contentType: "text/plain" })
      await handle.append("one")
      await handle.append("two", { seq: "b" })
      await assert.rejects(handle.append("three", { seq: "a" }), { status: 409 })
      assert.equal((await handle.head()).contentType, "text/plain")
      await handle.close({ body: "end" })
      const read = await handle.stream({ offset: "-1", live: false })
      assert.equal(await read.text(), "onetwoend")
      assert.equal(read.streamClosed, true)
      await handle.delete()
      await assert.rejects(stream({ url: handle.url, offset: "-1" }), { status: 404 })
    })

    const messages = Array.from({ length: 40 }, (_, n) => ({ n, text: text(400 + n, n + 1) }))

    test("JSON in every form of reading", async () => {
      const url = `${server.route}/json`
      const handle = await DurableStream.create({ url, contentType: "application/json" })
      for (const message of messages) await handle.append(JSON.stringify(message))
      assert.deepEqual(await (await stream({ url, offset: "-1", live: false })).json(), messages)
      for (const live of [false, true, "long-poll", "sse"]) {
        const seen = []
        const response = await stream({ url, offset: "-1", live, json: true })
        const reader = response.jsonStream().getReader()
        await within(30, `messages, live: ${live}`, (async () => {
          while (seen.length < messages.length) seen.push((await reader.read()).value)
        })())
        await reader.cancel()
        assert.deepEqual(seen, messages, `live: ${live}`)
      }
    })

    test("bytes and text are followed live, by long-poll and SSE", async () => {
      for (const live of ["long-poll", "sse"]) {
        const url = `${server.route}/live-${live}`
        const handle = await DurableStream.create({ url, contentType: "application/octet-stream" })
        const abort = new AbortController()
        const seen = []
        const response = await handle.stream({ offset: "-1", live, signal: abort.signal })
        response.subscribeBytes(async (chunk) => void seen.push(Buffer.from(chunk.data)))
        const all = bytes(60_000)
        for (let at = 0; at < all.length; at += 7000) await handle.append(all.subarray(at, at + 7000))
        await handle.close()
        await within(30, `bytes, ${live}`, response.closed)
        // The client says that the stream is closed before its subscriber has the last bytes.
        await until(`all bytes, ${live}`, () => seen.reduce((sum, piece) => sum + piece.length, 0) >= all.length)
        assert.ok(Buffer.concat(seen).equals(Buffer.from(all)), live)

        const words = `${server.route}/words-${live}`
        const written = await DurableStream.create({ url: words, contentType: "text/plain; charset=utf-8" })
        const line = text(3000, 7)
        const read = await written.stream({ offset: "-1", live })
        let together = ""
        read.subscribeText(async (chunk) => void (together += chunk.text))
        for (let n = 0; n < 5; n++) await written.append(line)
        await written.close()
        await within(30, `text, ${live}`, read.closed)
        await until(`all text, ${live}`, () => together.length >= 5 * line.length)
        assert.ok(together === line.repeat(5), live)
      }
    })

    test("a reader takes up where another one left off", async () => {
      const url = `${server.route}/resume`
      const handle = await DurableStream.create({ url, contentType: "application/json" })
      for (const message of messages.slice(0, 10)) await handle.append(JSON.stringify(message))
      const first = await stream({ url, offset: "-1", live: false })
      await first.json()
      for (const message of messages.slice(10)) await handle.append(JSON.stringify(message))
      const rest = await stream({ url, offset: first.offset, live: false })
      assert.deepEqual(await rest.json(), messages.slice(10))
      const now = await stream({ url, offset: "now", live: false })
      assert.deepEqual(await now.json(), [])
    })

    test("`live: false` returns all of a stream larger than a page", async () => {
      const url = `${server.route}/forty`
      const handle = await DurableStream.create({ url, contentType: "application/json" })
      const large = Array.from({ length: 40 }, (_, n) => ({ n, text: "x".repeat(50_000) }))
      for (const message of large) await handle.append(JSON.stringify(message))
      const read = await (await stream({ url, offset: "-1", live: false })).json()
      assert.deepEqual(read.map((message) => message.n), large.map((message) => message.n))
      const body = await (await stream({ url, offset: "-1", live: false })).body()
      assert.ok(body.length > 40 * 50_000, `${body.length} bytes`)
    })
  })
}

test("an idempotent producer and its readers go on over kill -9", { timeout: 60_000 }, async () => {
  const server = await start({ storage: "file" })
  try {
    const url = `${server.route}/killed`
    const handle = await DurableStream.create({ url, contentType: "application/json", fetch: retrying })
    const errors = []
    const producer = new IdempotentProducer(handle, "writer", {
      fetch: retrying,
      lingerMs: 1,
      maxBatchBytes: 2000,
      onError: (error) => errors.push(error),
    })
    const count = 1500
    const readers = ["long-poll", "sse"].map(async (live) => {
      const seen = []
      let offset = "-1"
      while (seen.length < count) {
        // A connection that a kill ends is opened again where the reader is.
        try {
          const abort = new AbortController()
          const response = await stream({ url, offset, live, json: true, signal: abort.signal, fetch: retrying })
          await new Promise((resolve) => {
            response.subscribeJson(async (batch) => {
              offset = batch.offset
              seen.push(...batch.items)
              if (seen.length >= count) resolve()
            })
            response.closed.then(resolve, resolve)
          })
          abort.abort()
        } catch {
          await sleep(50)
        }
      }
      return seen
    })
    const all = Promise.all(readers)
    for (let n = 0; n < count; n++) {
      producer.append(JSON.stringify(n))
      if (n % 10 === 0) await sleep(4)
      if (n % 400 === 399) await server.crash()
    }
    await producer.flush()
    const expected = Array.from({ length: count }, (_, n) => n)
    const read = await (await stream({ url, offset: "-1", live: false })).json()
    assert.deepEqual(errors, [])
    assert.equal(read.join(), expected.join(), "each message once, in order")
    for (const seen of await within(20, "the live readers", all)) assert.equal(seen.join(), expected.join())
  } finally {
    await server.stop()
  }
})
