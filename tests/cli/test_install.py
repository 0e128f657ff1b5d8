"""What `cmake --install` writes. Units of systemd: systemd finds nothing wrong with them, and each service keeps to
what docs/ops/rights.md says. Pages: every link in them leads somewhere."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import cli

SERVICES = ("ringcast.service", "ringcast-worker@.service", "ringcast-broker@.service")
EVERYWHERE = """NoNewPrivileges=yes ProtectSystem=strict PrivateTmp=yes PrivateDevices=yes ProtectKernelTunables=yes
ProtectKernelModules=yes ProtectKernelLogs=yes MemoryDenyWriteExecute=yes LimitCORE=0 Restart=always
RuntimeDirectoryMode=0711 Slice=ringcast.slice""".split()


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = pathlib.Path(tempfile.mkdtemp(prefix="ringcast-install-"))
        cls.addClassCleanup(shutil.rmtree, cls.dir)
        done = subprocess.run(["cmake", "--install", str(cli.BIN.parent), "--prefix", str(cls.dir)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert done.returncode == 0, done.stdout
        cls.units = cls.dir / "lib/systemd/system"
        cls.pages = cls.dir / "share/doc/ringcast"

    def test_links_of_pages_lead_somewhere(self):
        links = [(page, link) for page in sorted(self.pages.rglob("*.md"))
                 for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()) if "://" not in link]
        self.assertGreater(len(links), 100)
        dead = [f"{page.relative_to(self.pages)}: {link}" for page, link in links if not (page.parent / link).exists()]
        self.assertEqual(dead, [])

    def test_each_service_is_hemmed_in(self):
        for name in SERVICES:
            text = (self.units / name).read_text()
            self.assertNotIn("@", re.sub(r"@(system-service|\d\.service)|-(worker|broker)@", "", text), name)
            for line in EVERYWHERE:
                self.assertIn(f"\n{line}\n", text, name)
            (caps,) = re.findall(r"^CapabilityBoundingSet=(.+)$", text, re.M)
            self.assertEqual(set(caps.split()) - {"CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_CHOWN", "CAP_KILL",
                                                  "CAP_NET_BIND_SERVICE"}, set(), name)
            (command,) = re.findall(r"^ExecStart=(.+)$", text, re.M)
            program = pathlib.Path(command.split()[0])
            self.assertEqual(program.parent, self.dir / "bin")
            self.assertTrue(program.exists())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here")
    def test_systemd_finds_nothing_wrong(self):
        for name in (*SERVICES, "ringcast.target", "ringcast.slice"):
            unit = self.units / name.replace("@.", "@0.")
            if not unit.exists():
                unit.symlink_to(self.units / name)
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True)
            said = [l for l in done.stdout.splitlines() if "ringcast" in l]
            self.assertEqual(said, [], name)


if __name__ == "__main__":
    cli.main()
