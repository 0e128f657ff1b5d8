"""The server under test, and the load generator beside it."""
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

# What a client speaks -> words for ringcast-bench.
MODES = {"ws": [], "wss": [], "deflate": ["--deflate"], "both": ["--deflate"]}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def certificate(folder):
    """A self-signed one on P-256, which is what the documentation recommends."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return key, cert


def make_realtime(parent):
    """Workers, and a step above them brokers, which otherwise would wait for a worker to sleep."""
    listed = subprocess.run(["ps", "-o", "pid=,comm=", "--ppid", str(parent)], stdout=subprocess.PIPE, text=True, check=True).stdout
    for pid, name in (line.split(None, 1) for line in listed.splitlines()):
        subprocess.run(["chrt", "-a", "-r", "-p", "11" if "broker" in name else "10", pid], check=True)


class Server:
    """`ringcast run` with one worker, one ring, one broker, all on one core, unless told otherwise. `conf`: text of a
    configuration file. A client's host has some 28,000 ports for each address of a server's, so crowds want several."""

    def __init__(self, a, bin_dir, tls=False, conf="", more=(), cpus=None, rings=1, workers=1, addresses=1):
        self.dir = tempfile.TemporaryDirectory(prefix="ringcast-bench-")
        self.folder = pathlib.Path(self.dir.name)
        self.port, self.tls_port = free_port(), free_port() if tls else None
        listen = ",".join(f"tcp://127.0.0.{i + 1}:{self.port}" for i in range(addresses))
        self.args = [f"--worker.count={workers}", f"--worker.rings={rings}", "--broker.count=1", f"--run.dir={self.dir.name}",
                     "--log.level=warn", *more]
        if tls:
            key, cert = certificate(self.folder)
            listen += f",tls://127.0.0.1:{self.tls_port}"
            self.args += [f"--tls.certificate={cert}", f"--tls.key={key}"]
        if conf:
            (self.folder / "ringcast.conf").write_text(conf)
            self.args.insert(0, f"--config={self.folder / 'ringcast.conf'}")
        self.args.insert(0, f"--worker.listen={listen}")
        self.log = open(self.folder / "log", "w+")
        self.child = subprocess.Popen(
            ["taskset", "-c", cpus or str(a.server_cpu), str(bin_dir / "ringcast"), "run", *self.args],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.child.stdout.readline()
        if "ready" not in line:
            self.log.seek(0)
            sys.exit("the server did not start: " + self.log.read()[-2000:])
        if a.realtime:
            make_realtime(self.child.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGTERM)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()
        self.log.close()
        self.dir.cleanup()

    def settings(self):
        """Without what is different each time."""
        return [x for x in self.args if self.dir.name not in x]

    def url(self, mode):
        if mode in ("wss", "both"):
            return f"wss://127.0.0.1:{self.tls_port}/socketcluster/"
        return f"ws://127.0.0.1:{self.port}/socketcluster/"

    def options(self, mode="ws"):
        return [f"--url={self.url(mode)}", f"--pid={self.child.pid}", *MODES[mode]]


def measure(a, bin_dir, words, server=None, mode="ws", may_end=False):
    """One run of ringcast-bench, as a dict. {storm:MODE} in a word becomes that URL of the server; the word "anywhere" leaves
    the load on any core."""
    if server is not None:
        words = [w.replace("{storm:wss}", server.url("wss")).replace("{storm:ws}", server.url("ws")) for w in words]
    cmd = [*(["chrt", "-f", "12"] if a.realtime else []), str(bin_dir / "ringcast-bench"), *(w for w in words if w != "anywhere"), *([] if "anywhere" in words else [f"--cpu={a.cpu}"]), f"--server-cpu={a.server_cpu}", "--json", "--quiet"]
    if server is not None:
        cmd += server.options(mode)
    done = subprocess.run(cmd, stdout=subprocess.PIPE, text=True, timeout=900)
    if done.returncode not in (0, 2) or not done.stdout:
        sys.exit(f"{' '.join(cmd)} failed with status {done.returncode}")
    result = json.loads(done.stdout)
    result["command"] = " ".join(["ringcast-bench", *words, *MODES[mode]])
    result["mode"] = mode
    if not result["ok"] and not may_end:
        print(f"  !! {result['command']}: not clean: " + str({k: result[k] for k in (
            "lost", "doubled", "reordered", "foreign", "disconnects", "refused")}), file=sys.stderr)
    return result
