"""A program that does what it is told, a Python expression a line: the one end of the wire, wherever it is started.

    python3 -I -u -c "$(cat tests/puppet.py)"

Runs in containers, in other network namespaces and as another machine; `puppets.py` talks to it. For each line it
prints the repr of a pair: (True, value) or (False, error). It needs no more than python3-minimal.
"""

import os
import select
import socket
import subprocess
import sys
import time

ETH_P_ALL = 3
HEARD = {}
TAKEN = {}
WATCHED = {}


def _family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def run(*words):
    """The exit code and the whole output of a command."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def read(path):
    """The text of a file."""
    with open(path) as file:
        return file.read()


def write(path, text):
    """Write a file."""
    with open(path, "w") as file:
        file.write(text)


def _listening(kind, address, port):
    sock = socket.socket(_family(address), kind)
    if _family(address) == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(64)
    return sock


def hear(port, address="0.0.0.0"):
    """Begin to take datagrams that come for a port."""
    HEARD[port] = _listening(socket.SOCK_DGRAM, address, port)


def heard(port, seconds=2.0):
    """The datagrams that came since the last call, as (text, address of the sender); waits for the first one."""
    got = []
    while select.select([HEARD[port]], [], [], 0 if got else seconds)[0]:
        data, sender = HEARD[port].recvfrom(65536)
        got.append((data.decode("ascii", "replace"), sender[0]))
    return got


def tell(address, port, text, source_port=0):
    """Send a datagram and don't wait for an answer."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", source_port))
        sock.sendto(text.encode(), (address, port))


def ask_udp(address, port, text="hello", seconds=2.0, source_port=0, tries=1):
    """The answer to a datagram, or None."""
    with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
        sock.bind(("", source_port))
        for _ in range(tries):
            try:
                sock.connect((address, port))
                sock.send(text.encode())
                if select.select([sock], [], [], seconds)[0]:
                    return sock.recv(65536).decode("ascii", "replace")
            except OSError:
                time.sleep(0.05)
    return None


def ask_tcp(address, port, text="hello", seconds=2.0):
    """What a server says to a text, up to its first pause; None when it isn't reached."""
    try:
        with socket.create_connection((address, port), timeout=seconds) as sock:
            sock.sendall(text.encode())
            return sock.recv(65536).decode("ascii", "replace")
    except OSError:
        return None


def _in_background(work, *arguments):
    """Do this in a child, which ends with this program."""
    alive, ours = os.pipe()
    if os.fork():
        os.close(alive)
        return  # `ours` stays open until this program ends
    os.close(ours)
    try:
        work(alive, *arguments)
    finally:
        os._exit(0)


def serve(port, address="0.0.0.0", kind="udp"):
    """Answer everybody in the background: with the name of this server, and who asked."""
    with _listening(socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, address, port) as sock:
        _in_background(_answer_datagrams if kind == "udp" else _answer_connections, sock)


def _answer(data, sender):
    return f"{socket.gethostname()} got {data.decode()} from {sender[0]}".encode()


def _answer_datagrams(alive, sock):
    while alive not in select.select([alive, sock], [], [])[0]:
        data, sender = sock.recvfrom(65536)
        try:
            sock.sendto(_answer(data, sender), sender)
        except OSError:
            pass


def _answer_connections(alive, sock):
    while alive not in select.select([alive, sock], [], [])[0]:
        connection, sender = sock.accept()
        connection.settimeout(2)
        try:
            connection.sendall(_answer(connection.recv(65536), sender))
        except OSError:
            pass
        connection.close()


def take(port, address="0.0.0.0"):
    """Take all that comes with one TCP connection, in the background."""
    TAKEN[port], ours = os.pipe()
    with _listening(socket.SOCK_STREAM, address, port) as sock:
        _in_background(_take_all, sock, ours)
    os.close(ours)


def _take_all(alive, sock, ours):
    import hashlib

    if alive in select.select([alive, sock], [], [])[0]:
        return
    connection, _ = sock.accept()
    sock.close()  # the next one may listen as soon as this one is told of
    count, sum = 0, hashlib.sha256()
    while data := connection.recv(1 << 20):
        count += len(data)
        sum.update(data)
    os.write(ours, f"{count} {sum.hexdigest()}".encode())


def taken(port):
    """How many bytes came, and their checksum; waits for the last one."""
    count, sum = os.read(TAKEN[port], 100).split()
    return int(count), sum.decode()


def give(address, port, amount, seconds=60):
    """Send this many bytes of noise by TCP, and return their checksum."""
    import hashlib

    sum = hashlib.sha256()
    with socket.create_connection((address, port), timeout=seconds) as sock:
        while amount:
            data = os.urandom(min(amount, 1 << 20))
            sock.sendall(data)
            sum.update(data)
            amount -= len(data)
    return sum.hexdigest()


def send(interface, *frames):
    """Put frames on the wire as they are."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind((interface, 0))
        for frame in frames:
            sock.send(frame)


def watch(interface):
    """Begin to take all frames of an interface."""
    WATCHED[interface] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    WATCHED[interface].bind((interface, ETH_P_ALL))


def seen(interface, part, seconds=0.5):
    """How many frames with these bytes in them the interface got and sent; waits that long for the last one."""
    count, end = 0, time.monotonic() + seconds
    while select.select([WATCHED[interface]], [], [], max(0, end - time.monotonic()))[0]:
        count += part in WATCHED[interface].recv(65536)
    return count


def main():
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            said = True, eval(line)
        except Exception as error:
            said = False, f"{type(error).__name__}: {error}"
        print(repr(said), flush=True)


main()
