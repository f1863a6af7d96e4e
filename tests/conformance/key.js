// Sends the API key in API_KEY with each request that has no credential of its own, as an application would. The token of
// a webhook's callback is such a credential (PROTOCOL.md section 7).
const key = process.env.API_KEY
if (key) {
  const plain = globalThis.fetch
  globalThis.fetch = (resource, init) => {
    const request = new Request(resource, init)
    if (!request.headers.has("authorization")) request.headers.set("x-api-key", key)
    return plain(request)
  }
}
