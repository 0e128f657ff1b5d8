"""The machine of a run: what it is, and how quiet it was."""
import datetime
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


# Who is told to end ends what was started first, as at ^C.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))

PROGRAMS = ("ringcast", "ringcast-worker", "ringcast-broker", "ringcast-bench")


def binaries(given, more=()):
    """The directory that was given, or build/release/bin with these programs just built."""
    if given:
        return pathlib.Path(given).resolve()
    if not shutil.which("cmake") or not shutil.which("ninja"):
        sys.exit("no cmake or no ninja: ./deploy/run installs what a build needs (docs/HACKING.md)")
    print("building (build/release)", file=sys.stderr, flush=True)
    for cmd in (["cmake", "--preset", "release"], ["cmake", "--build", "--preset", "release", "--target", *PROGRAMS, *more]):
        subprocess.run(cmd, cwd=ROOT, check=True, stdout=sys.stderr)
    return ROOT / "build" / "release" / "bin"


def read(path, default=""):
    try:
        return pathlib.Path(path).read_text()
    except OSError:
        return default


def about():
    cpu = next((line.split(":", 1)[1].strip() for line in read("/proc/cpuinfo").splitlines()
                if line.startswith("model name")), "?")
    head = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout.strip()
    mitigations = {p.name: p.read_text().strip()
                   for p in sorted(pathlib.Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
                   if p.is_file()}
    openssl = subprocess.run(["openssl", "version"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True, check=False).stdout.strip()
    return {"cpu": cpu, "cores": os.cpu_count(), "kernel": platform.release(),
            "memory_kib": int(read("/proc/meminfo", "MemTotal: 0 kB").split()[1]),
            "load_average_at_start": read("/proc/loadavg").split()[:3], "revision": head, "openssl": openssl,
            "mitigated": sorted(k for k, v in mitigations.items() if v.startswith("Mitigation")),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


def busy_ticks():
    """Ticks that all cores together were busy, and that were: the first line of /proc/stat."""
    f = [int(x) for x in read("/proc/stat").split("\n", 1)[0].split()[1:]]
    idle = f[3] + f[4]
    return sum(f[:8]) - idle, sum(f[:8])


def others(seconds=1.0):
    """Cores that others keep busy now, while nothing of ours runs."""
    a = busy_ticks()
    time.sleep(seconds)
    b = busy_ticks()
    return (b[0] - a[0]) / max(1, b[1] - a[1]) * (os.cpu_count() or 1)


def wait_for_quiet(seconds, cores=0.15):
    """Up to so long, until others keep no more than so many cores busy; what they kept busy in the end."""
    end = time.monotonic() + seconds
    while True:
        busy = others(0.5)
        if busy <= cores or time.monotonic() >= end:
            return busy


def own_group():
    """Makes a scheduling group of this process and all it will start, with the highest weight: where others run in
    groups of their own (kernel.sched_autogroup_enabled), they hardly take time away. Root only."""
    try:
        os.setsid()
    except OSError:
        pass  # it leads one already
    try:
        pathlib.Path("/proc/self/autogroup").write_text("-19")
        return True
    except OSError:
        return False
