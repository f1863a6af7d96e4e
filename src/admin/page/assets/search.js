// Streams whose path has a text anywhere. The listing is by prefix, so this looks at all of it, page by page, until it is
// stopped or has found enough.

const PAGE = 1000
const ENOUGH = 1000

/** Yields `{ found, looked, done }` after each page; `found` are streams. */
export async function* searchEverywhere(text, load, signal) {
  const wanted = text.toLowerCase()
  const found = []
  let looked = 0
  let cursor
  do {
    const page = await load({ limit: PAGE, cursor }, signal)
    looked += page.streams.length
    found.push(...page.streams.filter((stream) => stream.path.toLowerCase().includes(wanted)))
    cursor = page.cursor
    yield { found, looked, done: !cursor || found.length >= ENOUGH }
  } while (cursor && found.length < ENOUGH)
}
