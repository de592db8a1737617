// SPDX-License-Identifier: MIT
//
// pm2 start ecosystem.config.js: Chroma under chromashim. Copy it, and change `args` to what
// starts your backend: "chroma run …", "uvicorn app:api", "node server.js".

const fs = require("fs");
const path = require("path");

// From the source tree beside this file, else where `make install` put it.
const beside = path.join(__dirname, "chromashim-launch");

module.exports = {
  apps: [
    {
      name: "chroma",
      script: fs.existsSync(beside) ? beside : "chromashim-launch",
      interpreter: "none", // the pid that pm2 knows becomes the backend's own
      args: [
        "chroma", "run",
        "--path", process.env.CHROMA_PATH || "./chroma_data",
        "--host", process.env.CHROMA_HOST || "127.0.0.1",
        "--port", process.env.CHROMA_PORT || "8000",
      ],

      // One writer for a directory: a second instance would be refused.
      exec_mode: "fork",
      instances: 1,

      // A persist of a large index takes a while. pm2's default of 1.6 s would kill it half-way:
      // nothing would be lost, but the work, and the snapshot at a clean stop.
      kill_timeout: 60000,
      // SIGTERM or SIGINT go to the backend alone. It ends its own workers; the guardian beside it
      // ends when its work is done.
      treekill: false,
      kill_retry_time: 200,

      // 0.2 s after the first crash, longer each time, up to 15 s; reset after 30 s of running.
      autorestart: true,
      exp_backoff_restart_delay: 200,
      min_uptime: "10s",
      // A wrong command line or no such program does not get better by trying again. Not 0: that is
      // what pm2 takes the death by a signal for.
      stop_exit_codes: [2, 126, 127],

      // The backend's own memory is what pm2 measures, since there is no process around it.
      max_memory_restart: process.env.CHROMA_MAX_MEMORY || undefined,

      merge_logs: true,
      time: true,
      env: { ANONYMIZED_TELEMETRY: "False" },
    },
  ],
};
