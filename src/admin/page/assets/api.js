// Every request of the page. The administration API is described by /admin/v1/openapi.json.

import { escaped } from "./route.js"
import { token } from "./session.js"

const ROOT = "/admin/v1"

/** A refusal, as the server explains it. `status` is 0 where there was no answer. */
export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail)
    this.status = status
    this.code = code
  }
}

async function send(method, path, { query = {}, headers = {}, body, signal } = {}) {
  const present = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "")
  const search = new URLSearchParams(present).toString()
  const own = token()
  const options = { method, body, signal, cache: "no-store", credentials: "omit" }
  options.headers = own ? { ...headers, authorization: `Bearer ${own}` } : headers
  let response
  try {
    response = await fetch(path + (search === "" ? "" : `?${search}`), options)
  } catch (error) {
    if (signal?.aborted) throw error
    throw new ApiError(0, "unreachable", "The server does not answer.")
  }
  if (response.ok) return response
  throw await refusal(response)
}

async function refusal(response) {
  const problem = await response.json().catch(() => ({}))
  if (response.status === 401) dispatchEvent(new CustomEvent("credentials-needed"))
  return new ApiError(response.status, problem.code ?? "", problem.detail ?? `The server answered ${response.status}.`)
}

async function json(method, path, options) {
  const response = await send(method, path, options)
  return response.status === 204 ? null : response.json()
}

/** A request with a JSON body. */
const change = (method, path, body, query) =>
  json(method, path, { query, headers: { "content-type": "application/json" }, body: JSON.stringify(body) })

const place = (kind, path) => `${ROOT}/${kind}/${escaped(path)}`

/** Who the credentials are: `{ identity, tenant, global }`. */
export const me = (signal) => json("GET", `${ROOT}/me`, { signal })

/** Totals, gauges and the last minutes. */
export const overview = (signal) => json("GET", `${ROOT}/overview`, { signal })

/** The server as a whole: version, store, log, disk, certificates, upstreams. */
export const status = (signal) => json("GET", `${ROOT}/status`, { signal })

/** The configuration in force, without secrets: `{ config }`. */
export const config = (signal) => json("GET", `${ROOT}/config`, { signal })

/** Reads the configuration again: `{ changes }`. */
export const reload = () => change("POST", `${ROOT}/reload`, {})

/** `{ level, until }`. */
export const logLevel = (signal) => json("GET", `${ROOT}/log-level`, { signal })
export const setLogLevel = (level, seconds) => change("PUT", `${ROOT}/log-level`, { level, seconds })
export const resetLogLevel = () => json("DELETE", `${ROOT}/log-level`)

/** The jobs, newest first: `{ jobs }`. */
export const jobs = (signal) => json("GET", `${ROOT}/jobs`, { signal })
export const job = (id, signal) => json("GET", `${ROOT}/jobs/${id}`, { signal })
export const cancelJob = (id) => json("DELETE", `${ROOT}/jobs/${id}`)
export const startBackup = (name) => change("POST", `${ROOT}/backups`, { name })
export const deletePrefix = (prefix, tenant) =>
  change("POST", `${ROOT}/jobs`, { kind: "delete-prefix", prefix, ...(tenant ? { tenant } : {}) })

/** What a prefix holds: `{ streams, bytes, partial }`. */
export const usage = (query, signal) => json("GET", `${ROOT}/usage`, { query, signal })

/** The tenants that have streams: `{ tenants, cursor }`. */
export const tenants = (query, signal) => json("GET", `${ROOT}/tenants`, { query, signal })

/** Why the server should be given no work, or null. Needs no credentials. */
export async function notReady() {
  try {
    await send("GET", "/readyz")
    return null
  } catch (error) {
    return error.status === 0 ? "no answer" : error.message
  }
}

/** A page of streams: `{ streams, prefixes, cursor }`. */
export const streams = (query, signal) => json("GET", `${ROOT}/streams`, { query, signal })
export const stream = (path, tenant, signal) => json("GET", place("streams", path), { query: { tenant }, signal })
export const changeStream = (path, tenant, what) => change("PATCH", place("streams", path), what, { tenant })
export const deleteStream = (path, tenant) => json("DELETE", place("streams", path), { query: { tenant } })

/** The URL under which a stream is read and written, on this listener. */
export const dataUrl = (path) => place("data", path)

/** Reads on from an offset as server-sent events; the answer's body is not read yet. */
export const follow = (path, tenant, offset, signal) =>
  send("GET", dataUrl(path), { query: { tenant, offset, live: "sse" }, signal })

/** Where the last messages begin: `{ offset, messages, complete }`. */
export const tail = (path, tenant, last, signal) => json("GET", place("tail", path), { query: { tenant, last }, signal })

export const append = (path, tenant, contentType, body) =>
  send("POST", dataUrl(path), { query: { tenant }, headers: { "content-type": contentType }, body })

export const close = (path, tenant) => send("POST", dataUrl(path), { query: { tenant }, headers: { "stream-closed": "true" } })

export const create = (path, tenant, headers, body) => send("PUT", dataUrl(path), { query: { tenant }, headers, body })

export const producers = (path, tenant, cursor, signal) => json("GET", place("producers", path), { query: { tenant, cursor }, signal })

/** A page of subscriptions: `{ subscriptions, cursor }`. */
export const subscriptions = (query, signal) => json("GET", `${ROOT}/subscriptions`, { query, signal })

const subscription = (id) => `${ROOT}/subscriptions/${encodeURIComponent(id)}`

/** `action`: retry, pause or resume. */
export const steerSubscription = (id, tenant, action) =>
  change("POST", `${subscription(id)}/${action}`, {}, { tenant })

export const deleteSubscription = (id, tenant) => json("DELETE", subscription(id), { query: { tenant } })
