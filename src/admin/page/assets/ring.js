// The messages that are kept for the view: the newest, within a bound on their number and their size.

export class MessageRing {
  #most
  #mostSize
  #messages = []
  #head = 0
  #size = 0
  /** How many messages left at the front. */
  dropped = 0

  constructor(most, mostSize) {
    this.#most = most
    this.#mostSize = mostSize
  }

  get length() {
    return this.#messages.length - this.#head
  }

  /** The message at an index; 0 is the oldest that is kept. */
  at(index) {
    return this.#messages[this.#head + index]
  }

  /** Adds messages, and returns how many left for them. */
  push(messages) {
    for (const message of messages) {
      this.#messages.push(message)
      this.#size += message.kept
    }
    let left = 0
    while (this.length > this.#most || (this.#size > this.#mostSize && this.length > 1)) {
      this.#size -= this.#messages[this.#head].kept
      this.#messages[this.#head] = undefined
      this.#head++
      left++
    }
    if (this.#head > 4096 && this.#head > this.length) {
      this.#messages = this.#messages.slice(this.#head)
      this.#head = 0
    }
    this.dropped += left
    return left
  }

  clear() {
    this.#messages = []
    this.#head = 0
    this.#size = 0
    this.dropped = 0
  }
}
