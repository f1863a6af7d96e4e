// The transports of AI SDK and TanStack AI, each with a message of 2 MB in one chunk and in many.
import assert from "node:assert/strict"
import { createServer } from "node:http"
import { after, before, describe, test } from "node:test"
import * as aisdk from "@durable-streams/aisdk-transport"
import * as tanstack from "@durable-streams/tanstack-ai-transport"
import { readUIMessageStream } from "ai"
import { STORAGES, start } from "./server.js"
import { text, within } from "./support.js"

const large = text(1_000_000, 5)
const parts = Array.from({ length: 200 }, (_, n) => text(3000, n + 1))

async function* uiChunks() {
  yield { type: "start", messageId: "m1" }
  yield { type: "text-start", id: "t1" }
  for (const delta of [large, ...parts]) yield { type: "text-delta", id: "t1", delta }
  yield { type: "text-end", id: "t1" }
  yield { type: "finish" }
}

async function* tanstackChunks() {
  yield { type: "TEXT_MESSAGE_START", messageId: "m1", role: "assistant" }
  for (const delta of [large, ...parts]) yield { type: "TEXT_MESSAGE_CONTENT", messageId: "m1", delta }
  yield { type: "TEXT_MESSAGE_END", messageId: "m1" }
}

/** The application's own server, which the transports post to. */
async function application(answer) {
  const server = createServer(async (request, response) => {
    const body = await new Promise((resolve) => {
      let all = ""
      request.on("data", (piece) => (all += piece)).on("end", () => resolve(all && JSON.parse(all)))
    })
    const { status, headers, body: bytes } = await answer(request, body)
    response.writeHead(status, Object.fromEntries(headers))
    response.end(bytes ? Buffer.from(await new Response(bytes).arrayBuffer()) : undefined)
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { url: `http://127.0.0.1:${server.address().port}/api/chat`, close: () => server.close() }
}

for (const storage of STORAGES) {
  describe(`AI transports, ${storage}`, () => {
    let server
    before(async () => (server = await start({ storage })))
    after(() => server.stop())

    test("AI SDK: a generation, and one that is resumed", { timeout: 60_000 }, async () => {
      const writeUrl = `${server.route}/aisdk`
      const app = await application(async (request) =>
        request.method === "GET"
          ? Response.json({ streamUrl: writeUrl }, { headers: { Location: writeUrl } })
          : aisdk.toDurableStreamResponse({ source: uiChunks(), stream: { writeUrl } })
      )
      try {
        const transport = aisdk.createDurableChatTransport({ api: app.url })
        const messages = [{ id: "u1", role: "user", parts: [{ type: "text", text: "hello" }] }]
        const sent = { trigger: "submit-message", chatId: "c1", messageId: undefined, messages }
        for (const open of [() => transport.sendMessages(sent), () => transport.reconnectToStream({ chatId: "c1" })]) {
          let last
          await within(30, "the message is whole", (async () => {
            for await (const message of readUIMessageStream({ stream: await open() })) last = message
          })())
          const got = last.parts.filter((part) => part.type === "text").map((part) => part.text).join("")
          assert.ok(got === large + parts.join(""), `${got.length} characters`)
        }
      } finally {
        app.close()
      }
    })

    test("TanStack AI: followed live, replayed, and as a snapshot", { timeout: 60_000 }, async () => {
      const writeUrl = `${server.route}/tanstack`
      const user = { id: "u1", role: "user", parts: [{ type: "text", content: "hello" }] }
      const app = await application(async (_, { messages }) =>
        tanstack.toDurableChatSessionResponse({
          stream: { writeUrl },
          newMessages: messages,
          responseStream: tanstackChunks(),
        })
      )
      try {
        await tanstack.ensureDurableChatSessionStream({ writeUrl })
        const connection = tanstack.durableStreamConnection({ sendUrl: app.url, readUrl: writeUrl, initialOffset: "-1" })
        const abort = new AbortController()
        let live = ""
        const following = within(30, "the message arrives live", (async () => {
          for await (const chunk of connection.subscribe(abort.signal)) {
            if (chunk.messageId !== "m1") continue
            live += chunk.delta ?? ""
            if (chunk.type === "TEXT_MESSAGE_END") break
          }
        })())
        await connection.send([user])
        await following
        abort.abort()
        const wanted = large + parts.join("")
        assert.ok(live === wanted, `${live.length} characters live`)
        const { messages } = await tanstack.materializeSnapshotFromDurableStream({ readUrl: writeUrl })
        assert.deepEqual(messages.map((message) => message.id), ["u1", "m1"])
        const kept = messages[1].parts.map((part) => part.content).join("")
        assert.ok(kept === wanted, `${kept.length} characters in the snapshot`)
        const again = new AbortController()
        const replay = tanstack.durableStreamConnection({ sendUrl: app.url, readUrl: writeUrl })
        for await (const chunk of replay.subscribe(again.signal)) {
          assert.equal(chunk.type, "MESSAGES_SNAPSHOT")
          const [, message] = chunk.messages
          assert.ok(message.parts[0].content === wanted, "a late subscriber gets a whole snapshot")
          break
        }
        again.abort()
      } finally {
        app.close()
      }
    })
  })
}
