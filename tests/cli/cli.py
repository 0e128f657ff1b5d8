"""What the tests of the command line share: a private directory with a copy of `ringcast` beside
stand-ins for `ringcast-worker` and `ringcast-broker`, and ways to start it and to wait for what it does.
Nothing sleeps and hopes: every wait ends with an event or fails after PATIENCE seconds."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("RINGCAST_TEST_BIN", ROOT / "build/dev/bin"))
PATIENCE = 20

STAND_IN = f"""#!{sys.executable} -SE
# Says in a file what it was given and what happens to it, and does what files of its name ask.
import os, signal, sys
here = os.path.dirname(os.path.abspath(sys.argv[0]))
index = [a.split("=")[1] for a in sys.argv if ".index=" in a][0]
me = os.path.basename(sys.argv[0]).replace("ringcast-", "") + "." + index
log = open(here + "/log", "a")
def say(*words):
    print(me, os.getpid(), *words, file=log, flush=True)
def wanted(what):
    return os.path.exists(here + "/" + me + "." + what)
say("argv", *sys.argv[1:])
say("fds", os.environ.get("LISTEN_PID") == str(os.getpid()), os.environ.get("LISTEN_FDS", "0"),
    os.environ.get("LISTEN_FDNAMES", "none"))
for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC"):
    if name in os.environ:
        say("inherited", name)
for i in range(int(os.environ.get("LISTEN_FDS", "0"))):
    import socket
    s = socket.socket(fileno=3 + i)
    say("socket", s.getsockname(), s.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT), os.fstat(3 + i).st_ino)
    s.detach()
if wanted("fails"):
    sys.exit("stand-in: told to fail")
def on_signal(number, frame):
    say("signal", signal.Signals(number).name)
    if number == signal.SIGTERM and not wanted("stays"):
        os._exit(0)
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, on_signal)
say("up") # before it is ready: whoever waited for that finds it
if not wanted("mute"):
    os.write(int(os.environ["RINGCAST_READY_FD"]), b"ready\\n")
parent = int(os.environ["RINGCAST_PARENT_FD"])
while True:
    if not os.read(parent, 1):
        say("orphaned")
        while wanted("lingers"):
            os.read(os.open(here + "/" + me + ".lingers", os.O_RDONLY), 1)
        os._exit(0)
"""


class Ringcast:
    """One `ringcast run` (or another command that stays), its output collected as it comes."""

    def __init__(self, command, env=None, preexec=None):
        self.lines = {"out": [], "err": []}
        self.news = threading.Condition()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                        env=env, preexec_fn=preexec)
        self.threads = [threading.Thread(target=self._read, args=("out", self.process.stdout)),
                        threading.Thread(target=self._read, args=("err", self.process.stderr))]
        for t in self.threads:
            t.start()

    def _read(self, which, stream):
        for line in stream:
            with self.news:
                self.lines[which].append(line.rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.lines[which].append(None)
            self.news.notify_all()

    def wait_line(self, which, text, nth=1):
        """The nth line that holds the text; fails when the output ends without it."""
        deadline = time.monotonic() + PATIENCE
        with self.news:
            while True:
                found = [l for l in self.lines[which] if l is not None and text in l]
                if len(found) >= nth:
                    return found[nth - 1]
                left = deadline - time.monotonic()
                if left <= 0 or None in self.lines[which]:
                    raise AssertionError(f"no line {nth} with {text!r} in {which}: {self.lines}")
                self.news.wait(left)

    def end(self, number=None):
        """Sends a signal, if any, waits for the end, returns the status and what was said."""
        if number is not None:
            self.process.send_signal(number)
        status = self.process.wait(PATIENCE)
        for t in self.threads:
            t.join(PATIENCE)
        self.process.stdout.close()
        self.process.stderr.close()
        return status, self.text("out"), self.text("err")

    def text(self, which):
        return "\n".join(l for l in self.lines[which] if l is not None)


class Case(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ringcast-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.bin = self.dir / "bin"
        self.bin.mkdir()
        shutil.copy(BIN / "ringcast", self.bin / "ringcast")
        for name in ("ringcast-worker", "ringcast-broker"):
            path = self.bin / name
            path.write_text(STAND_IN)
            path.chmod(0o755)
        self.run_dir = self.dir / "run"
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RINGCAST_")}
        self.started = []

    def tearDown(self):
        for r in self.started:
            if r.process.poll() is None:
                r.process.kill()
            for t in r.threads:
                t.join(PATIENCE)

    def ringcast(self, *words, env=None, status=None):
        """Runs a command to its end: (status, stdout, stderr)."""
        done = subprocess.run([self.bin / "ringcast", *words], capture_output=True, text=True,
                              timeout=PATIENCE, env={**self.env, **(env or {})})
        if status is not None:
            self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.returncode, done.stdout, done.stderr

    def start(self, *words, env=None, preexec=None, ready=True):
        r = Ringcast([self.bin / "ringcast", "run", f"--run.dir={self.run_dir}",
                      "--worker.listen=tcp://127.0.0.1:0", "--worker.rings=1", *words],
                     {**self.env, **(env or {})}, preexec)
        self.started.append(r)
        if ready:
            r.ready = r.wait_line("out", "ringcast: ready on ")
        return r

    def log(self, who="", what=""):
        """Lines of the stand-ins, split: [who, pid, what, ...]."""
        path = self.bin / "log"
        text = path.read_text() if path.exists() else ""
        rows = [l.split(" ") for l in text.splitlines()]
        return [r for r in rows if r[0].startswith(who) and (not what or r[2] == what)]

    def wait_until(self, claim, what):
        deadline = time.monotonic() + PATIENCE
        while not claim():
            if time.monotonic() > deadline:
                self.fail(f"never came true: {what}; {self.log()}")
            time.sleep(0.01)

    def wait_log(self, who, what, nth=1):
        self.wait_until(lambda: len(self.log(who, what)) >= nth, f"{who} {what} {nth}")
        return self.log(who, what)[nth - 1]

    def ask(self, who, what):
        """Tells a stand-in how to behave: fails, stays (deaf to SIGTERM), mute (never ready)."""
        (self.bin / f"{who}.{what}").touch()

    def assert_gone(self, pid):
        def gone():
            try:
                os.kill(int(pid), 0)
                with open(f"/proc/{pid}/stat") as f:
                    return f.read().rsplit(")", 1)[1].split()[0] == "Z"
            except (ProcessLookupError, FileNotFoundError):
                return True
        self.wait_until(gone, f"process {pid} is gone")


def main():
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    unittest.main()
