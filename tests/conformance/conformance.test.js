// The protocol's official suite against the server that server.js started (or the one in BASE_URL).
import { inject } from "vitest"
import { runConformanceTests } from "@durable-streams/server-conformance-tests"

runConformanceTests({
  baseUrl: inject("baseUrl"),
  subscriptions: process.env.CONFORMANCE_SUBSCRIPTIONS === "1",
  // What a long-poll test may take; the server under test answers after 2 s.
  longPollTimeoutMs: 10_000,
})
