#!/usr/bin/env python3
"""A cable between two interfaces that loses and delays frames, where the kernel has no netem.

    relay.py A B DELAY_MS LOSS_PERCENT SEED     until SIGTERM; says what it carried and lost
    relay.py --plain INTERFACE                  the interface sums and cuts segments itself

Frames are taken and given by packet(7) sockets. Each direction delays and loses on its own; order is kept."""
import array
import collections
import fcntl
import random
import select
import signal
import socket
import struct
import sys
import time

ETH_P_ALL = 3
SIOCETHTOOL = 0x8946
# linux/ethtool.h: checksums sent and taken, scatter-gather, segmentation and its reverse, of TCP and of all
SWITCHES = (0x15, 0x17, 0x19, 0x1F, 0x24, 0x2C)
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23


def plain(interface):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for command in SWITCHES:
        value = array.array("B", struct.pack("II", command, 0))
        request = struct.pack("16sP", interface.encode(), value.buffer_info()[0])
        try:
            fcntl.ioctl(s, SIOCETHTOOL, request)
        except OSError as e:
            print(f"{interface}: switch {command:#x}: {e}", file=sys.stderr)


class Way:
    def __init__(self, a, b):
        self.a, self.b, self.waiting, self.carried, self.lost = a, b, collections.deque(), 0, 0


def open_interface(name):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    s.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    s.bind((name, ETH_P_ALL))
    s.setblocking(False)
    return s


def main():
    if sys.argv[1] == "--plain":
        return plain(sys.argv[2])
    a, b = open_interface(sys.argv[1]), open_interface(sys.argv[2])
    delay, loss, dice = float(sys.argv[3]) / 1000, float(sys.argv[4]) / 100, random.Random(int(sys.argv[5]))
    ways = {a.fileno(): Way(a, b), b.fileno(): Way(b, a)}
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(1))
    print("ready", flush=True)
    while not over:
        due = min((w.waiting[0][0] for w in ways.values() if w.waiting), default=None)
        wait = 0.05 if due is None else min(0.05, max(0, due - time.monotonic()))
        for fd in select.select(list(ways), [], [], wait)[0]:
            way = ways[fd]
            try:
                for _ in range(256):
                    frame, address = way.a.recvfrom(65536 + 14)
                    if address[2] == PACKET_OUTGOING:
                        continue
                    if dice.random() < loss:
                        way.lost += 1
                    else:
                        way.waiting.append((time.monotonic() + delay, frame))
            except BlockingIOError:
                pass
        now = time.monotonic()
        for way in ways.values():
            while way.waiting and way.waiting[0][0] <= now:
                try:
                    way.b.send(way.waiting.popleft()[1])
                    way.carried += 1
                except OSError:  # too long, or the queue is full: lost, as on any cable
                    way.lost += 1
    for way in ways.values():
        print(f"carried={way.carried} lost={way.lost}", flush=True)


main()
