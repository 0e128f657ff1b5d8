"""`ringcast publish` and `ringcast subscribe` against a stand-in server that says what each test wants,
frame by frame; and the tools against a real server, where its programs are built."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

import cli

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Server:
    """Takes one connection, upgrades it, and runs a script with itself as the other end."""

    def __init__(self, script, answer=None, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.script, self.answer, self.error = script, answer, None
        self.listener = socket.socket(family)
        self.listener.bind(address)
        self.listener.listen()
        self.listener.settimeout(cli.PATIENCE)
        self.address = self.listener.getsockname()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def url(self):
        return f"ws://127.0.0.1:{self.address[1]}/socketcluster/"

    def serve(self):
        try:
            self.conn, _ = self.listener.accept()
            self.conn.settimeout(cli.PATIENCE)
            self.file = self.conn.makefile("rb")
            self.head = []
            while (line := self.file.readline().decode().strip()):
                self.head.append(line)
            key = [l.split(": ")[1] for l in self.head if l.lower().startswith("sec-websocket-key")][0]
            accept = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
            self.conn.sendall((self.answer or "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                               "Connection: Upgrade\r\nsec-websocket-accept:  {} \r\n\r\n").format(accept).encode())
            self.script(self)
        except Exception as e:
            self.error = e
        finally:
            self.listener.close()
            if hasattr(self, "conn"):
                self.file.close()
                self.conn.close()

    def end(self):
        self.thread.join(cli.PATIENCE)
        if self.error is not None:
            raise self.error

    def send(self, payload, opcode=1, fin=True):
        if not isinstance(payload, bytes):
            payload = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
        n = len(payload)
        size = bytes([n]) if n < 126 else b"\x7e" + n.to_bytes(2, "big") if n < 65536 else b"\x7f" + n.to_bytes(8, "big")
        self.conn.sendall(bytes([opcode | (0x80 if fin else 0)]) + size + payload)

    def receive(self):
        """(opcode, payload) of one frame, which must be whole and masked."""
        first, second = self.file.read(2)
        assert first & 0x80 and second & 0x80, "a client's frames are whole and masked"
        n = second & 0x7F
        if n >= 126:
            n = int.from_bytes(self.file.read(2 if n == 126 else 8), "big")
        key = self.file.read(4)
        return first & 15, bytes(b ^ key[i & 3] for i, b in enumerate(self.file.read(n)))

    def packet(self):
        opcode, payload = self.receive()
        assert opcode == 1, (opcode, payload)
        return json.loads(payload)

    def shake(self):
        packet = self.packet()
        assert packet["event"] == "#handshake", packet
        self.send({"rid": packet["cid"], "data": {"id": "x", "pingTimeout": 30000, "isAuthenticated": False}})

    def goodbye(self):
        opcode, payload = self.receive()
        assert (opcode, payload) == (8, b"\x03\xe8"), (opcode, payload)
        self.send(payload, 8)


class Talk(cli.Case):
    def talk(self, script, *words, status=0, **options):
        server = Server(script, **options)
        try:
            result = self.ringcast(words[0], "--url", server.url(), *words[1:], status=status)
        finally:
            server.end()
        return result

    def published(self, text):
        """What the server gets for DATA."""
        seen = []

        def script(s):
            s.shake()
            packet = s.packet()
            seen.append(packet)
            s.send({"rid": packet["cid"]})
            s.goodbye()
        self.talk(script, "publish", "--", 'a "channel"\n', text)
        self.assertEqual(seen[0]["event"], "#publish")
        self.assertEqual(seen[0]["data"]["channel"], 'a "channel"\n')
        return seen[0]["data"]["data"]

    def test_data_is_json_or_else_a_text(self):
        for text, want in (('{"a":[1,null]}', {"a": [1, None]}), ("12", 12), ('"x"', "x"), ("hello", "hello"),
                           ("{oops", "{oops"), ("", ""), ("--x", "--x"), ("wörld \"\\", "wörld \"\\"),
                           ("a" * 70000, "a" * 70000)):
            self.assertEqual(self.published(text), want)

    def test_a_refused_publish_says_why(self):
        def script(s):
            s.shake()
            s.send([{"rid": 99}, {"rid": s.packet()["cid"], "error": {"name": "BrokerError", "message": "no way"}}])
            s.goodbye()
        self.assertIn("BrokerError: no way", self.talk(script, "publish", "c", "1", status=1)[2])

    def test_what_comes_is_printed_a_line_each(self):
        def script(s):
            s.shake()
            for name in ("a", "b"):
                packet = s.packet()
                assert packet["data"] == {"channel": name}, packet
                s.send("", 1)  # the protocol's ping, answered while waiting
                assert s.receive() == (1, b""), "pong"
                s.send(b"tick", 9)
                assert s.receive() == (10, b"tick"), "pong frame"
                s.send({"rid": packet["cid"]})
            s.send({"event": "#publish", "data": {"channel": "a", "data": {"x": [1, "é"]}}})
            s.send("[{\"event\":\"#publish\",\"data\":{\"channel\":\"b\"}},\n {\"event\":\"other\"},"
                   " {\"data\":{\"data\":\n \"t\\t\", \"channel\":\"t\\tb\"},\"event\":\"#publish\"}]")
            text = b'{"event":"#publish","data":{"channel":"a","data":"' + b"z" * 100000 + b'"}}'
            for i in range(0, len(text), 9999):
                s.send(text[i:i + 9999], 1 if i == 0 else 0, i + 9999 >= len(text))
            s.send({"event": "#publish", "data": {"channel": "a", "data": "too many"}})
            s.goodbye()
        _, out, err = self.talk(script, "subscribe", "--count", "4", "a", "b")
        self.assertEqual(out.splitlines(), ['a\t{"x": [1, "\\u00e9"]}', "b\t", 't\\tb\t"t\\t"', 'a\t"' + "z" * 100000 + '"'])
        self.assertEqual(err, "ringcast: subscribed to a\nringcast: subscribed to b\n")

    def test_a_refused_subscribe_ends_it(self):
        def script(s):
            s.shake()
            s.send({"rid": s.packet()["cid"], "error": {"name": "X", "message": "no"}})
            s.goodbye()
        _, out, err = self.talk(script, "subscribe", "a", status=1)
        self.assertEqual((out, err), ("", "ringcast: X: no\n"))

    def test_ends_of_the_connection_are_told(self):
        def closes(s):
            s.shake()
            s.packet()
            s.send((4001).to_bytes(2, "big") + b"why", 8)
            assert s.receive() == (8, (4001).to_bytes(2, "big"))

        def cuts(s):
            s.shake()
            s.packet()

        def breaks(s):
            s.shake()
            s.packet()
            s.conn.sendall(b"\x8b\x00")
        self.assertIn("closed the connection with 4001 \"why\"", self.talk(closes, "subscribe", "a", status=1)[2])
        self.assertIn("closed by the server", self.talk(cuts, "subscribe", "a", status=1)[2])
        self.assertIn("broke the WebSocket protocol", self.talk(breaks, "subscribe", "a", status=1)[2])

    def test_a_server_that_falls_silent_is_given_up(self):
        def script(s):
            packet = s.packet()
            s.send({"rid": packet["cid"], "data": {"id": "x", "pingTimeout": 1, "isAuthenticated": False}})
            s.send({"rid": s.packet()["cid"]})
            s.receive()  # the goodbye
        self.assertIn("fallen silent", self.talk(script, "subscribe", "a", status=1)[2])

    def test_answers_that_are_no_upgrade(self):
        for answer, says in (("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "404 Not Found"),
                             ("HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: nonsense\r\n\r\n", "Sec-WebSocket-Accept"),
                             ("x" * 20000, "something else than HTTP"), ("SSH-2.0", "ended")):
            self.assertIn(says, self.talk(lambda s: None, "publish", "a", "1", status=1, answer=answer)[2])

    def test_urls(self):
        for url in ("ftp://x", "127.0.0.1:8000", "ws://", "ws://[::1", "ws://x:99999/"):
            self.assertIn("write ws://", self.ringcast("publish", "--url", url, "a", "1", status=1)[2])
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            err = self.ringcast("publish", "--url", f"ws://127.0.0.1:{s.getsockname()[1]}", "a", "1", status=1)[2]
        self.assertIn("cannot be reached: Connection refused", err)
        seen = []

        def script(s):
            seen.append(s.head[0])
            s.shake()
            s.send({"rid": s.packet()["cid"]})
            s.goodbye()
        path = str(self.dir / "s")
        server = Server(script, family=socket.AF_UNIX, address=path)
        self.ringcast("publish", "--url", f"unix:{path}", "--sc.path=/other/", "a", "1", status=0)
        server.end()
        self.assertEqual(seen, ["GET /other/ HTTP/1.1"])


@unittest.skipUnless((cli.BIN / "ringcast-worker").exists() and (cli.BIN / "ringcast-broker").exists(),
                     "ringcast-worker and ringcast-broker are not built")
class Real(cli.Case):
    def setUp(self):
        super().setUp()
        for name in ("ringcast-worker", "ringcast-broker"):
            shutil.copy(cli.BIN / name, self.bin / name)

    def test_publish_reaches_subscribe_through_workers_and_brokers(self):
        server = self.start("--worker.count=2", "--broker.count=2")
        at = f"--run.dir={self.run_dir}"
        hearers = []
        for _ in range(4):
            hearers.append(cli.Ringcast([self.bin / "ringcast", "subscribe", at, "--count=20", "chat", "news"],
                                        self.env))
            self.started.append(hearers[-1])
            hearers[-1].wait_line("err", "subscribed to news")
        want = []
        for i in range(10):
            for channel in ("chat", "news"):
                self.ringcast("publish", at, channel, json.dumps({"n": i}), status=0)
                want.append(f'{channel}\t{{"n": {i}}}')
        for h in hearers:
            status, out, err = h.end()
            self.assertEqual(status, 0, err)
            for channel in ("chat", "news"):  # order holds per channel
                self.assertEqual([l for l in out.splitlines() if l.startswith(channel)],
                                 [l for l in want if l.startswith(channel)])
        counters = {name: int(self.ringcast("status", at, "--counter", name, status=0)[1])
                    for name in ("publishes_in_total", "publishes_total", "restarts_total")}
        self.assertEqual(counters, {"publishes_in_total": 20, "publishes_total": 20, "restarts_total": 0})
        status, _, err = server.end(signal.SIGTERM)
        self.assertEqual(status, 0, err)
        self.assertFalse(self.run_dir.exists())

    def test_beside_processes_started_by_hand_it_is_told_where_to_go(self):
        at = f"--run.dir={self.run_dir}"
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            listen = f"--worker.listen=tcp://127.0.0.1:{s.getsockname()[1]}"
        for kind in ("broker", "worker"):
            p = cli.Ringcast([self.bin / f"ringcast-{kind}", at, listen, "--worker.rings=1", "--log.level=info"], self.env)
            self.started.append(p)
            p.wait_line("err", " ready " if kind == "broker" else " attached ")
        err = self.ringcast("publish", at, "chat", "1", status=1)[2]
        self.assertIn(f"no ringcast run has left its address in {self.run_dir}", err)
        self.assertIn("name the server with --url, or give worker.listen as they have it", err)
        self.ringcast("publish", at, listen, "chat", "1", status=0)
        for p in reversed(self.started):
            self.assertEqual(p.end(signal.SIGTERM)[0], 0)

    def test_a_worker_that_cannot_reach_its_broker_says_so_and_why(self):
        at = f"--run.dir={self.run_dir}"

        def by_hand(kind, *words):
            self.started.append(cli.Ringcast([self.bin / f"ringcast-{kind}", at, "--worker.rings=1",
                                              "--worker.listen=tcp://127.0.0.1:0", *words], self.env))
            return self.started[-1]
        worker = by_hand("worker", "--broker.dead_after=500ms")
        line = worker.wait_line("err", " broker-unreachable ")
        self.assertIn(f'broker=0 socket={self.run_dir}/broker-0.sock error="No such file or directory"', line)
        broker = by_hand("broker")
        worker.wait_line("err", " attached ")
        (self.run_dir / "broker-0.sock").chmod(0)  # as with a broker of another user
        second = by_hand("worker", "--worker.index=1", "--broker.dead_after=500ms")
        self.assertIn("Permission denied", second.wait_line("err", " broker-unreachable "))
        (self.run_dir / "broker-0.sock").chmod(0o666)
        second.wait_line("err", " attached ")
        for p in (second, worker, broker):
            p.process.send_signal(signal.SIGUSR1)  # means nothing here, and ends nobody
            self.assertEqual(p.end(signal.SIGTERM)[0], 0)

    @unittest.skipUnless(os.geteuid() == 0, "it takes root to be several users")
    def test_a_default_run_dir_that_another_user_made_is_not_trusted(self):
        for d in (self.dir, self.bin):
            d.chmod(0o755)
        planted = self.dir / "ringcast"
        planted.mkdir()
        os.chown(planted, 65533, 65533)
        (planted / "listen").write_text("tcp://127.0.0.1:1\n")

        def as_other(*words):
            done = subprocess.run([self.bin / words[0], *words[1:]], user=65532, group=65532, extra_groups=[], text=True,
                                  capture_output=True, timeout=cli.PATIENCE, env={**self.env, "XDG_RUNTIME_DIR": str(self.dir)})
            self.assertEqual(done.returncode, 1, done.stderr)
            return done.stderr
        listen = "--worker.listen=unix:/nonexistent"
        self.assertIn("unix:/nonexistent cannot be reached", as_other("ringcast", "publish", listen, "a", "1"))
        for program in ("ringcast-worker", "ringcast-broker"):
            err = as_other(program, "--worker.rings=1", listen)
            self.assertIn(f"{planted} belongs to user 65533 and we are user 65532", err)
        planted.chmod(0o700)
        self.assertIn("cannot be read: it takes the user", as_other("ringcast", "status"))
        self.assertIn("cannot be read", as_other("ringcast", "reload"))

    def test_what_a_process_cannot_begin_with_is_said_with_its_place(self):
        conf = self.dir / "x.conf"
        conf.write_text("[tls]\n\n\ncertificate = /nonexistent.pem\nkey = /nonexistent.pem\n")
        status, _, err = self.start("--config", conf, "--worker.listen=tls://127.0.0.1:0", ready=False).end()
        self.assertEqual(status, 1)
        self.assertIn(f"tls.certificate ({conf}:4): /nonexistent.pem: No such file or directory", err)
        for word, says in (("--broker.index=2", "broker.count (flag --broker.count) is 2"), ("--broker.index=1", None)):
            alone = cli.Ringcast([self.bin / "ringcast-broker", f"--run.dir={self.run_dir}", "--broker.count=2", word], self.env)
            self.started.append(alone)
            if says is None:
                alone.wait_line("err", "ready socket=")
                twin = cli.Ringcast([self.bin / "ringcast-broker", f"--run.dir={self.run_dir}", "--broker.count=2", word], self.env)
                self.started.append(twin)
                self.assertIn("another broker already answers on", twin.end()[2])
            status, _, err = alone.end(None if says else signal.SIGTERM)
            self.assertEqual(status, 0 if says is None else 1)
            self.assertIn(says or "", err)

    def worker_with(self, kind, count):
        """A worker with two rings that a service manager gives one socket of its making."""
        manager = ("import os, socket, sys\n"
                   "s = socket.socket(type=getattr(socket, sys.argv[1]))\n"
                   "s.bind(('127.0.0.1', 0))\n"
                   "if sys.argv[1] == 'SOCK_STREAM': s.listen()\n"
                   "print(s.getsockname()[1], flush=True)\n"
                   "os.dup2(s.fileno(), 3)\n"
                   "os.set_inheritable(3, True)\n"
                   "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=sys.argv[2])\n"
                   "os.execv(sys.argv[3], sys.argv[3:])\n")
        alone = cli.Ringcast([sys.executable, "-c", manager, kind, count, self.bin / "ringcast-worker", "--worker.rings=2",
                              f"--run.dir={self.run_dir}"], self.env)
        self.started.append(alone)
        return alone

    def test_sockets_that_are_handed_over_must_listen_and_are_shared(self):
        for kind, count, says in (("SOCK_DGRAM", "1", "descriptor 3 is no stream socket that listens"),
                                  ("SOCK_STREAM", "2", "descriptor 4 is no stream socket that listens"),
                                  ("SOCK_STREAM", "-1", "LISTEN_FDS is -1"), ("SOCK_STREAM", "x", "LISTEN_FDS is x")):
            status, _, err = self.worker_with(kind, count).end()
            self.assertEqual(status, 1, err)
            self.assertIn(says, err)
        alone = self.worker_with("SOCK_STREAM", "1")
        for ring in range(2):
            alone.wait_line("err", f"worker.0/ring.{ring} ring listeners=1")
        self.assertEqual(alone.end(signal.SIGTERM)[0], 0)

    def test_any_address_is_both_families_for_a_worker_alone_too(self):
        try:
            with socket.create_server(("::", 0), family=socket.AF_INET6) as s:
                port = s.getsockname()[1]
        except OSError:
            self.skipTest("no IPv6 here")
        alone = cli.Ringcast([self.bin / "ringcast-worker", "--worker.rings=1", f"--run.dir={self.run_dir}",
                              f"--worker.listen=tcp://*:{port}"], self.env)
        self.started.append(alone)
        alone.wait_line("err", "ring listeners=1")
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=cli.PATIENCE).close()
        self.assertEqual(alone.end(signal.SIGTERM)[0], 0)

    def test_a_unix_listener_is_told_from_a_port(self):
        server = self.start(f"--worker.listen=unix:{self.dir}/s", preexec=lambda: os.umask(0o077) and None)
        self.assertEqual((self.dir / "s").stat().st_mode & 0o777, 0o666)  # proxies are other users
        self.ringcast("publish", f"--run.dir={self.run_dir}", "a", "1", status=0)
        server.process.send_signal(signal.SIGUSR1)
        status, _, err = server.end(signal.SIGTERM)
        self.assertEqual(status, 0, err)
        (self.dir / "file").write_text("kept")
        alone = cli.Ringcast([self.bin / "ringcast-worker", f"--run.dir={self.run_dir}", f"--worker.listen=unix:{self.dir}/file"],
                             self.env)
        self.started.append(alone)
        self.assertEqual(alone.end()[0], 1)
        self.assertEqual((self.dir / "file").read_text(), "kept")
        self.assertNotIn(" kernel-unsent ", err)  # a limit of TCP


if __name__ == "__main__":
    cli.main()
