// JSON as text. Nothing here parses a number: what is shown are the bytes that were sent, only spaced.

const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const LITERAL = /true|false|null/y
const SPACE = /[ \t\n\r]+/y

/** Where the string that begins at `at` ends; the text's length where it does not. */
function stringEnd(text, at) {
  for (let next = at + 1; next < text.length; next++) {
    const unit = text.charCodeAt(next)
    if (unit === 0x22) return next + 1
    if (unit === 0x5c) next++
  }
  return text.length
}

function matchEnd(pattern, text, at) {
  pattern.lastIndex = at
  return pattern.test(text) ? pattern.lastIndex : at
}

/** The tokens of a JSON text, without its spaces, each `{ kind, text }`. Text that is no JSON is of the kind `other`. */
export function* tokens(text) {
  let at = 0
  while (at < text.length) {
    const unit = text[at]
    let end = matchEnd(SPACE, text, at)
    if (end > at) {
      at = end
      continue
    }
    let kind = "other"
    end = at + 1
    if ("{}[],:".includes(unit)) kind = "mark"
    else if (unit === '"') {
      kind = "string"
      end = stringEnd(text, at)
    } else if (matchEnd(NUMBER, text, at) > at) {
      kind = "number"
      end = matchEnd(NUMBER, text, at)
    } else if (matchEnd(LITERAL, text, at) > at) {
      kind = "literal"
      end = matchEnd(LITERAL, text, at)
    }
    yield { kind, text: text.slice(at, end) }
    at = end
  }
}

/**
 * The elements of a JSON array as they are written, without parsing them. `whole` is false where the text ends before the
 * array does; the last element may then be cut.
 */
export function elements(text) {
  const found = []
  let at = matchEnd(SPACE, text, 0)
  if (text[at] !== "[") return { found: [text], whole: false }
  let depth = 0
  let from = at + 1
  for (at = from; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit === 0x22) at = stringEnd(text, at) - 1
    else if (unit === 0x5b || unit === 0x7b) depth++
    else if (unit === 0x7d) depth--
    else if (unit === 0x5d) {
      if (depth === 0) {
        push(found, text.slice(from, at))
        return { found, whole: true }
      }
      depth--
    } else if (unit === 0x2c && depth === 0) {
      push(found, text.slice(from, at))
      from = at + 1
    }
  }
  push(found, text.slice(from))
  return { found, whole: false }
}

function push(found, text) {
  const element = text.trim()
  if (element !== "") found.push(element)
}

/**
 * The tokens with line breaks and indents between them, each `{ kind, text }`; the kinds are those of `tokens`, `key` and
 * `space`. Ends after `most` tokens with one of the kind `cut`.
 */
export function* pretty(text, most) {
  const all = [...limited(tokens(text), most)]
  const line = (depth) => ({ kind: "space", text: `\n${"  ".repeat(Math.min(depth, 40))}` })
  let depth = 0
  for (let at = 0; at < all.length; at++) {
    const token = all[at]
    const next = all[at + 1]
    if (token.kind !== "mark") {
      yield token.kind === "string" && next?.text === ":" && next.kind === "mark" ? { kind: "key", text: token.text } : token
      continue
    }
    if (token.text === "{" || token.text === "[") {
      yield token
      const empty = next?.kind === "mark" && (next.text === "}" || next.text === "]")
      if (!empty) {
        depth++
        yield line(depth)
      } else {
        yield next
        at++
      }
    } else if (token.text === "}" || token.text === "]") {
      depth = Math.max(0, depth - 1)
      yield line(depth)
      yield token
    } else {
      yield token
      yield token.text === "," ? line(depth) : { kind: "space", text: " " }
    }
  }
}

function* limited(all, most) {
  let left = most
  for (const token of all) {
    if (left-- === 0) {
      yield { kind: "cut", text: "…" }
      return
    }
    yield token
  }
}
