// The official Yjs provider: 32 documents of 1 kB to 5 MB, each with two editors that see one another's edits live, and
// readers that come late, over SSE and long-poll. An edit is one append, and arrives whole or not at all.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { YjsProvider } from "@durable-streams/y-durable-streams"
import * as Y from "yjs"
import { STORAGES, start } from "./server.js"
import { letters, until, within } from "./support.js"

const DOCUMENTS = 32
const AT_ONCE = 4
const SMALLEST = 1000
const LARGEST = 5_000_000

const sizes = Array.from({ length: DOCUMENTS }, (_, n) =>
  Math.round(SMALLEST * (LARGEST / SMALLEST) ** (n / (DOCUMENTS - 1)))
)

/** Opens a document; `errors` gets what its provider reports. */
async function open(server, docId, liveMode, errors) {
  const doc = new Y.Doc()
  const provider = new YjsProvider({ doc, baseUrl: server.route, docId, liveMode, connect: false })
  provider.on("error", (error) => errors.push(error))
  await within(30, `${docId} opens over ${liveMode}`, provider.connect())
  return { doc, provider, text: () => doc.getText("t").toString() }
}

async function edit(server, docId, size) {
  const errors = []
  const both = []
  try {
    both.push(await open(server, docId, "sse", errors))
    both.push(await open(server, docId, "long-poll", errors))
    const [first, second] = both
    const [before, behind] = [letters(size, size), letters(Math.ceil(size / 3), size + 1)]
    const same = (wanted) => () => errors.length > 0 || both.every((editor) => editor.text() === wanted)
    first.doc.getText("t").insert(0, before)
    await until(`the edit of ${size} characters reaches the long-poll editor of ${docId}`, same(before), 30)
    second.doc.getText("t").insert(before.length, behind)
    await until(`the edit of ${behind.length} characters reaches the SSE editor of ${docId}`, same(before + behind), 30)
    // Many small edits after a large one.
    for (let n = 0; n < 20; n++) both[n % 2].doc.getText("t").insert(0, `${n}`)
    await until(`small edits reach both editors of ${docId}`, () => errors.length > 0 || first.text() === second.text())
    const wanted = first.text()
    assert.equal(wanted.length, before.length + behind.length + 30)
    for (const liveMode of ["sse", "long-poll"]) {
      const late = await open(server, docId, liveMode, errors)
      both.push(late)
      await until(`a late reader of ${docId} over ${liveMode}`, () => errors.length > 0 || late.text() === wanted)
    }
    assert.deepEqual(errors, [])
  } finally {
    for (const { provider } of both) provider.destroy()
  }
}

for (const storage of STORAGES) {
  describe(`Yjs, ${storage}`, () => {
    let server
    before(async () => (server = await start({ storage })))
    after(() => server.stop())

    test(`${DOCUMENTS} documents of ${SMALLEST} to ${LARGEST} bytes`, { timeout: 120_000 }, async () => {
      const queue = sizes.map((size, n) => [`document-${n}`, size])
      const workers = Array.from({ length: AT_ONCE }, async () => {
        for (let next; (next = queue.shift()); ) await edit(server, ...next)
      })
      await Promise.all(workers)
    })
  })
}
