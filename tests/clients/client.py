"""The official Python client against the server in argv[1]; what it tries is argv[2]. Run by python.test.js."""

import sys
import threading
import time

import httpx
from durable_streams import DurableStream, stream
from durable_streams import SeqConflictError, StreamNotFoundError

ROUTE = sys.argv[1]
TEXT = "text/plain; charset=utf-8"


def expect(what, got, wanted):
    if got != wanted:
        raise AssertionError(f"{what}: {str(got)[:300]} instead of {str(wanted)[:300]}")


def life():
    with DurableStream.create(f"{ROUTE}/py-life", content_type=TEXT) as handle:
        handle.append("one")
        handle.append("zwölf", seq="b")
        try:
            handle.append("three", seq="a")
            raise AssertionError("a Stream-Seq that goes back is refused")
        except SeqConflictError:
            pass
        expect("head", handle.head().content_type, TEXT)
        with handle.stream(live=False) as response:
            expect("read_text", response.read_text(), "onezwölf")
        with handle.stream(live=False) as response:
            expect("read_bytes", response.read_bytes(), "onezwölf".encode())
        handle.delete()
        try:
            DurableStream.connect(handle.url)
            raise AssertionError("a deleted stream is there")
        except StreamNotFoundError:
            pass


def reading():
    messages = [{"n": n, "text": "ä漢" * n} for n in range(60)]
    with DurableStream.create(f"{ROUTE}/py-json", content_type="application/json") as handle:
        for message in messages[:40]:
            handle.append(message)
        for live in (False, "auto", "long-poll"):
            with handle.stream(offset="-1", live=live) as response:
                expect(f"read_json, {live}", response.read_json(), messages[:40])
        with handle.stream(live=False) as response:
            response.read_json()
            place = response.offset

        def write():
            for message in messages[40:]:
                time.sleep(0.02)
                handle.append(message)

        for live in ("long-poll", "sse"):
            writer = threading.Thread(target=write) if live == "long-poll" else None
            if writer:
                writer.start()
            seen = []
            with stream(handle.url, offset=place, live=live) as response:
                for item in response.iter_json():
                    seen.append(item)
                    if len(seen) == 20:
                        break
            if writer:
                writer.join()
            expect(f"iter_json, {live}", seen, messages[40:])

    line = "Grüße, 世界 \U0001f600 " * 200
    with DurableStream.create(f"{ROUTE}/py-text", content_type=TEXT) as handle:
        for _ in range(10):
            handle.append(line)
        for live in ("long-poll", "sse"):
            seen = ""
            with handle.stream(offset="-1", live=live) as response:
                for piece in response.iter_text():
                    seen += piece
                    if len(seen) >= len(line) * 10:
                        break
            expect(f"iter_text, {live}", seen, line * 10)

    block = bytes(range(256)) * 400
    with DurableStream.create(f"{ROUTE}/py-bytes", content_type="application/octet-stream") as handle:
        for _ in range(5):
            handle.append(block)
        with handle.stream(offset="-1", live=False) as response:
            expect("bytes", response.read_bytes(), block * 5)


def complete():
    """`live=False` has to return all of a stream that is larger than a page."""
    with DurableStream.create(f"{ROUTE}/py-forty", content_type="application/json") as handle:
        for n in range(40):
            handle.append({"n": n, "text": "x" * 50_000})
        with handle.stream(live=False) as response:
            expect("read_json", [item["n"] for item in response.read_json()], list(range(40)))


def retried(action):
    for attempt in range(60):
        try:
            return action()
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError("the server does not come back")


def producer():
    """An idempotent producer by its headers, and an SSE reader, while the server is killed again and again."""
    count = 600
    url = f"{ROUTE}/py-killed"
    sequence = 0
    headers = {"Producer-Id": "py", "Producer-Epoch": "0", "Producer-Seq": lambda: str(sequence)}
    retried(lambda: DurableStream.create(url, content_type="application/json").close())
    seen = []

    def follow():
        offset = "-1"
        while len(seen) < count:
            try:
                with stream(url, offset=offset, live="sse", timeout=5.0) as response:
                    for event in response.iter_events("json_batches"):
                        seen.extend(event.data)
                        offset = event.next_offset
                        if len(seen) >= count:
                            return
            except Exception:
                time.sleep(0.05)

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    with DurableStream(url, content_type="application/json", headers=headers, batching=False) as handle:
        for n in range(count):
            sequence = n
            retried(lambda: handle.append({"n": n}))
            if n == 20:
                print("kill", flush=True)
    with retried(lambda: stream(url, live=False)) as response:
        expect("all, once, in order", [item["n"] for item in response.read_json()], list(range(count)))
    reader.join(20)
    expect("what the SSE reader saw", [item["n"] for item in seen], list(range(count)))


{"life": life, "reading": reading, "complete": complete, "producer": producer}[sys.argv[2]]()
print("ok")
