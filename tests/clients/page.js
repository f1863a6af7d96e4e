// A headless browser, and a site whose pages it opens.
import { createServer } from "node:http"
import { chromium } from "playwright-core"

const executablePath = process.env.CHROMIUM

/** Why there are no tests in a browser; `false` where there are. */
export const skip = executablePath ? false : "no Chromium here; scripts/bootstrap installs it where apt-get does"

export const launch = (args = ["--no-sandbox"]) => chromium.launch({ executablePath, args })

/** A web server of some page's own, on 127.0.0.1. */
export async function site() {
  const server = createServer((_, response) => {
    response.writeHead(200, { "content-type": "text/html" })
    response.end("<!doctype html><title>a page</title>")
  })
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve))
  return { port: server.address().port, close: () => server.close() }
}
