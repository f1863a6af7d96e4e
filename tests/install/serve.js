// A release page for tests: serves a directory the way GitHub serves releases, `latest/download/` by redirect.
//
//   node serve.js <directory> <file to write the port to>
//
// The directory holds download/v<version>/<file>, and `latest` names the newest version.
import { createReadStream, existsSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { join, normalize } from "node:path"

const [root, portFile] = process.argv.slice(2)

const server = createServer((request, response) => {
  const path = normalize(decodeURIComponent(request.url.split("?")[0]))
  const latest = /^\/latest\/download\/(.+)$/.exec(path)
  if (latest && existsSync(join(root, "latest"))) {
    const version = readFileSync(join(root, "latest"), "utf8").trim()
    response.writeHead(302, { location: `/download/v${version}/${latest[1]}` }).end()
    return
  }
  const file = join(root, path)
  if (!existsSync(file) || !statSync(file).isFile()) {
    response.writeHead(404, { "content-type": "text/plain" }).end("Not Found\n")
    return
  }
  response.writeHead(200, { "content-length": statSync(file).size })
  createReadStream(file).pipe(response)
})

server.listen(0, "127.0.0.1", () => {
  writeFileSync(`${portFile}.new`, String(server.address().port))
  renameSync(`${portFile}.new`, portFile)
})
// Never outlives a test that was killed.
setTimeout(() => process.exit(1), 300_000).unref()
