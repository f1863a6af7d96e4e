// Tokens of a real identity provider, `oidc-provider`: its metadata and keys are found, its keys change while clients follow,
// and it is away for a while.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { setTimeout as sleep } from "node:timers/promises"
import { DurableStream, stream } from "@durable-streams/client"
import { follow, rotating } from "./credentials.js"
import { signingKey, startIssuer } from "./issuer.js"
import { start } from "./server.js"
import { until } from "./support.js"

const loaded = await import("oidc-provider").catch((error) => ({ error }))
const skip = loaded.error ? `this Node cannot load oidc-provider: ${loaded.error.message}` : false

/** How long the server waits between two requests for keys, ms. */
const REFETCH_PAUSE = 30_000

describe("identity provider", { skip, timeout: 150_000 }, () => {
  const [first, second, unpublished] = skip ? [] : ["first", "second", "unpublished"].map(signingKey)
  let issuer, server, started, readers, tokens, writer, late
  const url = () => `${server.route}/users/application/inbox`

  before(async () => {
    issuer = await startIssuer(loaded.default, [first])
    server = await start({ config: configuration(issuer.url) })
    started = Date.now()
  })
  after(async () => {
    await Promise.all((readers ?? []).map((reader) => reader.stop()))
    await server?.stop()
    await late?.stop()
    await issuer?.away()
  })

  const append = async (message) => {
    const response = await fetch(url(), {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${await writer()}` },
      body: JSON.stringify(message),
    })
    assert.equal(response.status, 204, await response.text())
  }
  const status = async (token, path = url()) =>
    (await fetch(`${path}?offset=-1`, { headers: { authorization: `Bearer ${token}` } })).status
  const caughtUp = (count, what) =>
    until(what, () => readers.every((reader) => reader.failed || reader.seen.length === count))

  test("its metadata names its keys, and tokens of its token endpoint are accepted", async () => {
    const token = await issuer.token()
    writer = async () => token
    const headers = { authorization: `Bearer ${token}` }
    await DurableStream.create({ url: url(), contentType: "application/json", headers })
    await append(0)
    assert.deepEqual(await (await stream({ url: url(), offset: "-1", live: false, headers })).json(), [0])
    assert.ok(issuer.asked.metadata >= 1 && issuer.asked.keys >= 1, JSON.stringify(issuer.asked))
    const reading = await issuer.token("streams:read")
    assert.equal(await status(reading), 200)
    const refused = await fetch(url(), { method: "POST", headers: { authorization: `Bearer ${reading}` }, body: "1" })
    assert.equal(refused.status, 403, "its scope is for reading")
    assert.equal(await status(token, `${server.route}/users/other/inbox`), 404, "another user's")
    const [head, claims, signature] = token.split(".")
    assert.equal(await status(`${head}.${claims}.${signature.slice(0, -4)}AAAA`), 401)
  })

  test("readers follow while their tokens end and others come from its endpoint", async () => {
    issuer.lifetime = 4
    tokens = ["sse", "long-poll"].map(() => rotating(() => issuer.token("streams:read"), 1000))
    readers = [follow(url(), "sse", tokens[0].header), follow(url(), "long-poll", tokens[1].header)]
    for (let n = 1; n < 50; n++) {
      await append(n)
      await sleep(150)
    }
    await caughtUp(50, "fifty messages")
    for (const [at, reader] of readers.entries()) {
      assert.equal(reader.failed, null)
      assert.ok(new Set(reader.requests).size >= 2, `${tokens[at].made.length} tokens`)
    }
  })

  test("what it signed stays good while it is away", async () => {
    issuer.lifetime = 300
    // Tokens that last, for the readers too.
    const before = tokens.map((one) => one.made.length)
    await until("longer tokens", () => tokens.every((one, at) => one.made.length > before[at]))
    const fresh = await issuer.token()
    const asked = issuer.asked.keys
    await issuer.away()
    assert.equal(await status(fresh), 200, "its keys are known")
    writer = async () => fresh
    for (let n = 50; n < 60; n++) await append(n)
    await caughtUp(60, "messages while it is away")
    readers.forEach((reader) => assert.equal(reader.failed, null))
    assert.equal(issuer.asked.keys, asked)
    // A server that starts now cannot know its keys.
    late = await start({ config: configuration(issuer.url) })
    const response = await fetch(`${late.route}/users/application/x`, { headers: { authorization: `Bearer ${fresh}` } })
    assert.equal(response.status, 503)
    assert.ok(Number(response.headers.get("retry-after")) >= 1)
    assert.equal((await response.json()).code, "auth-unavailable")
    await issuer.listen(issuer.port)
    assert.equal(await status(await issuer.token()), 200)
  })

  test("its keys change while readers follow", async () => {
    // A token of a key that it does not publish, from before the change.
    issuer.rotate([unpublished])
    const forged = await issuer.token()
    issuer.rotate([second, first])
    const token = await issuer.token()
    assert.equal(JSON.parse(Buffer.from(token.split(".")[0], "base64url")).kid, "second")
    // Unknown keys are looked for at most once in a while.
    await sleep(Math.max(0, started + REFETCH_PAUSE + 1000 - Date.now()))
    assert.equal(await status(token), 200, "the new key is fetched")
    const asked = issuer.asked.keys
    for (let n = 0; n < 5; n++) assert.equal(await status(forged), 401)
    assert.equal(issuer.asked.keys, asked, "a token cannot make the server ask again and again")
    writer = async () => token
    await append(60)
    await caughtUp(61, "a message with the new key")
    const expected = Array.from({ length: 61 }, (_, n) => n)
    for (const reader of readers) {
      assert.equal(reader.failed, null)
      assert.deepEqual(reader.seen, expected, "each message once, in order")
    }
  })

  test("a server that started while it was away accepts its tokens now", async () => {
    const [token, path] = [await issuer.token(), `${late.route}/users/application/x`]
    await until("the keys", async () => (await status(token, path)) === 404, 45)
  })
})

function configuration(issuer) {
  return [
    `auth:`,
    `  issuers:`,
    `    - name: id`,
    `      issuer: ${issuer}`,
    `      audience: [streams]`,
    `      algorithms: [RS256]`,
    `      leeway: 0s`,
    `      scope_claim: /scope`,
    `      scopes:`,
    `        - {scope: "streams:read", allow: [read]}`,
    `        - {scope: "streams:write", allow: [write]}`,
    `      paths: ["users/{sub}/**"]`,
  ]
}
