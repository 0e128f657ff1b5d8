"""`ringcast status` over counter pages written by hand, byte by byte as common/metric.h describes them:
of living, stuck and dead processes, and of files that are no pages at all."""

import json
import os
import re
import struct
import subprocess
import time
import unittest

import cli

MAGIC = 0x3152544D54534352


def page(process, index, ring, rows, pid=None, beat_ago_s=0.0, magic=MAGIC, version=1, count=None):
    names = b"".join(struct.pack("48sII", n.encode(), 0, 0) for n, _ in rows)
    values_at = (96 + len(names) + 63) // 64 * 64
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    head = struct.pack("<QIIIIiIiIQQQ16s16s", magic, version, len(rows) if count is None else count, 96,
                       values_at, os.getpid() if pid is None else pid, index, ring, 0,
                       max(0, now - 90 * 10**9), 1700000000, max(0, now - int(beat_ago_s * 1e9)),
                       process.encode(), b"9.9.9")
    body = (head + names).ljust(values_at, b"\0") + struct.pack(f"<{len(rows)}Q", *(v for _, v in rows))
    return body.ljust(4096, b"\0")


class Status(cli.Case):
    def write(self, name, data):
        (self.run_dir / "stat").mkdir(parents=True, exist_ok=True)
        (self.run_dir / "stat" / name).write_bytes(data)

    def status(self, *words, status=0):
        return self.ringcast("status", f"--run.dir={self.run_dir}", *words, status=status)

    def ring(self, **values):
        return list(values.items())

    def test_tables(self):
        self.write("worker-0.0", page("worker", 0, 0, self.ring(
            connections=3, subscriptions=5, messages_in_total=70, bytes_in_total=123456789,
            dropped_slow_total=2, close_drain=4, close_protocol=0, lane_used_bytes=17)))
        self.write("worker-0.1", page("worker", 0, 1, self.ring(
            connections=4, subscriptions=6, messages_in_total=80, bytes_in_total=1,
            dropped_slow_total=3, close_drain=5, close_protocol=0, lane_used_bytes=18)))
        self.write("broker-0", page("broker", 0, -1, self.ring(
            peers=2, channels=9, publishes_total=150, lane_used_bytes=0, dropped_total=6), beat_ago_s=9))
        dead = subprocess.Popen(["true"])
        dead.wait()
        self.write("worker-1.0", page("worker", 1, 0, self.ring(connections=1), pid=dead.pid))
        _, out, err = self.status()
        self.assertEqual(err, "")
        rows = {l.split()[0]: l.split() for l in out.splitlines() if l.strip()}
        head = [l for l in out.splitlines() if "CONNS" in l][0].split()
        at = {name: i for i, name in enumerate(head)}
        self.assertEqual(rows["worker.0/0"][at["STATE"]], "ok")
        self.assertEqual(rows["worker.0/0"][at["UP"]], "1m30s")
        self.assertEqual(rows["worker.0/0"][at["BYTES-IN"]], "117.7Mi")
        self.assertEqual(rows["worker.0/1"][at["LANES"]], "18")
        self.assertEqual(rows["worker.1/0"][at["STATE"]], "DEAD")
        self.assertEqual(rows["worker.1/0"][at["SUBS"]], "-")
        self.assertEqual(rows["broker.0"][4], "STUCK")
        self.assertEqual(rows["all"][1], "8")  # connections, the dead one's too
        self.assertRegex(out, r"(?m)^  worker +dropped_slow_total +5$")
        self.assertRegex(out, r"(?m)^  broker +dropped_total +6$")
        self.assertRegex(out, r"(?m)^  worker +close_drain +9$")
        self.assertNotIn("close_protocol", out)

    def test_limits_that_were_reached_are_no_settings(self):
        self.write("run-0", page("run", 0, -1, self.ring(limit_sc_packet_rate=100, restarts_total=1)))
        self.write("worker-0.0", page("worker", 0, 0, self.ring(limit_sc_packet_rate_total=7, tls_failed_total=3)))
        self.write("broker-0", page("broker", 0, -1, self.ring(missed_full_total=5, redis_failures_total=2)))
        lost = r"(?s)Lost, refused, held back:\n((?:  [^\n]*\n)+)"
        for words in ((), ("--limits",)):
            out = self.status(*words)[1]
            names = [l.split()[1] for l in re.search(lost, out)[1].splitlines()]
            self.assertEqual(sorted(names), ["limit_sc_packet_rate_total", "missed_full_total", "redis_failures_total",
                                             "restarts_total", "tls_failed_total"])
            self.assertEqual("limit_sc_packet_rate  " in out, bool(words))

    def test_compression_has_its_ratio(self):
        mine = dict(deflate_connections=3, deflate_takeover=1, deflate_bytes=300000, deflate_in_messages_total=7,
                    deflate_in_plain_bytes_total=1000, deflate_in_packed_bytes_total=500, deflate_out_messages_total=2,
                    deflate_out_plain_bytes_total=40960, deflate_out_packed_bytes_total=10240)
        self.write("worker-0.0", page("worker", 0, 0, self.ring(**mine)))
        self.write("worker-0.1", page("worker", 0, 1, self.ring(**mine)))
        out = self.status()[1]
        self.assertIn("Compression: 6 connections, 2 with context of their own, 585.9Ki bytes of streams\n", out)
        self.assertRegex(out, r"(?m)^  received +14 messages +2000 bytes as +1000 \(50%\)$")
        self.assertRegex(out, r"(?m)^  sent +4 messages +80.0Ki bytes as +20.0Ki \(25%\)$")
        self.write("worker-0.0", page("worker", 0, 0, self.ring(**dict.fromkeys(mine, 0))))
        self.write("worker-0.1", page("worker", 0, 1, self.ring(**dict.fromkeys(mine, 0))))
        self.assertNotIn("Compression", self.status()[1])

    def test_json_has_everything(self):
        self.write("worker-3.2", page("worker", 3, 2, self.ring(connections=3, close_drain=0)))
        self.write("broker-1", page("broker", 1, -1, self.ring(channels=2**64 - 1)))
        _, out, _ = self.status("--json")
        said = json.loads(out)
        self.assertEqual(said["bad_pages"], 0)
        broker, worker = said["pages"]
        self.assertEqual((worker["process"], worker["index"], worker["ring"]), ("worker", 3, 2))
        self.assertEqual((worker["pid"], worker["state"], worker["release"]), (os.getpid(), "ok", "9.9.9"))
        self.assertEqual(worker["counters"], {"connections": 3, "close_drain": 0})
        self.assertGreaterEqual(worker["uptime_ms"], 90000)
        self.assertIsNone(broker["ring"])
        self.assertEqual(broker["counters"]["channels"], 2**64 - 1)

    def test_the_bus_has_a_line_of_each_broker(self):
        bus = dict(bus_state=3, bus_state_ms=90000, hosts=3, host_brokers=6, hosts_deaf=0, redis_links=2, redis_queue_bytes=0,
                   gaps_total=4, gap_messages_total=17)
        self.write("broker-0", page("broker", 0, -1, self.ring(**bus)))
        self.write("broker-1", page("broker", 1, -1, self.ring(**{**bus, "bus_state": 1, "hosts_deaf": 1, "redis_queue_bytes": 20480})))
        out = self.status()[1]
        self.assertIn("Bus:\n  broker.0   up     for 1m30s, 2 links, 0 bytes queued; 3 hosts (6 brokers); told 4 gaps (17 messages)\n", out)
        self.assertIn("  broker.1   down   for 1m30s, 2 links, 20.0Ki bytes queued; 3 hosts (6 brokers); told 4 gaps (17 messages); "
                      "OWN HEARTBEATS DO NOT COME BACK\n", out)
        said = json.loads(self.status("--json")[1])["bus"]
        self.assertEqual(said[0], {"broker": 0, "state": "up", "since_ms": 90000, "whole": True, "links": 2, "queued_bytes": 0,
                                   "hosts": 3, "gaps": 4, "missed": 17})
        self.assertEqual((said[1]["state"], said[1]["whole"]), ("down", False))
        self.write("broker-0", page("broker", 0, -1, self.ring(**{**bus, "bus_state": 0})))
        self.write("broker-1", page("broker", 1, -1, self.ring(channels=1)))
        self.assertNotIn("Bus:", self.status()[1])
        self.assertEqual(json.loads(self.status("--json")[1])["bus"], [])

    def test_one_counter_summed(self):
        self.write("worker-0.0", page("worker", 0, 0, self.ring(connections=3)))
        self.write("worker-0.1", page("worker", 0, 1, self.ring(connections=4)))
        self.assertEqual(self.status("--counter", "connections")[1], "7\n")
        self.assertEqual(self.status("--counter=connections")[1], "7\n")
        _, out, err = self.status("--counter", "conections", status=1)
        self.assertEqual(out, "")
        self.assertIn("no process has a counter conections", err)

    def test_files_that_are_no_pages_are_said_and_do_no_harm(self):
        self.write("worker-0.0", page("worker", 0, 0, self.ring(connections=3)))
        self.write("worker-0.1", page("worker", 0, 1, self.ring(connections=3), magic=1))
        self.write("worker-0.2", page("worker", 0, 2, self.ring(connections=3), count=2**32 - 1))
        self.write("worker-0.3", page("worker", 0, 3, self.ring(connections=3), version=2))
        self.write("worker-0.4", page("worker", 0, 4, self.ring(connections=3))[:100])
        self.write("worker-0.5", b"")
        self.write("worker-0.6", os.urandom(5000))
        self.assertIn("6 files in stat/ are no counter pages", self.status()[1])
        self.assertEqual(json.loads(self.status("--json")[1])["bad_pages"], 6)
        self.write("worker-0.0", page('w"\\\x1b[2J', 0, 0, [('a"b\n', 1)]))
        self.assertEqual(json.loads(self.status("--json")[1])["pages"][0]["counters"], {"a?b?": 1})

    def test_nothing_runs(self):
        _, out, err = self.status(status=1)
        self.assertEqual(out, "")
        self.assertIn(f"nothing runs in {self.run_dir} (flag --run.dir)", err)


if __name__ == "__main__":
    cli.main()
