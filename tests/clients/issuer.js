// An identity provider of the tests' own: `oidc-provider` on a free port of loopback, with real endpoints for its metadata,
// its keys and its tokens (client credentials).
import { createPrivateKey, generateKeyPairSync, randomUUID } from "node:crypto"
import { createServer } from "node:http"

const CLIENT = { id: "application", secret: "a secret of the application" }

/** A private key as a JWK, for RS256. */
export function signingKey(kid = randomUUID()) {
  // By way of PEM: Node 20 waits for itself for ever where it collects the generator's garbage while it exports the generator's
  // own key (both take the lock of that key).
  const pem = { privateKeyEncoding: { type: "pkcs8", format: "pem" }, publicKeyEncoding: { type: "spki", format: "pem" } }
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048, ...pem })
  return { ...createPrivateKey(privateKey).export({ format: "jwk" }), kid, alg: "RS256", use: "sig" }
}

/** Starts a provider that signs with the first of `keys`, and publishes them all. */
export async function startIssuer(Provider, keys) {
  const issuer = new Issuer(Provider)
  await issuer.listen(0)
  issuer.rotate(keys)
  return issuer
}

class Issuer {
  constructor(Provider) {
    this.Provider = Provider
    /** Seconds for which new tokens are valid. */
    this.lifetime = 300
    /** Requests to each of the endpoints. */
    this.asked = { metadata: 0, keys: 0, tokens: 0 }
  }

  async listen(port) {
    this.server = createServer((request, response) => {
      if (request.url.startsWith("/.well-known/")) this.asked.metadata++
      if (request.url === "/jwks") this.asked.keys++
      if (request.url === "/token") this.asked.tokens++
      this.provider.callback()(request, response)
    })
    await new Promise((resolve, reject) => {
      this.server.on("error", reject)
      this.server.listen(port, "127.0.0.1", resolve)
    })
    this.port = this.server.address().port
    this.url = `http://127.0.0.1:${this.port}`
  }

  /** Takes other keys, as a provider does that is started again with them. */
  rotate(keys) {
    const resource = () => ({
      scope: "streams:read streams:write",
      audience: "streams",
      accessTokenTTL: this.lifetime,
      accessTokenFormat: "jwt",
      jwt: { sign: { alg: "RS256" } },
    })
    this.provider = new this.Provider(this.url, {
      jwks: { keys },
      clients: [{
        client_id: CLIENT.id,
        client_secret: CLIENT.secret,
        grant_types: ["client_credentials"],
        redirect_uris: [],
        response_types: [],
      }],
      scopes: ["streams:read", "streams:write"],
      features: {
        clientCredentials: { enabled: true },
        devInteractions: { enabled: false },
        resourceIndicators: {
          enabled: true,
          defaultResource: () => "https://streams.example.com",
          getResourceServerInfo: resource,
        },
      },
    })
  }

  /** A token of the token endpoint. */
  async token(scope = "streams:read streams:write") {
    const response = await fetch(`${this.url}/token`, {
      method: "POST",
      headers: {
        "content-type": "application/x-www-form-urlencoded",
        authorization: `Basic ${Buffer.from(`${CLIENT.id}:${encodeURIComponent(CLIENT.secret)}`).toString("base64")}`,
      },
      body: new URLSearchParams({ grant_type: "client_credentials", scope }),
    })
    const answer = await response.json()
    if (!answer.access_token) throw new Error(`no token: ${JSON.stringify(answer)}`)
    return answer.access_token
  }

  /** Refuses connections until `listen` is called with the same port. */
  async away() {
    this.server.closeAllConnections()
    await new Promise((resolve) => this.server.close(resolve))
  }
}
