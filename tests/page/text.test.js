// The modules that take what is foreign apart, in the browser that runs them.
import assert from "node:assert/strict"
import { after, before, describe, test } from "node:test"
import { closeBrowser, open, openBrowser, skip, startServer } from "./page.js"

describe("text", { skip, timeout: 60_000 }, () => {
  let server, browser, page
  before(async () => {
    server = await startServer()
    browser = await openBrowser()
    page = await open(browser, server, "#/overview")
    await page.evaluate(async () => {
      const assets = new URL(document.querySelector("script[type=module]").src).pathname.replace(/[^/]*$/, "")
      for (const name of ["json_text", "text", "sse", "ring", "hex", "messages", "format"]) Object.assign(globalThis, await import(`${assets}${name}.js`))
    })
  })
  after(async () => {
    await closeBrowser()
    await server.stop()
  })

  test("indented JSON is the same text, but for its spaces", async () => {
    const wrong = await page.evaluate(() => {
      const random = (most) => Math.floor(Math.random() * most)
      const value = (depth) => [() => random(1e9) / 7, () => "a\"\\\u202e{[,:]}" + random(99), () => null, () => true, () => Array.from({ length: random(4) }, () => value(depth + 1)), () => Object.fromEntries(Array.from({ length: random(4) }, (_, index) => [`k"${index}`, value(depth + 1)]))][random(depth > 4 ? 4 : 6)]()
      for (let round = 0; round < 2_000; round++) {
        const text = JSON.stringify(value(0), null, random(3))
        const parts = [...pretty(text, Infinity)]
        const joined = parts.filter(({ kind }) => kind !== "space").map((part) => part.text).join("")
        const plain = [...tokens(text)].map((token) => token.text).join("")
        if (joined !== plain || JSON.stringify(JSON.parse(text)) !== JSON.stringify(JSON.parse(parts.map((part) => part.text).join("")))) return text
        const array = `[${text},${text} , 1]`
        const { found, whole } = elements(array)
        if (!whole || found.length !== 3 || found[0] !== text.trim()) return array
        // A text that is cut anywhere is taken apart without an exception.
        const cut = array.slice(0, random(array.length))
        elements(cut)
        const some = [...pretty(cut, 50)]
        if (some.length > 200) return cut
      }
      return null
    })
    assert.equal(wrong, null)
  })

  test("events come out the same however the text is cut, and are bounded", async () => {
    const wrong = await page.evaluate(() => {
      const text = 'event: data\ndata: [\ndata: {"a":1},\ndata: 2]\n\nevent: control\ndata: {"streamNextOffset":"1"}\n\n: keep-alive\n\nevent: data\ndata:' + "x".repeat(5000) + '\ndata: more\n\nevent: control\ndata: {"b":2}\n\n'
      const parsed = (pieces, most) => {
        const events = []
        const parser = new SseParser(most, (event) => events.push(event))
        for (const piece of pieces) parser.push(piece)
        return JSON.stringify(events)
      }
      const whole = parsed([text], 1e6)
      if (whole !== JSON.stringify([{ name: "data", data: '[\n{"a":1},\n2]', cut: 0 }, { name: "control", data: '{"streamNextOffset":"1"}', cut: 0 }, { name: "data", data: "x".repeat(5000) + "\nmore", cut: 0 }, { name: "control", data: '{"b":2}', cut: 0 }])) return whole
      for (let size = 1; size < 300; size += 7) {
        const pieces = text.match(new RegExp(`[^]{1,${size}}`, "g"))
        if (parsed(pieces, 1e6) !== whole) return size
        const bounded = JSON.parse(parsed(pieces, 100))
        if (bounded.length !== 4 || bounded.some(({ data }) => data.length > 100) || bounded[2].cut < 4900 || bounded[3].data !== '{"b":2}') return bounded
      }
      return null
    })
    assert.equal(wrong, null)
  })

  test("characters that would not be seen are escapes", async () => {
    const shown = await page.evaluate(() => ["a\u202eb", "\u001b[1m", "tab\tline\n", "\ud800", "\u{e0041}", "\u200d", "né 漢 😀"].map(visible))
    assert.deepEqual(shown, ["a\\u202eb", "\\u001b[1m", "tab\tline\n", "\\ud800", "\\u{e0041}", "\u200d", "né 漢 😀"])
  })

  test("sizes are of bytes, and no character is cut in half", async () => {
    const seen = await page.evaluate(() => {
      const texts = ["", "a", "é", "漢", "😀", "a😀é漢".repeat(9)]
      return texts.map((text) => utf8Length(text) === new TextEncoder().encode(text).length && beginning(`${text}😀`, text.length + 1) === text)
    })
    assert.deepEqual(seen, Array(6).fill(true))
  })

  test("a ring keeps the newest within its bounds", async () => {
    const seen = await page.evaluate(() => {
      const ring = new MessageRing(1000, 50_000)
      for (let number = 1; number <= 20_000; number += 10) ring.push(Array.from({ length: 10 }, (_, index) => ({ number: number + index, kept: 20 })))
      const many = [ring.length, ring.at(0).number, ring.at(999).number, ring.dropped]
      ring.push([{ number: 20_001, kept: 49_990 }])
      return [...many, ring.length, ring.at(0).number]
    })
    assert.deepEqual(seen, [1000, 19_001, 20_000, 19_000, 1, 20_001])
  })

  test("bytes as a dump", async () => {
    const dump = await page.evaluate(() => hexDump(Uint8Array.from([0, 1, 65, 255, ...Array(14).fill(32)]), 100))
    const last = `00000010  ${"20 20".padEnd(23)}  ${"".padEnd(23)}    `
    assert.equal(dump, `00000000  00 01 41 ff 20 20 20 20  20 20 20 20 20 20 20 20  ..A.${" ".repeat(12)}\n${last}`)
  })
})
