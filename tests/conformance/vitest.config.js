import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["conformance.test.js"],
    globalSetup: ["server.js"],
    setupFiles: ["key.js"],
    reporters: ["default"],
    // The suite's own tests wait on long-polls and expiries; vitest's 5 s is not enough on a busy machine.
    testTimeout: 30_000,
    // Streams of the suite with a TTL of one second are read within it, which a machine that stalls for so long misses.
    // The report marks a test that passed at its second try.
    retry: 1,
  },
})
