#!/usr/bin/env python3
"""Tests of what bench/compare and bench/run conclude from figures: no server, no time. A rival that is ahead must be said to be."""
import importlib.machinery
import importlib.util
import math
import pathlib
import sys
import tempfile
import types
import unittest
import xml.dom.minidom

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
sys.dont_write_bytecode = True

from harness import peers, rivals, stats, svg  # noqa: E402


def run(rate, cpu, ok=True, p50=100, packed=0, deflate=False):
    figures = {"per_second": rate, "cpu_us_per_unit": cpu, "p50_us": p50, "p99_us": 3 * p50, "server_core": 1, "load_core": 0.5}
    return {"median": figures, "ok": ok, "deflate": deflate, "packed": packed, "quantiles": [0, 0.5, 1],
            "repeats": [{"at_us": [p50 / 2, p50, 2 * p50]}]}


def document(ours, theirs, **more):
    machine = {"date": "2026-01-01", "cpu": "x", "cores": 2, "memory_kib": 1 << 20, "kernel": "6", "openssl": "3"}
    return {"machine": machine, "others_cores": [0.0], "server_cpu": 0, "cpu": 1, "rounds": len(ours), "duration_s": 1,
            "titles": {"ringcast": "Ringcast", "rival": "Rival", "slow": "Slow"},
            "peers": {k: {"version": "1", "settings": "none"} for k in ("ringcast", "rival", "slow")},
            "steps": [{"name": "full", "title": "Full speed", "mode": "ws", "words": [], "figures": [rivals.RATE, rivals.CPU]}],
            "runs": {"full": {"ringcast": ours, "rival": theirs, "slow": [run(1, 1000)] * len(ours)}}, "curve": {}, "idle": {}, **more}


class Statistics(unittest.TestCase):
    def test_the_interval_is_students(self):
        middle, half = stats.interval([1.0, 2.0, 3.0])
        self.assertAlmostEqual(middle, 2)
        self.assertAlmostEqual(half, 4.303 / math.sqrt(3), places=3)
        self.assertIsNone(stats.interval([1.0]))
        self.assertEqual(stats.t95(1000), 2.0)

    def test_rounds_are_paired(self):
        # The machine got three times slower; the ratio did not change.
        middle, low, high = stats.ratio([30, 10, 20], [15, 5, 10], 1)
        self.assertAlmostEqual(middle, 2)
        self.assertAlmostEqual(low, high)

    def test_less_is_better_where_it_is(self):
        self.assertAlmostEqual(stats.ratio([1], [4], -1)[0], 4)
        self.assertIsNone(stats.ratio([0], [4], -1))

    def test_a_verdict_needs_an_interval_beyond_one(self):
        self.assertEqual(stats.verdict(stats.ratio([10, 11, 12], [5, 6, 5], 1)), stats.OURS)
        self.assertEqual(stats.verdict(stats.ratio([5, 6, 5], [10, 11, 12], 1)), stats.THEIRS)
        self.assertEqual(stats.verdict(stats.ratio([5, 10, 20], [10, 10, 10], 1)), stats.EVEN)


class Report(unittest.TestCase):
    def test_a_rival_that_is_ahead_is_named_in_bold(self):
        doc = document([run(100, 2), run(101, 2), run(99, 2)], [run(300, 1), run(310, 1), run(290, 1)])
        self.assertIn("| **Rival** |", rivals.markdown(doc, {}))
        self.assertIn('<td class="no">Rival</td>', rivals.page(doc))

    def test_the_best_rival_is_chosen_for_each_figure(self):
        doc = document([run(100, 2)] * 3, [run(50, 4)] * 3)
        self.assertEqual([row[3] for row in rivals.judge(doc)], ["rival", "rival"])
        doc["runs"]["full"]["slow"] = [run(70, 9)] * 3
        self.assertEqual([row[3] for row in rivals.judge(doc)], ["slow", "rival"])

    def test_ringcast_ahead(self):
        text = rivals.markdown(document([run(100, 2), run(101, 2), run(99, 2)], [run(50, 4), run(51, 4), run(49, 4)]), {})
        self.assertNotIn("**Rival**", text)
        self.assertIn("| Ringcast |", text)

    def test_losses_are_marked(self):
        doc = document([run(100, 2)], [run(300, 1, ok=False)])
        self.assertIn("(not clean)", rivals.markdown(doc, {}))

    def test_uncompressed_is_marked(self):
        doc = document([run(100, 2, packed=5, deflate=True)], [run(300, 1, deflate=True)])
        self.assertEqual(rivals.markdown(doc, {}).count("nothing came compressed"), 2)

    def test_memory_counts_once(self):
        doc = document([run(100, 2)], [run(50, 4)], idle_connections=9,
                       idle={"ringcast": {"private_per_connection": 300}, "rival": {"private_per_connection": 200}})
        row = rivals.judge(doc)[-1]
        self.assertEqual(row[3], "rival")
        self.assertEqual(row[-1], stats.THEIRS)

    def test_without_uwebsockets_the_next_best_counts(self):
        doc = document([run(100, 2)] * 3, [run(300, 1)] * 3)
        for key in ("titles", "peers"):
            doc[key]["uws"] = doc[key].pop("rival")
        doc["runs"]["full"]["uws"] = doc["runs"]["full"].pop("rival")
        self.assertEqual([row[3] for row in rivals.judge(doc)], ["uws", "uws"])
        self.assertEqual([row[3] for row in rivals.judge(doc, ("uws",))], ["slow", "slow"])
        self.assertEqual([len(rows) for _, rows in rivals.comparisons(doc)], [2, 2])

    def test_half_of_the_most_that_was_delivered(self):
        a = types.SimpleNamespace(subscribers=10, duration=1, warmup=1, wants=lambda name: name == "half")
        step = rivals.half_step(a, {"ringcast": [{"per_second": 40000}, {"per_second": 90000}], "rival": [{"per_second": 1e6}]})
        self.assertIn("--rate=45000", step[3])
        self.assertIsNone(rivals.half_step(a, {}))

    def test_a_rate_far_above_what_one_can_is_not_offered(self):
        curve = {"ringcast": [{"per_second": 8e6}], "nats": [{"per_second": 2e6}, {"per_second": 1e6}], "nchan": [{"per_second": 9e5}]}
        half = ("half", "", "ws", [], ())
        self.assertEqual([c.name for c in (peers.Ours, peers.Nats, peers.Nchan, peers.Ws) if rivals.takes(c, half, curve)], ["ringcast", "nats", "ws"])
        doc = document([run(100, 2)], [run(50, 4)], curve={"ringcast": [{"per_second": 8e6, "p99_us": 1}], "late": [{"per_second": 9e5, "p99_us": 1}]})
        doc["titles"]["late"] = "Late"
        doc["steps"][0]["name"] = "half"
        doc["runs"]["half"] = doc["runs"].pop("full")
        (_, _, rows), = rivals.tables(doc)
        self.assertEqual(rows[-1][:2], ["Late", "ends at 900,000/s"])

    def test_drawings_are_xml(self):
        doc = document([run(100, 2)] * 2, [run(50, 4)] * 2, idle_connections=9, idle={"ringcast": {"private_per_connection": 300}},
                       curve={"ringcast": [{"per_second": 10, "p99_us": 5}, {"per_second": 100, "p99_us": 9}]})
        doc["runs"]["fixed"] = doc["runs"]["full"]
        drawn = rivals.plots(doc)
        self.assertLessEqual({"latency", "throughput", "cpu-full", "memory"}, drawn.keys())
        for _, picture in drawn.values():
            xml.dom.minidom.parseString(svg.standalone(picture))


def script(name):
    """A program of bench/ as a module."""
    path = str(pathlib.Path(__file__).resolve().parent.parent / name)
    spec = importlib.util.spec_from_loader(name, importlib.machinery.SourceFileLoader(name, path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Capacity(unittest.TestCase):
    def search(self, limit, low=1000, high=4e6, steps=12):
        return script("capacity").search(lambda rate: {"rate": rate, "passes": rate <= limit}, low, high, steps)

    def test_the_limit_is_found(self):
        for limit in (1500, 77000, 3e6):
            rate, runs = self.search(limit)
            self.assertLessEqual(rate, limit)
            self.assertGreater(rate, 0.99 * limit)
            self.assertEqual([r["rate"] for r in runs], sorted(r["rate"] for r in runs))

    def test_what_was_not_measured_is_not_reported(self):
        rate, runs = self.search(10)
        self.assertIsNone(rate)
        self.assertEqual(len(runs), 1)


class Profile(unittest.TestCase):
    TEXT = """
\tffffffff81a0 _raw_spin_unlock_irqrestore+0x10 ([kernel.kallsyms])
\tffffffff81b0 tcp_v4_rcv+0x9 ([kernel.kallsyms])
\tffffffff81c0 net_rx_action ([kernel.kallsyms])
\tffffffff81d0 tcp_sendmsg_locked+0x1 ([kernel.kallsyms])

\tffffffff81d0 tcp_sendmsg_locked+0x1 ([kernel.kallsyms])
\t        5600 outq_flush+0x30 (/usr/bin/ringcast-worker)

\t        5601 json_string+0x30 (/usr/bin/ringcast-worker)
"""

    def test_samples_are_told_apart(self):
        profile = script("profile")
        self.assertEqual([profile.doing(s) for s in profile.samples(self.TEXT)],
                         ["the receiver's half of TCP, and what comes in", "sending", "ringcast-worker"])


class Run(unittest.TestCase):
    def test_what_was_not_clean_is_named(self):
        apart = {"a": {"ok": True}, "b": {"ok": False}, "slow-close": {"ok": False}}
        self.assertEqual(script("run").unclean(apart), ["b"])


class Reach(unittest.TestCase):
    def test_growth_is_told_with_its_floors(self):
        from harness import reach
        runs = {k: [{"median": {"cpu_us_per_unit": v}}] for k, v in (("subscribers-100", 5), ("subscribers-1000", 5.5), ("floor-100", 4), ("floor-1000", 4.5))}
        s = {k: {"cpu_us_per_unit": {"median": v[0]["median"]["cpu_us_per_unit"]}} for k, v in runs.items()}
        t = reach.Table(runs, s, {"subscribers-50000": {"cpu_us_per_unit": 9.0}, "floor-50000": {"cpu_us_per_unit": 8.0}})
        reach.growth_rows(t)
        (_, _, reached, told), = t.rows
        self.assertFalse(reached)
        self.assertIn("50,000: 9.00", told)
        self.assertIn("floors past 100: 4.00, 4.50, 8.00", told)

    def test_growth_of_channels_counts_from_a_hundred(self):
        from harness import reach
        more = {f"channels-{k}-100": {"cpu_us_per_unit": v} for k, v in ((1, 2.0), (10, 9.0), (100, 5.0), (1000, 5.9))}
        more |= {"channels-1000-1000": {"cpu_us_per_unit": 7.0}, "channels-10000-1000": {"cpu_us_per_unit": 8.5}}
        t = reach.Table({}, {}, more)
        reach.growth_rows(t)
        self.assertEqual([row[2] for row in t.rows], [False, True])
        self.assertIn("1: 2.00, 10: 9.00, 100: 5.00, 1,000: 5.90", t.rows[1][3])


class Peers(unittest.TestCase):
    def test_each_has_what_the_report_says_of_it(self):
        self.assertEqual(len({c.name for c in peers.ALL}), len(peers.ALL))
        for c in peers.ALL:
            self.assertTrue(c.title and c.told() and "ws" in c.modes, c)

    def test_strings_only_where_the_codec_wants_them(self):
        a = types.SimpleNamespace(subscribers=10, pairs=2, duration=1, warmup=1, wants=lambda name: True)
        wss = next(s for s in rivals.steps(a) if s[0] == "wss")
        self.assertFalse(rivals.takes(peers.MinBin, wss, {}))
        self.assertTrue(rivals.takes(peers.Ws, wss, {}))
        self.assertFalse(rivals.takes(peers.Nats, wss, {}))
        upgrade = next(s for s in rivals.steps(a) if s[0] == "upgrade")
        self.assertEqual([c.name for c in peers.ALL if not rivals.takes(c, upgrade, {})], ["nats"])

    def test_certificates_are_made(self):
        with tempfile.TemporaryDirectory() as folder:
            from harness import server
            self.assertTrue(all(p.exists() for p in server.certificate(pathlib.Path(folder))))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + ["-q"])
