// Credentials as applications make them, and a reader of the official client whose credential changes on the way.
import { execFileSync } from "node:child_process"
import { createHmac } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { stream } from "@durable-streams/client"

/** A folder with a credentials file that the server's commands have made. */
export class Credentials {
  constructor() {
    this.folder = mkdtempSync(join(tmpdir(), "durable-streams-credentials-"))
    this.file = join(this.folder, "credentials.json")
  }

  /** The output of a command of the server. */
  run(...command) {
    const argv = [...command, "--credentials", this.file]
    return execFileSync(process.env.BINARY, argv, { encoding: "utf8" }).trim()
  }

  remove() {
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** A JWT (HS256), as any library signs it. */
export function signed(secret, claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url")
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part(claims)}`
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`
}

/** Seconds since 1970, `later` from now. */
export const seconds = (later) => Math.floor(Date.now() / 1000) + later

/** When a token ends, milliseconds since 1970. */
const end = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).exp * 1000

/** A function for a client's headers: another token from `make` when the last one has less than `spare` ms left. */
export function rotating(make, spare = 700) {
  const made = []
  let pending = null
  const header = () => {
    const last = made.at(-1)
    if (!last || end(last) - Date.now() < spare) {
      pending ??= Promise.resolve(make()).then((token) => made.push(token)).finally(() => (pending = null))
    }
    return Promise.resolve(pending).then(() => `Bearer ${made.at(-1)}`)
  }
  return { header, made }
}

/**
 * A live reader of JSON messages. `seen` has all of them in order, `requests` the requests so far with their tokens,
 * `responses` how many of them were answered, `failed`
 * why it ended, if it did.
 */
export function follow(url, live, authorization) {
  const reader = { seen: [], requests: [], responses: 0, failed: null }
  const abort = new AbortController()
  const counted = async (input, init) => {
    reader.requests.push(new Headers(init.headers).get("authorization"))
    const response = await fetch(input, init)
    reader.responses++
    return response
  }
  const options = { url, live, offset: "-1", json: true, signal: abort.signal, fetch: counted, headers: { authorization } }
  reader.ended = (async () => {
    try {
      const response = await stream(options)
      response.subscribeJson(async (batch) => void reader.seen.push(...batch.items))
      await response.closed
    } catch (error) {
      if (!abort.signal.aborted) reader.failed = error
    }
  })()
  reader.stop = async () => {
    abort.abort()
    await Promise.race([reader.ended, sleep(1000, null, { ref: false })])
  }
  return reader
}
