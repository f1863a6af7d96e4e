// Numbers, sizes and times as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
const whole = new Intl.NumberFormat("en")

/** 12,345 */
export function count(number) {
  return whole.format(number)
}

/** 1 message, 12,345 messages */
export function many(number, what) {
  return `${count(number)} ${what}${number === 1 ? "" : "s"}`
}

/** A rate or another number that may have a fraction: 0.4, 12, 1.2k, 3.4M */
export function short(number) {
  if (!Number.isFinite(number)) return "–"
  const size = Math.abs(number)
  if (size >= 1e9) return `${digits(number / 1e9)}G`
  if (size >= 1e6) return `${digits(number / 1e6)}M`
  if (size >= 1e4) return `${digits(number / 1e3)}k`
  if (size >= 100 || Number.isInteger(number)) return whole.format(Math.round(number))
  return digits(number)
}

function digits(number) {
  const size = Math.abs(number)
  return number.toFixed(size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : 2)
}

/** 1.5 KiB */
export function bytes(size) {
  if (!Number.isFinite(size)) return "–"
  let unit = 0
  while (Math.abs(size) >= 1024 && unit < UNITS.length - 1) {
    size /= 1024
    unit++
  }
  return `${unit === 0 ? Math.round(size) : digits(size)} ${UNITS[unit]}`
}

/** A span of seconds: 350 µs, 4.2 ms, 3.1 s, 12 min, 3 h, 2 d */
export function span(seconds) {
  if (!Number.isFinite(seconds)) return "–"
  if (seconds === 0) return "0"
  if (seconds < 1e-3) return `${Math.round(seconds * 1e6)} µs`
  if (seconds < 1) return `${digits(seconds * 1e3)} ms`
  if (seconds < 90) return `${digits(seconds)} s`
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`
  if (seconds < 129_600) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/** 14:05:09.123, the clock of the browser */
export function clock(millis) {
  const at = new Date(millis)
  const two = (number) => String(number).padStart(2, "0")
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, "0")}`
}

/** A time of the server as date and clock, with how long ago or how soon that is. */
export function moment(text) {
  const at = Date.parse(text)
  if (Number.isNaN(at)) return String(text)
  const away = (at - Date.now()) / 1000
  const distance = away > 0 ? `in ${span(away)}` : `${span(-away)} ago`
  return `${new Date(at).toLocaleString()} (${Math.abs(away) < 1 ? "now" : distance})`
}
