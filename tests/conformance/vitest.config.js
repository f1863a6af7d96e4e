import { defineConfig } from "vitest/config"

export default defineConfig({
  test: {
    include: ["conformance.test.js"],
    globalSetup: ["server.js"],
    setupFiles: ["key.js"],
    reporters: ["default"],
    // The suite's own tests wait on long-polls and expiries; vitest's 5 s is not enough on a busy machine.
    testTimeout: 30_000,
  },
})
