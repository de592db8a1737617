# SPDX-License-Identifier: MIT
"""A Chromium without a window, told what to do through a pipe (the DevTools protocol)."""

import contextlib
import json
import os
import shutil
import subprocess
import time

import hosts

AXE = hosts.BUILD / "npm-axe" / "node_modules" / "axe-core" / "axe.min.js"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    def __init__(self, profile):
        give, self.to = os.pipe()
        self.answers, take = os.pipe()
        words = [CHROMIUM, "--headless", "--remote-debugging-pipe", f"--user-data-dir={profile}",
                 "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
                 *["--no-sandbox"] * (os.geteuid() == 0)]
        # It wants to read from 3 and to write to 4.
        self.child = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{give} 4>&{take} {give}<&- {take}>&-', "bash", *words],
            pass_fds=(give, take), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        os.close(give)
        os.close(take)
        self.rest, self.number, self.session = b"", 0, None
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self("Page.enable")
        self("Page.setBypassCSP", enabled=True)  # or nothing could be asked of the page

    def message(self):
        while b"\0" not in self.rest:
            more = os.read(self.answers, 1 << 16)
            assert more, "the browser has ended"
            self.rest += more
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def __call__(self, method, **params):
        self.number += 1
        told = {"id": self.number, "method": method, "params": params}
        if self.session:
            told["sessionId"] = self.session
        os.write(self.to, json.dumps(told).encode() + b"\0")
        while (got := self.message()).get("id") != self.number:
            pass
        assert "error" not in got, (method, got)
        return got["result"]

    def show(self, file, width, scheme):
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=f"file://{file}")
        until = time.monotonic() + 30
        while self.ask("location.protocol + document.readyState") != "file:complete":
            assert time.monotonic() < until
            time.sleep(0.02)

    def ask(self, script):
        got = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in got, got
        return got["result"].get("value")

    def close(self):
        self.session = None
        with contextlib.suppress(OSError, AssertionError):
            self("Browser.close")
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        os.close(self.to)
        os.close(self.answers)
