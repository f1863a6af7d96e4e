// Bytes as a hex dump: position, sixteen bytes, and what of them is printable ASCII.

/** Lines of a dump of the first `most` bytes. */
export function hexDump(bytes, most) {
  const lines = []
  for (let at = 0; at < Math.min(bytes.length, most); at += 16) {
    const row = bytes.subarray(at, at + 16)
    const pairs = Array.from(row, (byte) => byte.toString(16).padStart(2, "0"))
    const left = pairs.slice(0, 8).join(" ").padEnd(23)
    const right = pairs.slice(8).join(" ").padEnd(23)
    lines.push(`${at.toString(16).padStart(8, "0")}  ${left}  ${right}  ${printable(row)}`)
  }
  return lines.join("\n")
}

/** The first bytes on one line. */
export function hexLine(bytes, most) {
  return Array.from(bytes.subarray(0, most), (byte) => byte.toString(16).padStart(2, "0")).join(" ")
}

function printable(bytes) {
  return String.fromCharCode(...bytes.map((byte) => (byte >= 0x20 && byte < 0x7f ? byte : 0x2e)))
}
