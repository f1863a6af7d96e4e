"""The servers that scripts/compare-replay and scripts/compare-far compare, each with one large stream in it."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

BINARY = Path(os.environ.get("BINARY", "target/release/durable-streams-server")).resolve()
TARGET = "/v1/stream/replayed"
# Messages of 1 KiB instead of bytes.
JSON = os.environ.get("JSON") == "1"
# Every process that was started, so that stop() ends them all, however far the script came.
started = []


def start(command, **options):
    started.append(subprocess.Popen(command, **options))
    return started[-1]


def end_on_signals():
    """Lets a signal unwind the script, so that it comes to stop()."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def stop():
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(host):
    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


def until(done, what):
    for _ in range(600):
        if done():
            return
        time.sleep(0.1)
    sys.exit(f"{Path(sys.argv[0]).name}: {what} did not come about within a minute")


def answers(host, port):
    try:
        socket.create_connection((host, port)).close()
        return True
    except OSError:
        return False


def one_mib():
    if not JSON:
        return os.urandom(1 << 20)
    # With its comma or terminator each message is 1 KiB in every server.
    return b"[%s]" % b",".join(b'{"data":"%s"}' % os.urandom(506).hex().encode() for _ in range(1024))


def fill(host, port, mib):
    client = HTTPConnection(host, port)
    kind = {"content-type": "application/json" if JSON else "application/octet-stream"}
    for method in ["PUT"] + mib * ["POST"]:
        client.request(method, TARGET, b"" if method == "PUT" else one_mib(), kind)
        response = client.getresponse()
        response.read()
        assert response.status < 300, response.status


def median(values):
    return sorted(values)[len(values) // 2]


class Server:
    """A server with the stream; `sealed`: in segments, or all of it in the index; `limits`: that section, as YAML."""

    def __init__(self, folder, host, mib, sealed=True, checked=True, limits="{}"):
        folder.mkdir()
        self.folder, self.host, self.port, self.admin = folder, host, free_port(host), free_port(host)
        config = folder / "config.yaml"
        config.write_text(
            f"listen: '{host}:{self.port}'\nadmin: {{listen: '{host}:{self.admin}'}}\n"
            f"data_dir: '{folder / 'data'}'\nlog: {{access: false, level: error}}\nlimits: {limits}\n"
            f"storage: {{segments: {{enabled: {str(sealed).lower()}, check_reads: {str(checked).lower()}, interval: 100ms}}}}\n"
        )
        self.process = start([BINARY, "run", "--config", config])
        until(lambda: answers(host, self.port), "the start")
        until(lambda: answers(host, self.admin), "the start")
        fill(host, self.port, mib)
        if sealed:
            live = 'durable_streams_segment_live_bytes{place="local"}'
            until(lambda: self.metric(live) >= (mib - 8) << 20, "sealing")

    def metric(self, name):
        client = HTTPConnection(self.host, self.admin)
        client.request("GET", "/metrics")
        lines = client.getresponse().read().decode().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(name + " ")), 0)

    def pids(self):
        return [self.process.pid]


class Electric:
    """Electric's server, where ELECTRIC names it."""

    program = os.environ.get("ELECTRIC")

    def __init__(self, folder, host, mib):
        folder.mkdir()
        self.folder, self.host, self.port = folder, host, free_port(host)
        command = [self.program, "--host", host, "--port", str(self.port), "--durability", "wal", "--data-dir", folder / "data"]
        self.process = start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: answers(host, self.port), "the start of Electric's server")
        fill(host, self.port, mib)

    def pids(self):
        return [self.process.pid]


class Nginx:
    """nginx with a file of the same size, where there is nginx."""

    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

    def __init__(self, folder, host, mib):
        folder.mkdir(mode=0o755)
        self.folder, self.host, self.port = folder, host, free_port(host)
        (folder / "replayed").write_bytes(os.urandom(mib << 20))
        config = folder / "nginx.conf"
        config.write_text(
            f"worker_processes 2; daemon off; pid {folder}/pid; error_log {folder}/error;\n"
            "events { worker_connections 64; }\nhttp { access_log off; sendfile on; tcp_nopush on;\n"
            f"server {{ listen {host}:{self.port}; location /v1/stream/ {{ alias {folder}/; }} }} }}\n"
        )
        self.process = start([self.program, "-c", config])
        until(lambda: answers(host, self.port), "the start of nginx")

    def pids(self):
        children = subprocess.check_output(["pgrep", "-P", str(self.process.pid)]).split()
        return [int(pid) for pid in children]
