// The messages of a stream: its live tail, and the message that is looked at.

import * as api from "./api.js"
import { labelled, openForm } from "./dialog.js"
import { button, el, show } from "./dom.js"
import { Follower } from "./follower.js"
import { count, many, short } from "./format.js"
import { MessageList } from "./message_list.js"
import { kindOf, messagesOf } from "./messages.js"
import { inspector } from "./inspector.js"
import { MessageRing } from "./ring.js"

/** Messages and bytes that the view keeps. */
const MOST = 20_000
const MOST_BYTES = 32 << 20

/** A read that began in the past is held after so many messages: what they are is asked for, not how fast they pass. */
const HELD_AFTER = 10_000

const STARTS = [
  ["last 100", "Last 100"],
  ["last 1000", "Last 1,000"],
  ["start", "From the start"],
  ["now", "New ones only"],
]

const STATES = {
  connecting: ["busy", "Connecting…"],
  live: ["good", "Live"],
  waiting: ["bad", "No connection, trying again"],
  paused: ["idle", "Paused"],
  held: ["idle", "Held"],
  closed: ["idle", "Closed: this was the end"],
  refused: ["bad", "Ended"],
}

export function messagesTab(context) {
  const kind = kindOf(context.detail.content_type ?? "")
  const ring = new MessageRing(MOST, MOST_BYTES)
  const start = el("select", { "aria-label": "Read from" }, STARTS.map(([value, label]) => el("option", { value }, label)))
  const pause = button("Pause", toggle, { "aria-keyshortcuts": "p" })
  const end = button("To the end", () => list.follow(), { "aria-keyshortcuts": "e" })
  const pick = button("From offset…", askForOffset, { "aria-keyshortcuts": "o" })
  const state = el("span", { class: "state", role: "status", "aria-live": "polite" })
  const numbers = el("span", { class: "numbers" })
  const note = el("div", { class: "banner hidden" })
  const look = inspector(context)
  const list = new MessageList(ring, kind, (message) => look.show(message))
  const node = el("div", { class: "messages" },
    el("div", { class: "toolbar" }, start, pause, end, pick, el("span", { class: "grow" }), state, numbers),
    note,
    el("div", { class: "split" }, list.node, look.node),
  )

  let follower = null
  // Counts the reads that were begun; only the newest shows anything.
  let turns = 0
  let waiting = []
  let frame = 0
  let received = 0
  let sinceStart = 0
  let holdAfter = Infinity
  let begun = null
  // What was there already says nothing about the rate.
  let caughtUp = false
  let rate = { at: performance.now(), received: 0, value: 0 }

  /** What came is shown once a frame, however much it is. */
  function draw() {
    cancelAnimationFrame(frame)
    frame = 0
    const removed = ring.push(waiting)
    waiting = []
    list.update(removed)
    tell()
  }

  function later() {
    frame ||= requestAnimationFrame(draw)
  }

  function tell() {
    const now = performance.now()
    if (!caughtUp) rate = { at: now, received, value: 0 }
    else if (now - rate.at >= 1000) rate = { at: now, received, value: ((received - rate.received) * 1000) / (now - rate.at) }
    const pace = rate.value >= 0.5 ? ` · ${short(Math.round(rate.value))}/s` : ""
    const dropped = ring.dropped > 0 ? ` · ${count(ring.dropped)} older ones not kept` : ""
    show(numbers, `${many(received, "message")}${pace}${dropped}`)
    numbers.dataset.received = received
  }

  function data(events, { offset, upToDate }) {
    const at = Date.now()
    for (const event of events) {
      for (const message of messagesOf(kind, event)) {
        received++
        sinceStart++
        waiting.push(Object.assign(message, { number: received, at, offset, from: begun }))
      }
    }
    begun = offset
    // A hidden tab has no frames: what waits for one would have no bound.
    if (document.hidden) draw()
    else later()
    if (upToDate && !caughtUp) draw()
    caughtUp ||= upToDate
    if (upToDate) holdAfter = Infinity
    else if (sinceStart >= holdAfter) hold()
  }

  function hold() {
    follower.pause()
    draw()
    changed("held")
  }

  function changed(name, error = null) {
    const [look, text] = STATES[name]
    if (state.dataset.state !== name) show(state, el("span", { class: `dot ${look}` }), text)
    state.dataset.state = name
    pause.textContent = name === "paused" || name === "held" ? "Resume" : "Pause"
    pause.disabled = name === "closed" || name === "refused"
    note.classList.toggle("hidden", name !== "held" && name !== "refused" && name !== "waiting")
    if (name === "held") show(note, `Held after ${many(sinceStart, "message")}. `, button("Go on", toggle, { class: "link" }), " · ", button("New ones only", () => begin("now"), { class: "link" }))
    else if (name === "refused") show(note, `${explained(error)} `, button("Read from the start", () => begin("start"), { class: "link" }))
    else if (name === "waiting") show(note, `${error.message} It is tried again until it does; nothing is left out.`)
    list.describe(name === "live" || name === "closed" ? "empty" : "waiting")
  }

  function toggle() {
    if (follower?.state === "paused") {
      sinceStart = 0
      follower.start()
    } else follower?.pause()
  }

  async function begin(choice) {
    const turn = ++turns
    follower?.stop()
    follower = null
    ring.clear()
    waiting = []
    received = sinceStart = 0
    caughtUp = false
    holdAfter = choice === "now" || choice.startsWith("last") ? Infinity : HELD_AFTER
    list.reset()
    look.show(null)
    tell()
    changed("connecting")
    try {
      const offset = await offsetOf(choice)
      if (turn !== turns) return
      begun = offset
    } catch (error) {
      if (turn === turns) changed("refused", error)
      return
    }
    follower = new Follower(context, begun, { data, state: changed })
    follower.start()
  }

  async function offsetOf(choice) {
    if (choice === "start") return "-1"
    if (choice.startsWith("last ")) return (await api.tail(context.path, context.tenant, choice.slice(5))).offset
    return choice
  }

  function askForOffset() {
    const field = el("input", { class: "code", spellcheck: "false", autocomplete: "off", value: look.message?.from ?? follower?.offset ?? "" })
    openForm("Read from an offset", {
      fields: [labelled("Offset", field, "As the server wrote it: in a message's details, or in Stream-Next-Offset.")],
      label: "Read",
      ready: () => field.value.trim() !== "",
      act: async () => void begin(field.value.trim()),
    })
  }

  start.addEventListener("change", () => begin(start.value))
  const ticking = setInterval(tell, 1000)
  begin(start.value)

  return {
    node,
    shown: () => list.update(0),
    point: () => look.message?.offset,
    close() {
      turns++
      follower?.stop()
      cancelAnimationFrame(frame)
      clearInterval(ticking)
    },
  }
}

function explained(error) {
  if (error.status === 404) return "The stream is not there any more."
  if (error.status === 410) return "The stream was deleted, and another one has its path now, or what is asked for is gone."
  return error.message
}
