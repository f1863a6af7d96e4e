// Where the page is, as the fragment of its URL: #/streams/chat/42?tenant=a

/** A view's name, the stream's path behind it, and the query. */
export function current() {
  return parse(location.hash)
}

export function parse(hash) {
  const [place, query = ""] = hash.replace(/^#?\/?/, "").split("?", 2)
  const [view, ...segments] = place.split("/")
  return { view: view || "overview", path: decoded(segments.join("/")), query: new URLSearchParams(query) }
}

function decoded(text) {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

/** A path as it stands in a URL: escaped, with its slashes. */
export function escaped(path) {
  return path.split("/").map(encodeURIComponent).join("/")
}

/** The link to a view. */
export function link(view, path = "", query = {}) {
  const present = Object.entries(query).filter(([, value]) => value)
  const search = new URLSearchParams(present).toString()
  return `#/${view}${path === "" ? "" : `/${escaped(path)}`}${search === "" ? "" : `?${search}`}`
}

export function go(view, path, query) {
  location.hash = link(view, path, query)
}
