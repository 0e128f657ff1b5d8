"""`ringcast hosts` and `ringcast occupancy` against brokers that are stand-ins: what they answer is put together by host,
and what is not whole is said."""

import json
import os
import socket
import threading
import unittest

import cli
from test_status import page

MAGIC = b"RCSASK 1"


class FakeBroker:
    """Listens where a broker would. `answers`: question -> pieces to send."""

    def __init__(self, run_dir, index, answers):
        self.answers, self.asked = answers, []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(run_dir / f"broker-{index}.sock"))
        self.socket.listen(4)
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            with peer:
                said = peer.recv(8192)
                if said[:8] != MAGIC:
                    continue
                self.asked.append(said[8:].decode())
                for piece in self.answers.get(said[8:].decode(), []):
                    peer.send(piece.encode())

    def end(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(cli.PATIENCE)


def host(id_, broker, **more):
    row = {"epoch": "00000001", "broker": broker, "brokers": 2, "self": 0, "state": "up", "age_ms": 100, "lost": 0,
           "uptime_s": 4000, "rings": 2, "connections": 10, "channels": 3, "published": 5, "delivered": 50, "cpu": 120,
           "release": "0.1.0", "name": f"h{id_}", **more}
    return f"host id={id_ * 8:0<16} " + " ".join(f"{k}={v}" for k, v in row.items()) + "\n"


def count(id_, broker, **more):
    row = {"broker": broker, "self": 0, "answered": 1, "count": 0, "silent": 0, "name": f"h{id_}", **more}
    return f"count id={id_ * 8:0<16} " + " ".join(f"{k}={v}" for k, v in row.items()) + "\n"


BUS = "bus kind=redis state=up since_ms=61000 deaf=0 brokers=3\nredis 127.0.0.1:6379 up subscribed=3\nend\n"


class Hosts(cli.Case):
    def brokers(self, *answers):
        (self.run_dir / "stat").mkdir(parents=True)
        for i, a in enumerate(answers):
            (self.run_dir / "stat" / f"broker-{i}").write_bytes(page("broker", i, -1, [("peers", 1)]))
            if a is None:
                continue
            fake = FakeBroker(self.run_dir, i, a)
            self.addCleanup(fake.end)
            yield fake

    def said(self, *words, status=0):
        _, out, err = self.ringcast(*words, f"--run.dir={self.run_dir}", status=status)
        return out, err

    def test_brokers_of_a_host_are_one_row(self):
        answer = host("a", 0, self=1) + host("a", 1) + host("b", 0, age_ms=2500, connections=7) + host(
            "b", 1, connections=7, uptime_s=90) + host("c", 0, state="conflict") + host("c", 0, epoch="00000002")
        fakes = list(self.brokers({"hosts": [answer[:100], answer[100:], "end\n"], "bus": [BUS]}))
        out, err = self.said("hosts")
        self.assertEqual(err, "")
        rows = {l.split()[0]: l.split() for l in out.splitlines() if l.strip()}
        self.assertEqual(rows["ha"][2:], ["2/2", "0.1.0", "1h6m", "here", "up", "10", "6", "10", "100", "24%"])
        self.assertEqual(rows["hb"][2:], ["2/2", "0.1.0", "1h6m", "2.5s", "up", "7", "6", "10", "100", "24%"])
        self.assertEqual(rows["hc"][6], "conflict")
        self.assertIn("bus kind=redis state=up", out)
        self.assertIn("  redis 127.0.0.1:6379 up subscribed=3\n", out)
        said = json.loads(self.said("hosts", "--json")[0])
        self.assertEqual(said["bus"], {"kind": "redis", "state": "up", "since_ms": 61000, "deaf": False})
        self.assertEqual([h["name"] for h in said["hosts"]], ["ha", "hb", "hc"])
        self.assertEqual((said["hosts"][1]["heard_ms"], said["hosts"][1]["brokers_heard"], said["hosts"][1]["cpu"]), (2500, 2, 0.24))
        self.assertTrue(said["hosts"][0]["self"] and not said["hosts"][1]["self"])
        self.assertEqual(fakes[0].asked, ["hosts", "bus", "hosts", "bus"])

    def test_a_replaced_process_counts_for_nothing(self):
        list(self.brokers({"hosts": [host("a", 0, self=1) + host("b", 0, state="replaced", connections=99) + host("b", 0), "end\n"],
                           "bus": [BUS]}))
        said = json.loads(self.said("hosts", "--json")[0])["hosts"][1]
        self.assertEqual((said["state"], said["brokers_heard"], said["connections"]), ("replaced", 1, 10))

    def test_texts_of_others_do_no_harm(self):
        list(self.brokers({"hosts": [host("a", 0, self=1, name='x"\x1b[2J\\', release="\t") + "host\n" + "nonsense\n", "end\n"],
                           "bus": ["end\n"]}))
        self.assertEqual(json.loads(self.said("hosts", "--json")[0])["hosts"][0]["name"], "x??[2J?")
        self.assertNotIn("\x1b", self.said("hosts")[0])

    def test_a_dead_broker_is_passed_over_and_a_cut_answer_is_none(self):
        list(self.brokers(None, {"hosts": [host("a", 1, self=1), "end\n"], "bus": [BUS]}))
        self.assertIn("ha ", self.said("hosts")[0])

    def test_an_answer_without_its_end_is_refused(self):
        list(self.brokers({"hosts": [host("a", 0, self=1)]}))
        out, err = self.said("hosts", status=1)
        self.assertEqual(out, "")
        self.assertIn("broker 0 gave no whole answer", err)

    def test_nothing_runs(self):
        _, err = self.said("hosts", status=1)
        self.assertIn("nothing runs in", err)
        _, err = self.said("hosts", "--jsn", status=1)
        self.assertIn("--jsn is no option of ringcast hosts", err)

    def test_occupancy_is_summed(self):
        answer = count("a", 0, self=1, count=3) + count("b", 0) + count("b", 1, count=40)
        list(self.brokers({"occupancy my news": [answer, "end\n"]}))
        out, err = self.said("occupancy", "my news")
        self.assertEqual(err, "")
        self.assertRegex(out, r"(?m)^hb +b+0+ +40$")
        self.assertRegex(out, r"(?m)^all +43$")
        said = json.loads(self.said("occupancy", "my news", "--json")[0])
        self.assertEqual((said["subscribers"], said["whole"], len(said["hosts"])), (43, True, 2))

    def test_the_owner_is_asked(self):
        fakes = list(self.brokers({"occupancy x": ["elsewhere broker=1\n", "end\n"]}, {"occupancy x": [count("a", 1, count=2), "end\n"]}))
        self.assertEqual(json.loads(self.said("occupancy", "x", "--json")[0])["subscribers"], 2)
        self.assertEqual((fakes[0].asked, fakes[1].asked), (["occupancy x"], ["occupancy x"]))

    def test_what_is_not_whole_is_said(self):
        answer = count("a", 0, self=1, count=3, silent=1) + count("b", 0, answered=0) + "error the bus did not take it\n"
        list(self.brokers({"occupancy x": [answer, "end\n"]}))
        out, err = self.said("occupancy", "x", status=1)
        self.assertRegex(out, r"(?m)^ha .* 3  not all rings answered$")
        self.assertRegex(out, r"(?m)^hb .* 0  did not answer$")
        self.assertRegex(out, r"(?m)^all +3  or more$")
        self.assertIn("ringcast: the bus did not take it", err)
        said = json.loads(self.said("occupancy", "x", "--json", status=1)[0])
        self.assertEqual((said["whole"], [h["whole"] for h in said["hosts"]]), (False, [False, False]))

    def test_a_channel_is_asked_for(self):
        _, err = self.said("occupancy", status=1)
        self.assertIn("ringcast occupancy CHANNEL", err)


if __name__ == "__main__":
    cli.main()
