"""Servers of others: how each is installed, started on one core, what it speaks, which version it is.

Settings are those of each one's documentation, but for what a fair run needs: addresses and ports, limits on open
connections raised, logs off. What else differs from the defaults is named in `settings`."""
import ctypes.util
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from . import machine, server as srv

FOLDER = machine.ROOT / "bench" / "peers"
UWS_PACKAGES = ("python3-pip", "python3-setuptools", "libuv1", "gcc", "libc6-dev")
UWS_VERSION = "0.0.31"
UWS_LIBRARY = FOLDER / "python" / "socketify" / "libsocketify_linux_amd64.so"
NCHAN = pathlib.Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


def said(cmd, **more):
    try:
        done = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **more)
    except OSError:
        return ""
    return done.stdout.strip()


def install_npm():
    lock = json.loads((FOLDER / "package-lock.json").read_text())["packages"]
    for name in lock[""]["dependencies"]:
        try:
            there = json.loads((FOLDER / "node_modules" / name / "package.json").read_text())["version"]
        except OSError:
            there = None
        if there != lock[f"node_modules/{name}"]["version"]:
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=FOLDER, check=True, stdout=sys.stderr)
            return


def install_debian(classes):
    """What these need and is not there."""
    missing = [p for c in classes for p in c.packages()]
    if missing:
        apt_get(sorted(set(missing)))


def install_uws():
    """uWebSockets as the library in socketify's package, whose hash is pinned, and our program on it."""
    if not UWS_LIBRARY.exists() or not list((FOLDER / "python").glob(f"socketify-{UWS_VERSION}*")):
        if not shutil.which("cc") or subprocess.run([sys.executable, "-c", "import pip, setuptools"], stderr=subprocess.DEVNULL, check=False).returncode:
            apt_get(UWS_PACKAGES)
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--require-hashes", f"--target={FOLDER / 'python'}",
                        "-r", str(FOLDER / "requirements.txt")], check=True, stdout=sys.stderr)
    if not ctypes.util.find_library("uv"):
        apt_get(UWS_PACKAGES)
    program, source = FOLDER / "uws", FOLDER / "uws.c"
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)


def apt_get(packages):
    """Installs what is missing, without starting services (policy-rc.d, as Debian's own image builders do)."""
    policy = pathlib.Path("/usr/sbin/policy-rc.d")
    mine = not policy.exists()
    if mine:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        get = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        if subprocess.run(get, env=env, stdout=sys.stderr, check=False).returncode != 0:
            subprocess.run(["apt-get", "update", "-qq"], env=env, stdout=sys.stderr, check=True)
            subprocess.run(get, env=env, stdout=sys.stderr, check=True)
    finally:
        if mine:
            policy.unlink()


class Peer:
    """A server that runs. Subclasses start it."""
    name = title = ""
    words = []           # of ringcast-bench, whatever the mode
    modes = ("ws",)
    path = "/"
    settings = ""

    def __init__(self, a):
        self.a = a
        self.dir = tempfile.TemporaryDirectory(prefix="ringcast-peer-")
        self.folder = pathlib.Path(self.dir.name)
        self.key, self.cert = srv.certificate(self.folder)
        self.port, self.tls_port, self.deflate_port = srv.free_port(), srv.free_port(), None
        self.log = open(self.folder / "log", "w+")
        self.children = []
        self.start()

    def run(self, cmd, wait=(), **more):
        """Starts it on the server's core; `wait`: ports that must answer."""
        child = subprocess.Popen(["taskset", "-c", str(self.a.server_cpu), *cmd], stderr=self.log, **more)
        self.children.append(child)
        end = time.monotonic() + 10
        for port in wait:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if child.poll() is not None or time.monotonic() > end:
                        self.log.seek(0)
                        sys.exit(f"{self.name} did not start: {self.log.read()[-2000:]}")
                    time.sleep(0.02)
        return child

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout:
                child.stdout.close()
        self.log.close()
        self.dir.cleanup()

    def url(self, mode):
        scheme, port = ("wss", self.tls_port) if mode == "wss" else ("ws", self.deflate_port if mode == "deflate" else self.port)
        return f"{scheme}://127.0.0.1:{port}{self.path}"

    def pid(self, mode):
        return self.children[0].pid

    def options(self, mode="ws"):
        return [*self.words, f"--url={self.url(mode)}", f"--pid={self.pid(mode)}", *srv.MODES[mode]]

    @classmethod
    def version(cls):
        return "?"

    @classmethod
    def told(cls):
        return cls.settings


class Ours(srv.Server):
    """Ringcast behind the same face."""
    name, title = "ringcast", "Ringcast"
    modes = ("ws", "wss", "deflate")

    @staticmethod
    def told():
        return "one worker with one ring, one broker, all defaults"

    def __init__(self, a):
        a.realtime = False
        super().__init__(a, a.bin, tls=True)

    @classmethod
    def version(cls):
        return machine.about()["revision"]


class Node(Peer):
    """A program of bench/peers. Compression is another process: there it is a setting of the server."""
    program, package, env = "", "", {}
    modes = ("ws", "wss", "deflate")

    @classmethod
    def command(cls):
        return ["node", cls.program]

    def start(self):
        env = {**os.environ, **self.env, "NODE_ENV": "production", "KEY": str(self.key), "CERT": str(self.cert)}
        self.port, self.tls_port = self.ports(env)
        self.deflate_port = None

    def ports(self, env):
        child = self.run(self.command(), cwd=FOLDER, stdout=subprocess.PIPE, text=True, env=env)
        words = child.stdout.readline().split()
        if not words or words[0] != "ready":
            self.log.seek(0)
            sys.exit(f"{self.program} did not start: {self.log.read()[-2000:]}")
        return int(words[1]), int(words[2])

    def url(self, mode):
        if mode == "deflate" and self.deflate_port is None:
            env = {**os.environ, **self.env, "NODE_ENV": "production", "KEY": str(self.key), "CERT": str(self.cert), "DEFLATE": "1"}
            self.deflate_port = self.ports(env)[0]
        return super().url(mode)

    def pid(self, mode):
        return self.children[1 if mode == "deflate" else 0].pid

    @classmethod
    def version(cls):
        there = json.loads((FOLDER / "node_modules" / cls.package / "package.json").read_text())["version"]
        return f"{there} on Node {said(['node', '--version'])}"


class SocketCluster(Node):
    name, title, program, package = "socketcluster", "socketcluster", "socketcluster.mjs", "socketcluster-server"
    path, settings = "/socketcluster/", "socketcluster-server, JSON; bench/peers/socketcluster.mjs"


class MinBin(SocketCluster):
    name, title = "socketcluster-minbin", "socketcluster min-bin"
    words, env = ["--as=min-bin"], {"CODEC": "min-bin"}
    settings = "the same with the codec sc-codec-min-bin"


class SocketIo(Node):
    name, title, program, package = "socketio", "Socket.IO", "socketio.mjs", "socket.io"
    path, words = "/socket.io/?EIO=4&transport=websocket", ["--as=socketio"]
    settings = "bench/peers/socketio.mjs: WebSocket from the start, rooms, the adapter in memory"


class Ws(Node):
    name, title, program, package = "ws", "ws", "ws.mjs", "ws"
    words, settings = ["--as=ws"], "bench/peers/ws.mjs: 50 lines, plain texts, no JSON, nothing checked"


class Uws(Node):
    name, title, program, words = "uws", "uWebSockets", "uws.c", ["--as=ws"]
    settings = ("bench/peers/uws.c: 100 lines of C on its C interface, its own topics, plain texts, no JSON, nothing checked; the library of "
                "socketify's package, whose loop is libuv's")

    @classmethod
    def command(cls):
        return [str(FOLDER / "uws"), str(UWS_LIBRARY)]

    @classmethod
    def version(cls):
        return f"in socketify {UWS_VERSION}"


class Nats(Peer):
    name, title, words = "nats", "NATS", ["--as=nats"]
    modes, settings = ("ws",), "nats-server, client protocol on bare TCP"

    def start(self):
        self.ws_port = srv.free_port()
        self.deflate_port = srv.free_port()
        conf = self.folder / "nats.conf"
        conf.write_text(f'listen: "127.0.0.1:{self.port}"\nmax_connections: 60000\n'
                        f'websocket {{ listen: "127.0.0.1:{self.ws_port}", no_tls: true, compression: true }}\n')
        self.run(["nats-server", "-c", str(conf)], wait=(self.port, self.ws_port), stdout=subprocess.DEVNULL)

    def url(self, mode):
        return f"tcp://127.0.0.1:{self.port}"

    @classmethod
    def packages(cls):
        return [] if shutil.which("nats-server") else ["nats-server"]

    @classmethod
    def version(cls):
        return said(["nats-server", "--version"]).rpartition(" ")[2]


class NatsWs(Nats):
    name, title = "nats-ws", "NATS (WebSocket)"
    modes, settings = ("ws", "deflate"), "the same in WebSocket messages; compressed where the client offers it"

    def url(self, mode):
        return f"ws://127.0.0.1:{self.ws_port}/"


class Mosquitto(Peer):
    name, title, words = "mosquitto", "Mosquitto", ["--as=mqtt"]
    modes, path = ("ws", "wss"), "/mqtt"
    settings = "MQTT 3.1.1 over WebSocket, QoS 0; set_tcp_nodelay on"

    def start(self):
        conf = self.folder / "mosquitto.conf"
        bare = srv.free_port()  # 2.0.11 starts no WebSocket listener unless it has one without
        conf.write_text(f"allow_anonymous true\nuser root\nset_tcp_nodelay true\nlog_type none\nlistener {bare} 127.0.0.1\n"
                        f"listener {self.port} 127.0.0.1\nprotocol websockets\n"
                        f"listener {self.tls_port} 127.0.0.1\nprotocol websockets\ncertfile {self.cert}\nkeyfile {self.key}\n")
        self.run(["mosquitto", "-c", str(conf)], wait=(self.port, self.tls_port), stdout=subprocess.DEVNULL)

    @classmethod
    def packages(cls):
        return [] if shutil.which("mosquitto") else ["mosquitto"]

    @classmethod
    def version(cls):
        return said(["mosquitto", "-h"]).split("\n", 1)[0].rpartition(" ")[2]


class Nchan(Peer):
    name, title, path = "nchan", "nchan", "/{role}/{channel}"
    words = ["--as=ws", "--ws-subscribe=", "--ws-subscribed=", "--ws-publish={payload}", "--ws-message={payload}", "--ws-ignore=queued messages"]
    modes = ("ws", "wss")
    settings = "nginx with the module nchan, one worker process; channels in its own memory store of 256 MiB"

    def start(self):
        self.folder.chmod(0o755)
        conf = self.folder / "nginx.conf"
        listen = "".join(f"location ~ ^/{role}/(\\S+)$ {{ {kind} websocket; nchan_channel_id $1; "
                         "nchan_subscriber_first_message newest; nchan_websocket_ping_interval 0; }\n"
                         for role, kind in (("sub", "nchan_subscriber"), ("pub", "nchan_publisher"), ("both", "nchan_pubsub")))
        conf.write_text(f"load_module {NCHAN};\ndaemon off;\nworker_processes 1;\nworker_rlimit_nofile 65536;\npid {self.folder}/pid;\n"
                        f"error_log {self.folder}/error.log crit;\nuser root;\nevents {{ worker_connections 30000; }}\n"
                        "http { access_log off; nchan_shared_memory_size 256M;\n"
                        + "".join(f"{t}_temp_path {self.folder}/{t};\n" for t in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                        + f"server {{ listen 127.0.0.1:{self.port} backlog=4096; listen 127.0.0.1:{self.tls_port} ssl;\n"
                        f"ssl_certificate {self.cert}; ssl_certificate_key {self.key};\n{listen}}} }}\n")
        self.run(["nginx", "-p", str(self.folder), "-c", str(conf), "-e", str(self.folder / "error.log")], wait=(self.port,), stdout=subprocess.DEVNULL)

    @classmethod
    def packages(cls):
        return [] if shutil.which("nginx") and NCHAN.exists() else ["nginx-light", "libnginx-mod-nchan"]

    @classmethod
    def version(cls):
        nchan = said(["dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"])
        return f"{nchan.partition(':')[2] or nchan} in {said(['nginx', '-v']).rpartition(' ')[2]}"


NPM = (SocketCluster, MinBin, SocketIo, Ws)
DEBIAN = (Nats, NatsWs, Mosquitto, Nchan)
ALL = (Ours, *NPM, Uws, *DEBIAN)
