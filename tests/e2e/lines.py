# SPDX-License-Identifier: MIT
"""Lines to servers that fail as one likes: for HTTP a port in front of the server, for SFTP a program
between sshd and OpenSSH's sftp-server."""

import contextlib
import re
import socket
import threading
import time

REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE|PROPFIND|MKCOL|MOVE|COPY|OPTIONS) \S+ HTTP/1\.1\r\n")

# Run by sshd for each session: `sftp_line.py DIRECTORY`, where "fault" says what goes wrong and
# "count" is how many requests there were. Requests are told from each other by their lengths.
SFTP = """
import json, os, select, signal, subprocess, sys
place = sys.argv[1]
with open(place + "/fault") as f:
    fault = json.load(f)
server = subprocess.Popen(["/usr/lib/openssh/sftp-server", *fault.get("options", [])],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE)
def note(name):
    with open(f"{place}/{name}", "ab") as f:
        f.write(b".")
        return f.tell()
def end():
    server.kill()
    os._exit(1)
if fault.get("revoke") == note("sessions"):
    os.unlink(fault["authorized"])
to, back, have, passed = server.stdin.fileno(), server.stdout.fileno(), b"", 0
while True:
    for fd in select.select([0, back], [], [])[0]:
        data = os.read(fd, 1 << 16)
        if not data:
            end()
        if fd == back:
            os.write(1, data)
            continue
        passed += len(data)
        if passed > fault.get("bytes", 1 << 60):  # in this session
            os.write(to, data[:len(data) // 2])
            end()
        have += data
        while len(have) >= 4 and len(have) >= 4 + int.from_bytes(have[:4], "big"):
            size = 4 + int.from_bytes(have[:4], "big")
            number = note("count")
            every = fault.get("every")
            cut = every and number % every == 0
            if cut and not fault.get("done"):
                end()
            os.write(to, have[:size])
            have = have[size:]
            if number == fault.get("kill"):
                os.kill(fault["pid"], signal.SIGKILL)
            if cut:
                os.read(back, 1 << 16)  # it was done, and the answer is lost
                end()
"""


class Line:
    """A port in front of an HTTP server. Faults, by keyword: every=K each K-th request is cut off,
    before it is passed on or (done=True) when the server has answered; status=N it is answered so
    instead; bytes=N a line ends each time so many were sent; rate=N bytes a second; after=K and status:
    from then on each one; kill=(K, callable) with the K-th request."""

    def __init__(self, port):
        self.to, self.fault, self.count, self.passed = port, {}, 0, 0
        self.lock = threading.Lock()
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def fail(self, **fault):
        with self.lock:
            self.fault, self.count, self.passed = fault, 0, 0

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                client = self.listening.accept()[0]
                server = socket.create_connection(("127.0.0.1", self.to))
                muted = threading.Event()
                for a, b, up in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self.pass_on, args=(a, b, up, muted), daemon=True).start()

    def judge(self, data):
        """What becomes of these bytes: (how many pass, an answer instead, whether the answer is lost)."""
        with self.lock:
            fault = self.fault
            self.passed += len(data)
            left = fault.get("bytes", 1 << 60) - self.passed
            if left < 0:
                self.passed = 0
                return max(0, len(data) + left), None, False
            if not REQUEST.match(data):
                return len(data), None, False
            self.count += 1
            if self.count == fault.get("kill", (0, None))[0]:
                fault["kill"][1]()
            hit = "every" in fault and self.count % fault["every"] == 0
            hit = hit or self.count > fault.get("after", 1 << 60)
            if hit and "status" in fault:
                return 0, f"HTTP/1.1 {fault['status']} Not Now\r\nContent-Length: 0\r\n" \
                          "Connection: close\r\n\r\n".encode(), False
            return (len(data), None, True) if hit and fault.get("done") else \
                (0 if hit else len(data), None, False)

    def pass_on(self, source, sink, up, muted):
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if not up and muted.is_set():
                    break
                passed, answer, lost = self.judge(data) if up else (len(data), None, False)
                if lost:
                    muted.set()
                if rate := up and self.fault.get("rate"):
                    time.sleep(len(data) / rate)
                sink.sendall(data[:passed])
                if answer:
                    source.sendall(answer)
                if passed < len(data):
                    break
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.listening.close()
