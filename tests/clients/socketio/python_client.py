"""Uses the hub with the library python-socketio: python_client.py PORT TRANSPORT.

The transport is websocket, polling, or upgrade, which begins with polling.
"""

import queue
import sys

import socketio

PORT, TRANSPORT = sys.argv[1:]
URL = f"http://127.0.0.1:{PORT}"
TRANSPORTS = {"websocket": ["websocket"], "polling": ["polling"], "upgrade": None}[TRANSPORT]
PAYLOADS = ["text", "ä€😀", "", 5, 1.5, True, None, {"a": [1, {"b": "c"}]}, [1, [2]], b"\x00\xff",
            b"\xff" * 100_000]


def connect(**options):
    client = socketio.Client(reconnection=False)
    client.events = queue.Queue()
    client.on("*", lambda event, *values: client.events.put([event, *values]))
    client.connect(URL, transports=TRANSPORTS, **options)
    return client


def next_event(client):
    return client.events.get(timeout=20)


one, two = connect(), connect(auth={"user": "somebody"})
assert one.call("subscribe", ("news", "sport")) == {"subscribed": ["news", "sport"]}
assert two.call("subscribe", "news") == {"subscribed": ["news"]}
for payload in PAYLOADS:
    answer = one.call("publish", ("news", payload))
    assert answer == {"published": "news", "receivers": 2}, answer
    for client in [one, two]:
        assert next_event(client) == ["message", "news", payload], payload
# An array that begins with a string is an event of its own.
two.emit("publish", ("news", ["chat", "hi", {"deep": [1]}]))
for client in [one, two]:
    assert next_event(client) == ["chat", "hi", {"deep": [1]}]
assert "error" in two.call("nobody knows", ("a", b"\x01"))
assert two.call("unsubscribe", "news") == {"unsubscribed": ["news"]}
assert one.call("publish", ("news", "x")) == {"published": "news", "receivers": 1}
assert next_event(one) == ["message", "news", "x"]
# The library takes at most 16 packets at once by polling, and runs its handlers side by side.
for number in range(50):
    one.call("publish", ("news", number))
assert sorted(next_event(one)[2] for _ in range(50)) == list(range(50))
assert one.transport() == ("polling" if TRANSPORT == "polling" else "websocket")

try:
    connect(namespaces=["/nowhere"])
    raise AssertionError("the namespace exists")
except socketio.exceptions.ConnectionError:
    pass
two.disconnect()
one.disconnect()
assert not one.connected and two.events.empty()
print("done")
