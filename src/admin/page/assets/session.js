// The administrator's token: in this tab only, and gone with it.

const KEY = "durable-streams-admin-token"

export function token() {
  return sessionStorage.getItem(KEY)
}

export function signIn(text) {
  sessionStorage.setItem(KEY, text)
}

export function signOut() {
  sessionStorage.removeItem(KEY)
}
