"""Settings as people meet them: help, the sample file, check-config, and sentences for mistakes."""

import re

import cli


class Config(cli.Case):
    def settings(self):
        """Names and defaults, from the sample file."""
        section, rows = "", {}
        for line in (cli.ROOT / "deploy/ringcast.conf").read_text().splitlines():
            if m := re.fullmatch(r"\[(\w+|namespace \w+)\]", line):
                section = m[1].replace(" ", ".")
            elif m := re.fullmatch(r"#(\w+) =(?: (.*))?", line):
                rows[f"{section}.{m[1]}"] = m[2] or ""
        self.assertGreater(len(rows), 40)
        return rows

    def test_help_lists_every_setting_of_the_sample_file_with_its_default(self):
        _, out, _ = self.ringcast("--help", status=0)
        for name, default in self.settings().items():
            if name.startswith("namespace.") and name.endswith(".prefix"):
                default = ""  # the sample has one, since it must be given
            name = name.replace("namespace.chat", "namespace.NAME")
            self.assertRegex(out, rf"--{re.escape(name)}=\S+  \({re.escape(default or 'empty')}[;)]")
        for command in ("run", "status", "publish", "subscribe", "check-config"):
            self.assertIn(f"ringcast {command}", out)
        self.assertEqual(self.ringcast("run", "--help", status=0)[1], out)

    def test_every_setting_is_in_the_reference_page(self):
        page = (cli.ROOT / "docs/reference/settings.md").read_text()
        for name in self.settings():
            self.assertIn(f"| `{name.replace('namespace.chat', 'namespace.NAME')}` |", page)

    def test_version(self):
        self.assertRegex(self.ringcast("--version", status=0)[1], r"^ringcast \d+\.\d+\.\d+\n$")

    def test_the_sample_file_is_right_as_it_is_and_with_every_line_taken_in(self):
        sample = cli.ROOT / "deploy/ringcast.conf"
        self.ringcast("check-config", "--config", sample, status=0)
        full = self.dir / "full.conf"
        full.write_text(re.sub(r"(?m)^#(\w+ =)", r"\1", sample.read_text()))
        _, out, _ = self.ringcast("check-config", f"--config={full}", status=0)
        for name in self.settings():
            self.assertRegex(out, rf"(?m)^{re.escape(name)} = .*\(.*full\.conf:\d+\)$")

    def test_flags_win_over_variables_and_variables_over_the_file(self):
        conf = self.dir / "x.conf"
        conf.write_text("[worker]\ncount = 2\nbacklog = 5\n[broker]\ncount = 2\n")
        _, out, _ = self.ringcast("check-config", "--config", conf, "--worker.count=4", status=0,
                                  env={"RINGCAST_WORKER_COUNT": "3", "RINGCAST_BROKER_COUNT": "3"})
        self.assertIn("worker.count = 4  (flag --worker.count)", out)
        self.assertIn("broker.count = 3  (RINGCAST_BROKER_COUNT)", out)
        self.assertIn(f"worker.backlog = 5  ({conf}:3)", out)
        _, out, _ = self.ringcast("check-config", status=0, env={"RINGCAST_CONFIG": str(conf)})
        self.assertIn(f"worker.count = 2  ({conf}:2)", out)

    def test_a_namespace_is_a_section_flags_and_variables(self):
        conf = self.dir / "x.conf"
        conf.write_text("[namespace chat]\nprefix = chat:\nslow = conflate\nslow_keep = 1MiB\n")
        _, out, _ = self.ringcast("check-config", "--config", conf, "--namespace.chat.slow=drop-oldest",
                                  "--namespace.other.prefix=x", status=0,
                                  env={"RINGCAST_NAMESPACE_CHAT_SLOW_AFTER": "2KiB"})
        self.assertIn(f"namespace.chat.prefix = chat:  ({conf}:2)", out)
        self.assertIn("namespace.chat.slow = drop-oldest  (flag --namespace.chat.slow)", out)
        self.assertIn("namespace.chat.slow_after = 2KiB  (RINGCAST_NAMESPACE_CHAT_SLOW_AFTER)", out)
        self.assertIn(f"namespace.chat.slow_keep = 1MiB  ({conf}:4)", out)
        self.assertIn("namespace.chat.slow_notice = on  (its default)", out)
        self.assertIn("namespace.other.slow = close  (its default)", out)
        conf.write_text("[namespace chat]\nprefix = chat:\n\nslwo = conflate\n")
        self.assert_refused(["run", "--config", conf], f"{conf}:4", "namespace.chat.slwo", "slow")
        self.assert_refused(["run", "--namespace.chat.slow=close"], "namespace.chat", "prefix")

    def assert_refused(self, words, *says, env=None):
        status, out, err = self.ringcast(*words, env=env)
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, r"^ringcast: [^\n]*\n$")  # one sentence
        for text in says:
            self.assertIn(text, err)

    def test_mistakes_name_key_place_and_remedy(self):
        conf = self.dir / "x.conf"
        conf.write_text("# mine\n[worker]\ncuont = 2\n")
        for command in ("check-config", "run", "status"):
            self.assert_refused([command, "--config", conf], f"{conf}:3", "worker.cuont", "worker.count")
        self.assert_refused(["run", "--worker.cuont=2"], "flag --worker.cuont", "did you mean worker.count")
        self.assert_refused(["run", "--worker.count"], "--worker.count=VALUE")
        self.assert_refused(["run", "--worker.count=many"], "worker.count", "\"many\"", "1 to 256")
        self.assert_refused(["run"], "RINGCAST_WORKER_CUONT", "RINGCAST_WORKER_COUNT",
                            env={"RINGCAST_WORKER_CUONT": "1"})
        self.assert_refused(["run", "--config", "/nowhere.conf"], "/nowhere.conf", "No such file")
        self.assert_refused(["run", "--config"], "--config needs a value")
        self.assert_refused(["run", "--config="], "--config needs a value")
        self.assert_refused(["run", "--sc.ping_interval=1m"], "sc.ping_interval", "sc.ping_timeout")
        self.assert_refused(["run", "--worker.listen=tls://127.0.0.1:1"], "worker.listen", "tls.certificate")
        self.assert_refused(["run", "--tls.min_version=1.1"], "tls.min_version", "1.2 or 1.3")
        self.assert_refused(["run", "--tls.client_verify=maybe"], "tls.client_verify", "off, optional or required")
        self.assert_refused(["run", "--tls.client_verify=required"], "tls.client_verify", "tls.client_ca")
        self.assert_refused(["run", "--tls.certificate=/a,/b", "--tls.key=/a"], "tls.key", "tls.certificate")

    def test_what_is_no_command_or_option_is_refused(self):
        self.assert_refused([], "run, status, hosts, occupancy, publish, subscribe")
        self.assert_refused(["rnu"], "rnu", "run")
        self.assert_refused(["run", "fast"], "fast")
        self.assert_refused(["check-config", "-v"], "-v")
        self.assert_refused(["status", "--jsno"], "--jsno", "--json")
        self.assert_refused(["publish", "chat"], "channel and data")
        self.assert_refused(["publish", "--uri=x", "chat", "1"], "--uri=x", "--url")
        self.assert_refused(["subscribe"], "channels")
        for count in ("none", "-1", "0", "", " 1", "1x"):
            self.assert_refused(["subscribe", f"--count={count}", "chat"], "--count", f'"{count}"')


if __name__ == "__main__":
    cli.main()
