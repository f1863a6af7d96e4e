// What the tests share: data that can be checked, waiting, and the retrying `fetch` of docs/clients.md.
import { readFileSync } from "node:fs"
import { setTimeout as sleep } from "node:timers/promises"

/** Deterministic bytes. */
export function bytes(length, seed = 1) {
  const out = new Uint8Array(length)
  let state = seed * 2654435761 + 1
  for (let at = 0; at < length; at++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    out[at] = state >>> 24
  }
  return out
}

/** Deterministic text of `length` UTF-16 units with characters of one to four bytes. */
export function text(length, seed = 1) {
  const alphabet = ["a", "b", " ", "ä", "ß", "漢", "字", "\u{1F600}"]
  let out = ""
  for (const byte of bytes(length, seed)) out += alphabet[byte % alphabet.length]
  return out.slice(0, length).replace(/[\uD800-\uDBFF]$/, "x")
}

/** Deterministic text of `length` bytes. */
export function letters(length, seed = 1) {
  return Buffer.from(bytes(Math.ceil((length * 3) / 4), seed)).toString("base64").slice(0, length)
}

export async function until(what, check, seconds = 20) {
  const deadline = Date.now() + seconds * 1000
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`)
    await sleep(20)
  }
}

/** A promise that fails after some time. */
export function within(seconds, what, promise) {
  const late = sleep(seconds * 1000, null, { ref: false }).then(() => {
    throw new Error(`not within ${seconds} s: ${what}`)
  })
  return Promise.race([promise, late])
}

// The function as the page has it: what is recommended there is what is tested here.
const page = readFileSync(new URL("../../docs/clients.md", import.meta.url), "utf8")
const source = page.match(/```js\n(async function retrying[\s\S]*?)\n```/)[1]
export const retrying = new Function(`${source}; return retrying`)()
