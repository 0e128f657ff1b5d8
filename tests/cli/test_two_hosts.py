"""Two hosts over one real Redis, with real workers and brokers: who is there, how many hear a channel, and what is said
while Redis stands still."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest

import cli


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@unittest.skipUnless(shutil.which("redis-server"), "there is no redis-server")
class TwoHosts(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="ringcast-test-"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("RINGCAST_")}
        self.port = free_port()
        self.redis = self.begin("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self.dir))
        self.hosts = {}

    def begin(self, *command):
        p = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env)
        self.addCleanup(self.end, p)
        return p

    def end(self, p, number=signal.SIGKILL):
        if p.poll() is None:
            p.send_signal(signal.SIGCONT)
            p.send_signal(number)
        p.wait(cli.PATIENCE)

    def start(self, name):
        flags = {"run.dir": self.dir / name, "host.name": name, "redis.url": f"redis://127.0.0.1:{self.port}", "bus.heartbeat": "100ms",
                 "redis.timeout": "500ms", "redis.ping_interval": "200ms", "redis.backoff_max": "200ms", "worker.rings": 2,
                 "broker.count": 2, "worker.listen": "tcp://127.0.0.1:0"}
        self.hosts[name] = self.begin(cli.BIN / "ringcast", "run", *(f"--{k}={v}" for k, v in flags.items()))

    def say(self, name, *words):
        done = subprocess.run([cli.BIN / "ringcast", *words, f"--run.dir={self.dir / name}"], capture_output=True, text=True,
                              timeout=cli.PATIENCE, env=self.env)
        return done.returncode, done.stdout, done.stderr

    def states(self, name):
        status, out, _ = self.say(name, "hosts", "--json")
        return {} if status else {h["name"]: (h["state"], h["brokers_heard"]) for h in json.loads(out)["hosts"]}

    def wait(self, claim, what):
        end = time.monotonic() + cli.PATIENCE
        while not (now := claim()):
            self.assertLess(time.monotonic(), end, f"never came true: {what() if callable(what) else what}")
            time.sleep(0.05)
        return now

    def wait_states(self, name, wanted):
        seen = []
        self.wait(lambda: (seen.append(self.states(name)) or seen[-1]) == wanted, lambda: f"{name} sees {wanted}, not {seen[-5:]}")

    def occupancy(self, name, channel):
        return json.loads(self.say(name, "occupancy", channel, "--json")[1] or "{}")

    def test_what_hosts_know_of_each_other(self):
        both = {"one": ("up", 2), "two": ("up", 2)}
        self.start("one")
        self.start("two")
        self.wait_states("one", both)
        self.wait_states("two", both)
        for name in ("one", "one", "two"):
            self.begin(cli.BIN / "ringcast", "subscribe", "news", f"--run.dir={self.dir / name}")
        for name in both:
            self.wait(lambda: self.occupancy(name, "news").get("subscribers") == 3, "three subscribers")
        said = self.occupancy("two", "news")
        self.assertTrue(said["whole"])
        self.assertEqual({h["name"]: h["subscribers"] for h in said["hosts"]}, {"one": 2, "two": 1})
        bus = json.loads(self.say("one", "status", "--json")[1])["bus"]
        self.assertEqual([(b["state"], b["hosts"]) for b in bus], [("up", 2), ("up", 2)])

        self.redis.send_signal(signal.SIGSTOP)
        self.wait_states("one", {"one": ("deaf", 2), "two": ("unheard", 2)})
        status, out, _ = self.say("one", "occupancy", "news", "--json")
        self.assertEqual((status, json.loads(out)["whole"]), (1, False))
        self.assertIn("OWN HEARTBEATS DO NOT COME BACK", self.say("one", "status")[1])
        self.redis.send_signal(signal.SIGCONT)
        self.wait_states("one", both)

        self.end(self.hosts["two"], signal.SIGTERM)
        self.wait_states("one", {"one": ("up", 2)})


if __name__ == "__main__":
    cli.main()
