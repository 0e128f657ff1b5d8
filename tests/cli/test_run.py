"""`ringcast run` with stand-ins for workers and brokers: what it hands them, when it calls itself ready,
how it restarts and how it stops them, and its sentences when it can't start."""

import ctypes
import json
import os
import re
import signal
import socket
import struct
import time

import cli


def forbid_io_uring(error):
    """In the child: io_uring_setup fails with this error, as under a container's seccomp profile."""
    libc = ctypes.CDLL(None, use_errno=True)
    rows = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x00050000 | error), (0x06, 0, 0, 0x7fff0000)]
    code = b"".join(struct.pack("HBBI", *r) for r in rows)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(rows), ctypes.addressof(buffer))
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, ctypes.create_string_buffer(program), 0, 0) != 0:
        os._exit(99)


class Start(cli.Case):
    def test_each_worker_gets_a_socket_per_ring_and_listener(self):
        unix = self.dir / "s"
        r = self.start(f"--worker.listen=tcp://127.0.0.1:0,unix:{unix}", "--worker.count=2",
                       "--worker.rings=2", "--broker.count=2")
        port = int(re.fullmatch(rf"ringcast: ready on tcp://127.0.0.1:(\d+) unix:{unix}", r.ready)[1])
        self.assertNotIn("try it", r.text("out"))
        inodes = []
        for i in range(2):
            (fds,) = self.log(f"worker.{i}", "fds")
            self.assertEqual(fds[3:], ["True", "4", "ring0:ring0:ring1:ring1"])
            tcp, shared = [], []
            for row in self.log(f"worker.{i}", "socket"):
                (tcp if "127.0.0.1" in " ".join(row) else shared).append(row)
            self.assertEqual([f"{t[3]} {t[4]}" for t in tcp], [f"('127.0.0.1', {port})"] * 2)
            self.assertEqual([t[5] for t in tcp], ["1", "1"])
            inodes += [t[6] for t in tcp]
            self.assertEqual(len({s[5] for s in shared}), 1)  # UNIX: the same socket for both rings
            self.assertIn(f"--worker.index={i}", self.log(f"worker.{i}", "argv")[0])
        self.assertEqual(len(set(inodes)), 4)
        for i in range(2):
            self.assertEqual(self.log(f"broker.{i}", "fds")[0][3:], ["False", "0", "none"])
            self.assertIn(f"--broker.index={i}", self.log(f"broker.{i}", "argv")[0])
        status, out, err = r.end(signal.SIGTERM)
        self.assertEqual(status, 0, err)
        self.assertFalse(self.run_dir.exists() or unix.exists())

    def test_children_get_the_same_settings(self):
        conf = self.dir / "x.conf"
        conf.write_text("[sc]\nping_interval = 1s\n")
        os.chdir(self.dir)
        r = self.start("--config", "x.conf", "--log.level=debug", "--worker.rings=0")
        for who in ("worker.0", "broker.0"):
            argv = self.log(who, "argv")[0]
            self.assertIn(str(conf.resolve()), argv)
            self.assertIn("--log.level=debug", argv)
            self.assertEqual(argv[-3], f"--worker.rings={len(os.sched_getaffinity(0))}")
            self.assertEqual(argv[-2], f"--run.dir={self.run_dir}")
        r.end(signal.SIGTERM)

    def test_a_line_says_where_to_try_it(self):
        r = self.start("--http.playground=on")
        url = r.wait_line("out", "ringcast: try it at ")
        port = r.ready.rsplit(":", 1)[1]
        self.assertEqual(url, f"ringcast: try it at http://127.0.0.1:{port}/")
        r.end(signal.SIGTERM)

    def test_it_is_not_ready_before_all_are(self):
        self.ask("worker.1", "mute")
        r = self.start("--worker.count=2", ready=False)
        self.wait_log("worker.1", "up")
        r.wait_line("err", "child-ready name=worker.0")
        r.wait_line("err", "child-ready name=broker.0")
        self.assertEqual(r.text("out"), "")
        (self.bin / "worker.1.mute").unlink()
        os.kill(int(self.wait_log("worker.1", "up")[1]), signal.SIGKILL)
        r.wait_line("out", "ringcast: ready on ")
        r.end(signal.SIGTERM)

    def test_closed_streams_are_nobody_elses(self):
        r = self.start(preexec=lambda: os.closerange(0, 3), ready=False)
        for who in ("worker.0", "broker.0"):
            self.wait_log(who, "up")
        os.kill(int(self.wait_log("worker.0", "up")[1]), signal.SIGKILL)  # something to say
        pid = int(self.wait_log("worker.0", "up", 2)[1])
        self.assertEqual((self.run_dir / "lock").read_text(), f"{r.process.pid}\n")
        for fd in range(3):
            for process in (r.process.pid, pid):
                self.assertEqual(os.readlink(f"/proc/{process}/fd/{fd}"), "/dev/null")
        self.assertEqual(r.end(signal.SIGTERM)[0], 0)

    def test_the_service_manager_is_told(self):
        path = str(self.dir / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(path)
            manager.settimeout(cli.PATIENCE)
            r = self.start(env={"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"})
            said = b""
            while b"READY=1" not in said:
                said = manager.recv(500)
            while b"WATCHDOG=1" not in said:
                said = manager.recv(500)
            r.process.send_signal(signal.SIGTERM)
            while b"STOPPING=1" not in said:
                said = manager.recv(500)
            r.end()
        self.assertEqual(self.log("", "inherited"), [])  # children speak for themselves only when alone


class Refused(cli.Case):
    def refused(self, *words, **options):
        r = self.start(*words, ready=False, **options)
        status, out, err = r.end()
        self.assertEqual((status, out), (1, ""), err)
        return err

    def test_a_taken_port(self):
        for share in (0, 1):
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
                other.bind(("127.0.0.1", 0))
                other.listen()
                port = other.getsockname()[1]
                err = self.refused(f"--worker.listen=tcp://127.0.0.1:{port}", "--worker.count=2")
                self.assertIn("worker.listen (flag --worker.listen)", err)
                self.assertIn(f"tcp://127.0.0.1:{port} is in use", err)
        self.assertEqual(self.log(), [])
        self.assertFalse(self.run_dir.exists())

    def test_a_directory_in_use(self):
        r = self.start()
        err = self.refused()
        self.assertIn(f"run.dir (flag --run.dir): {self.run_dir} is used by another", err)
        self.assertIn(f"pid {r.process.pid}", err)
        self.assertTrue((self.run_dir / "lock").exists())
        r.end(signal.SIGTERM)

    def test_a_directory_that_others_may_write_to(self):
        self.run_dir.mkdir()
        self.run_dir.chmod(0o777)
        self.assertIn("chmod 700", self.refused())
        self.run_dir.chmod(0o755)
        self.start().end(signal.SIGTERM)
        self.assertTrue(self.run_dir.exists())  # it was there before
        self.assertEqual(os.listdir(self.run_dir), [])

    def test_io_uring_forbidden(self):
        err = self.refused(preexec=lambda: forbid_io_uring(1))
        self.assertIn("kernel.io_uring_disabled", err)
        self.assertIn("seccomp", err)
        err = self.refused(preexec=lambda: forbid_io_uring(38))
        self.assertIn("6.1", err)

    def test_a_missing_program(self):
        (self.bin / "ringcast-broker").unlink()
        self.assertIn("ringcast-broker cannot be started", self.refused())

    def test_a_child_that_cannot_start(self):
        for who in ("worker.1", "broker.0"):
            self.ask(who, "fails")
            err = self.refused("--worker.count=2")
            self.assertIn("stand-in: told to fail", err)
            self.assertIn(f"ringcast: {who} cannot start: it ended with status 1", err)
            (self.bin / f"{who}.fails").unlink()
            for row in self.log():
                self.assert_gone(row[1])
            self.assertFalse(self.run_dir.exists())


class Restart(cli.Case):
    def test_what_dies_is_restarted_at_once_and_then_after_a_pause(self):
        r = self.start("--worker.count=2")
        port = int(r.ready.rsplit(":", 1)[1])
        sockets = self.log("worker.0", "socket")
        os.kill(int(self.wait_log("worker.0", "up")[1]), signal.SIGKILL)
        began = time.monotonic()
        second = self.wait_log("worker.0", "up", 2)
        r.wait_line("err", "child-died name=worker.0")
        line = r.wait_line("err", "child-died name=worker.0")
        self.assertIn('how="signal 9 (Killed)"', line)
        self.assertIn("restart_ms=0", line)
        self.assertEqual(self.log("worker.0", "socket")[1][3:], sockets[0][3:])  # the very same socket
        r.wait_line("err", "whole")
        os.kill(int(second[1]), signal.SIGKILL)
        self.assertIn("restart_ms=1000", r.wait_line("err", "child-died name=worker.0", 2))
        # while it pauses nobody is refused: the kernel keeps the connection until it is back
        for _ in range(8):
            socket.create_connection(("127.0.0.1", port), timeout=cli.PATIENCE).close()
        self.wait_log("worker.0", "up", 3)
        self.assertGreaterEqual(time.monotonic() - began, 1.0)
        r.wait_line("err", "whole", 2)
        os.kill(int(self.log("broker.0", "up")[0][1]), signal.SIGKILL)
        self.wait_log("broker.0", "up", 2)
        self.assertEqual(self.ringcast("status", f"--run.dir={self.run_dir}", "--counter", "restarts_total",
                                       status=0)[1], "3\n")
        self.assertEqual(len(self.log("worker.1", "up")), 1)
        self.assertEqual(r.end(signal.SIGTERM)[0], 0)

    def test_the_pause_has_a_bound(self):
        r = self.start("--run.backoff_max=1s")
        for i in range(1, 4):
            os.kill(int(self.wait_log("worker.0", "up", i)[1]), signal.SIGKILL)
            line = r.wait_line("err", "child-died", i)
            self.assertIn("restart_ms=0" if i == 1 else "restart_ms=1000", line)
        self.wait_log("worker.0", "up", 4)
        r.end(signal.SIGTERM)


class Stop(cli.Case):
    def test_workers_first_then_brokers(self):
        self.ask("worker.0", "stays")
        r = self.start("--worker.count=2", "--broker.count=2")
        r.process.send_signal(signal.SIGTERM)
        self.wait_log("worker.0", "signal")
        self.wait_log("worker.1", "signal")
        r.wait_line("err", "child-ended name=worker.1")
        self.assertEqual(self.log("broker", "signal"), [])
        os.kill(int(self.wait_log("worker.0", "up")[1]), signal.SIGKILL)
        status, _, err = r.end()
        self.assertEqual(status, 0, err)
        self.assertEqual([row[3] for row in self.log("broker", "signal")], ["SIGTERM"] * 2)
        self.assertEqual(len(self.log("worker.1", "up")), 1)  # nothing is restarted any more

    def test_sigint_stops_too_and_the_children_hear_of_it_from_us_alone(self):
        r = self.start()
        self.assertNotEqual(os.getpgid(int(self.wait_log("worker.0", "up")[1])), os.getpgid(r.process.pid))
        self.assertEqual(r.end(signal.SIGINT)[0], 0)
        self.assertEqual([row[3] for row in self.log("", "signal")], ["SIGTERM"] * 2)

    def test_a_second_signal_ends_it_at_once(self):
        self.ask("worker.0", "stays")
        r = self.start()
        r.process.send_signal(signal.SIGTERM)
        self.wait_log("worker.0", "signal")
        status, _, err = r.end(signal.SIGTERM)
        self.assertEqual(status, 1)
        self.assertIn("stop-forced", err)
        self.assert_gone(self.log("worker.0", "up")[0][1])
        self.assertFalse(self.run_dir.exists())

    def test_a_worker_that_overstays_is_killed(self):
        self.ask("worker.0", "stays")
        r = self.start("--run.drain_timeout=100ms")
        status, _, err = r.end(signal.SIGTERM)
        self.assertEqual(status, 1)
        self.assertIn("stop-forced workers=1", err)

    def test_its_own_death_leaves_no_orphans_and_brokers_outlive_the_drain(self):
        self.ask("worker.0", "stays")  # deaf to SIGTERM: only the pipe tells it
        pause = self.bin / "worker.0.lingers"  # it drains until somebody writes here
        os.mkfifo(pause)
        r = self.start("--worker.count=2")
        r.process.kill()
        r.process.wait(cli.PATIENCE)
        self.wait_log("worker.0", "orphaned")
        self.assert_gone(self.log("worker.1", "up")[0][1])
        self.assertEqual(self.log("broker", "orphaned") + self.log("", "signal"), [])
        with open(pause, "w") as f:
            pause.unlink()
            f.write("on")
        for row in self.log("", "up"):
            self.assert_gone(row[1])
        self.assertEqual(len(self.log("broker", "orphaned")), 1)
        r.end()
        (self.bin / "worker.0.stays").unlink()
        # the next one finds the directory and the lock of the dead one, and takes them over
        self.start().end(signal.SIGTERM)


class Reload(cli.Case):
    def test_sighup_reaches_the_children_unless_the_file_is_bad(self):
        conf = self.dir / "x.conf"
        conf.write_text("[sc]\nping_interval = 1s\n")
        r = self.start("--config", str(conf))
        conf.write_text("[sc]\nping_interval = 2s\n[worker]\ncount = 2\n")
        r.process.send_signal(signal.SIGHUP)
        r.wait_line("err", "conf-changed setting=sc.ping_interval value=2s")
        r.wait_line("err", "conf-needs-restart setting=worker.count value=2 running=1")
        self.assertEqual(self.wait_log("worker.0", "signal")[3], "SIGHUP")
        self.assertEqual(self.wait_log("broker.0", "signal")[3], "SIGHUP")
        self.assertEqual(self.ringcast("status", f"--run.dir={self.run_dir}", "--counter",
                                       "limit_sc_ping_interval", status=0)[1], "2000\n")
        conf.write_text("[sc]\nping_interval = soon\n")
        r.process.send_signal(signal.SIGHUP)
        self.assertIn("x.conf:2", r.wait_line("err", "not-reloaded"))
        self.assertEqual(r.end(signal.SIGTERM)[0], 0)
        self.assertEqual([row[3] for row in self.log("worker.0", "signal")], ["SIGHUP", "SIGTERM"])

    def test_limits_show_in_the_page(self):
        r = self.start("--sc.max_channels=77")
        _, out, _ = self.ringcast("status", "--json", f"--run.dir={self.run_dir}", status=0)
        (page,) = [p for p in json.loads(out)["pages"] if p["process"] == "run"]
        self.assertEqual(page["counters"]["limit_sc_max_channels"], 77)
        self.assertEqual(page["counters"]["processes_ready"], 2)
        r.end(signal.SIGTERM)


if __name__ == "__main__":
    cli.main()
