"""Compares a cluster of a python-socketio server and slabd with one of two python-socketio servers.

    python_cluster.py PATH_OF_SLABD [WORD...]

In both, server A is Python's, and server B is the other one. Each observation must have the same
result in both. The library runs its handlers side by side, so the order of events is not observed.
Prints each difference, and "N observations, all equal" at the end.
"""

import asyncio
import collections
import os
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import wsgiref.simple_server

import socketio

PROGRAM, *WORDS = sys.argv[1:]
NAMESPACES = ["/", "/chat"]
PATIENCE = 20
CONFIG = '[socketio]\nadapter = "python-socketio"\nnamespaces = ["/chat"]\nverbs = true\n'


class PollServer(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class QuietRequest(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


class PythonServer:
    """A server with the verbs of slabd."""

    transport = "polling"

    def __init__(self, broker):
        manager = socketio.RedisManager(broker)
        self.io = socketio.Server(
            async_mode="threading", client_manager=manager, namespaces=NAMESPACES
        )
        for namespace in NAMESPACES:
            self.serve(namespace)
        address = ("127.0.0.1", 0)
        http = PollServer(address, QuietRequest)
        http.set_app(socketio.WSGIApp(self.io))
        threading.Thread(target=http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{http.server_port}"

    def serve(self, namespace):
        @self.io.on("subscribe", namespace=namespace)
        def subscribe(sid, name):
            self.io.enter_room(sid, name, namespace=namespace)
            return {"subscribed": [name]}

        @self.io.on("publish", namespace=namespace)
        def publish(sid, name, payload):
            is_event = isinstance(payload, list) and payload and isinstance(payload[0], str)
            event, *values = payload if is_event else ["message", name, payload]
            for other in NAMESPACES:
                self.io.emit(event, tuple(values), room=name, namespace=other)
            return {"published": name}


def started(command):
    """Starts a program that ends with this one."""
    command = ["setpriv", "--pdeathsig", "KILL", *command]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def wait_for(port):
    for _ in range(PATIENCE * 50):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


class Slabd:
    transport = "websocket"

    def __init__(self, broker, folder):
        port = free_port()
        config = os.path.join(folder, "slabd.toml")
        with open(config, "w") as file:
            file.write(CONFIG)
        listen = f"hub=127.0.0.1:{port}"
        self.child = started([PROGRAM, "serve", "--config", config, "--listen", listen,
                              "--broker", broker])
        wait_for(port)
        self.url = f"http://127.0.0.1:{port}"


class Cluster:
    # By name: the server, the namespace, and the rooms.
    PLACES = {
        "a": ("a", "/", []), "a r": ("a", "/", ["r"]), "a /chat r": ("a", "/chat", ["r"]),
        "b": ("b", "/", []), "b r": ("b", "/", ["r"]), "b s": ("b", "/", ["s"]),
        "b rs": ("b", "/", ["r", "s"]), "b /chat r": ("b", "/chat", ["r"]),
    }

    def __init__(self, second, folder):
        port = free_port()
        started(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""])
        wait_for(port)
        self.broker = f"redis://127.0.0.1:{port}/0"
        self.a = PythonServer(self.broker)
        self.b = PythonServer(self.broker) if second == "python" else Slabd(self.broker, folder)
        self.fence = 0
        self.clients = {name: self.client(*place) for name, place in self.PLACES.items()}
        # The servers are together once events of each arrive at clients of the other.
        deadline = time.monotonic() + PATIENCE
        while not all(self.has_had(name, ["start", "message"]) for name in self.clients):
            assert time.monotonic() < deadline, "the servers do not meet"
            for namespace in NAMESPACES:
                self.a.io.emit("start", namespace=namespace)
            self.publish("fence", "start")
            time.sleep(0.1)

    def client(self, server, namespace, rooms):
        server = getattr(self, server)
        client = socketio.Client(reconnection=False)
        client.place = namespace
        client.log = collections.deque()
        client.on("*", lambda *event: client.log.append(event), namespace=namespace)
        client.connect(server.url, transports=[server.transport], namespaces=[namespace])
        for room in ["fence", *rooms]:
            client.call("subscribe", room, namespace=namespace, timeout=PATIENCE)
        return client

    def has_had(self, name, events):
        had = {event[0] for event in list(self.clients[name].log)}
        return had.issuperset(events)

    def resolved(self, options):
        """Puts sids in the place of the names of their clients."""
        sids = {f"sid {name}": client.get_sid(client.place)
                for name, client in self.clients.items()}
        names = {key: [sids.get(one, one) for one in value] if isinstance(value, list)
                 else sids.get(value, value) for key, value in options.items()}
        return {"namespace": "/", **names}

    def publish(self, room, payload):
        """A client of server B publishes."""
        return self.clients["b"].call("publish", (room, payload), timeout=PATIENCE)

    def emitter(self, *event, **options):
        """Emits as a process without a server does."""
        manager = socketio.AsyncRedisManager(self.broker, write_only=True)
        asyncio.run(manager.emit(*event, **options))

    def settle(self):
        """Waits until each client has got everything."""
        self.fence += 1
        for namespace in NAMESPACES:
            self.a.io.emit("fence", ("a", self.fence), namespace=namespace)
            self.emitter("fence", ("emitter", self.fence), namespace=namespace)
        self.publish("fence", self.fence)
        expected = [("fence", "a", self.fence), ("fence", "emitter", self.fence),
                    ("message", "fence", self.fence)]
        deadline = time.monotonic() + PATIENCE
        for name, client in self.clients.items():
            while not all(event in list(client.log) for event in expected):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{name} gets no fence: {list(client.log)}")
                time.sleep(0.005)
        # Handlers of earlier events may still run.
        time.sleep(0.02)

    def observe(self, emit):
        for client in self.clients.values():
            client.log.clear()
        emit(self)
        self.settle()
        return {
            name: sorted(repr(event) for event in client.log if "fence" not in event[:2])
            for name, client in self.clients.items()
        }


OBSERVATIONS = {}


def of_server(name, *event, **options):
    """Observes an emission of server A."""
    OBSERVATIONS[f"server: {name}"] = lambda on: on.a.io.emit(*event, **on.resolved(options))


def emission(name, *event, **options):
    """Observes an emission of server A, and of a process without a server."""
    of_server(name, *event, **options)
    OBSERVATIONS[f"emitter: {name}"] = lambda on: on.emitter(*event, **on.resolved(options))


def value(name, data):
    of_server(f"value: {name}", "value", data)


def publish(name, payload):
    OBSERVATIONS[f"publish: {name}"] = lambda on: on.publish("r", payload)


emission("to all", "e", 1)
emission("to a namespace", "e", 1, namespace="/chat")
emission("to a room", "e", 1, room="r")
emission("to a room of a namespace", "e", 1, room="r", namespace="/chat")
emission("to two rooms, to each once", "e", 1, room=["r", "s"])
emission("to a room with nobody", "e", 1, room="nobody")
emission("to a socket of B", "e", 1, room="sid b r")
emission("to a socket of B by `to`", "e", 1, to="sid b s")
emission("to a socket of A", "e", 1, room="sid a r")
emission("to all but a socket of B", "e", 1, skip_sid="sid b r")
emission("to a room but two sockets", "e", 1, room="r", skip_sid=["sid b r", "sid a r"])
value("none", None)
value("several arguments", (1, "two", None, [3]))
value("an array", [1, [2, [3]], []])
value("an object", {"a": {"b": [None, True, 0.5]}, "": "ä😀\"\\\n\u2028"})
value("numbers", (0, -1, 2**53, -(2**63), 1e300, 5e-324))
value("texts", ("", "x" * 70_000))
value("binary", b"\x00\xff")
value("binary inside", ({"a": [b"x", {"b": b""}]}, 1, b"\xff" * 100_000))
value("what looks like a placeholder", {"_placeholder": True, "num": 0})
publish("a text", "hello")
publish("a number", -17)
publish("null", None)
publish("an object", {"a": [1, 2.5, None, True, {"b": "ä"}]})
publish("an event", ["chat", "hi", {"a": 1}])
publish("an event without arguments", ["chat"])
publish("binary", b"\x00\xff\x01")


def main():
    different = 0
    with tempfile.TemporaryDirectory(prefix="slabd-python-") as folder:
        clusters = [Cluster(second, folder) for second in ["python", "slabd"]]
        wanted = {name: emit for name, emit in OBSERVATIONS.items()
                  if all(word in name for word in WORDS)}
        for name, emit in wanted.items():
            expected, got = [cluster.observe(emit) for cluster in clusters]
            assert any(expected.values()) or "nobody" in name, f"{name}: nobody gets anything"
            if expected != got:
                different += 1
                for client, events in expected.items():
                    if events != got[client]:
                        print(f"DIFFERENT {name}: {client}\n  python: {events!r:.300}\n"
                              f"  slabd:  {got[client]!r:.300}")
    outcome = f"{different} different" if different else "all equal"
    print(f"{len(wanted)} observations, {outcome}")
    sys.stdout.flush()
    # Threads of the library would go on; the programs end with this one.
    os._exit(1 if different else 0)


signal.alarm(100)
main()
