#!/usr/bin/env python3
"""Runs a command against a server of its own: {url} in the command becomes ws://127.0.0.1:PORT, {pid} the
process of `ringcast run`.

    with_server.py --bin build/dev/bin [--set section.key=value ...] -- COMMAND...

The status is the command's, or 1 when the server did not end well."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

import certs


def main():
    cut = sys.argv.index("--")
    options, command = sys.argv[1:cut], sys.argv[cut + 1:]
    bin_dir, settings, tls = "build/dev/bin", [], False
    for name, value in zip(options[::2], options[1::2]):
        if name == "--bin":
            bin_dir = value
        elif name == "--set":
            settings.append("--" + value)
        elif name == "--tls":
            tls = value == "on"
        else:
            sys.exit(f"with_server.py: no option {name}")
    run_dir = tempfile.mkdtemp(prefix="ringcast-test-")
    log = tempfile.TemporaryFile()
    scheme, listen = ("wss", "tls://127.0.0.1:0") if tls else ("ws", "tcp://127.0.0.1:0")
    if tls:
        keys = tempfile.mkdtemp(prefix="ringcast-test-")
        pair = certs.make(keys)
        settings += [f"--tls.certificate={pair}.pem", f"--tls.key={pair}.key"]
    server = subprocess.Popen(
        [os.path.join(bin_dir, "ringcast"), "run", f"--worker.listen={listen}", "--worker.rings=1",
         f"--run.dir={run_dir}", "--run.drain_timeout=1s", *settings], stdout=subprocess.PIPE, stderr=log, text=True)
    watchdog = threading.Timer(30, server.kill)
    watchdog.start()
    status = 1
    try:
        ready = server.stdout.readline()
        watchdog.cancel()
        port = re.search(r"ready on (?:tcp|tls)://[^ ]*:(\d+)", ready)
        if port:
            status = subprocess.call([a.replace("{url}", f"{scheme}://127.0.0.1:{port[1]}").replace("{pid}", str(server.pid))
                for a in command])
    finally:
        watchdog.cancel()
        server.send_signal(signal.SIGTERM)
        try:
            ended = server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            ended = server.wait()
        shutil.rmtree(run_dir, ignore_errors=True)
        if tls:
            shutil.rmtree(keys, ignore_errors=True)
    if ended != 0 or status != 0:
        log.seek(0)
        sys.stderr.write(f"the server ended with {ended} and said:\n" + log.read().decode(errors="replace")[-3000:])
    return status or (1 if ended else 0)


if __name__ == "__main__":
    sys.exit(main())
