// Foreign text made safe to look at: characters that steer a terminal or reorder a line are shown as escapes.

// C0 (but tab and line feed), DEL, C1; marks and overrides of direction; invisible spaces and separators; tags; lone surrogates.
const HIDDEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u115f\u1160\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\u3164\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]|\p{Surrogate}/gu

/** Parts of a text, each `{ text, escape }`; the parts with `escape` stand for one character that would not be seen. */
export function* pieces(text) {
  let from = 0
  for (const match of text.matchAll(HIDDEN)) {
    if (match.index > from) yield { text: text.slice(from, match.index), escape: false }
    yield { text: escapeOf(match[0]), escape: true }
    from = match.index + match[0].length
  }
  if (from < text.length) yield { text: text.slice(from), escape: false }
}

/** The text with its escapes in place, for where no markup can be: titles, labels. */
export function visible(text) {
  return text.replace(HIDDEN, escapeOf)
}

function escapeOf(character) {
  const code = character.codePointAt(0)
  const hex = code.toString(16)
  return code > 0xffff ? `\\u{${hex}}` : `\\u${hex.padStart(4, "0")}`
}

/** The beginning of a text, at most `most` UTF-16 units, never half a character. */
export function beginning(text, most) {
  if (text.length <= most) return text
  const cut = text.slice(0, most)
  return /[\ud800-\udbff]$/.test(cut) ? cut.slice(0, -1) : cut
}

/** How many bytes a text has in UTF-8. */
export function utf8Length(text) {
  let bytes = text.length
  for (let at = 0; at < text.length; at++) {
    const unit = text.charCodeAt(at)
    if (unit < 0x80) continue
    bytes += unit < 0x800 ? 1 : 2
    // The second half of a pair is counted with the first: two units, four bytes.
    if (unit >= 0xd800 && unit < 0xdc00) at++
  }
  return bytes
}

/** A word of a shell, quoted. */
export function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}
