"""Sends datagrams to the hub beside a subscriber of redis-py: python datagrams.py PORT PROTOCOL"""

import socket
import sys

import redis

PORT, PROTOCOL = map(int, sys.argv[1:])
# Long enough for a busy machine.
PATIENCE_S = 20


def array(*words):
    """Returns a command in RESP."""
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%s" % (len(words), b"".join(parts))


def expect(subscription, kind, channel, data):
    message = subscription.get_message(timeout=PATIENCE_S)
    assert message is not None, f"no message {data!r}"
    assert (message["type"], message["channel"], message["data"]) == (kind, channel, data), message


def main():
    client = redis.Redis(port=PORT, protocol=PROTOCOL)
    subscription = client.pubsub()
    subscription.subscribe("news")
    subscription.psubscribe("n?ws")
    expect(subscription, "subscribe", b"news", 1)
    expect(subscription, "psubscribe", b"n?ws", 2)

    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(("127.0.0.1", PORT))
    sender.settimeout(PATIENCE_S)

    def answer(question):
        sender.send(question)
        got = sender.recv(65_536)
        assert len(got) <= len(question), f"the answer {got!r} is longer than {question!r}"
        return got

    # A publish reaches its subscribers. Its sender gets their number.
    every_byte = bytes(range(256))
    for question, data in [
        (b"PUBLISH news hello", b"hello"),
        (b"publish news 'two words'\r\n", b"two words"),
        (array(b"PUBLISH", b"news", b""), b""),
        (array(b"PUBLISH", b"news", every_byte), every_byte),
        (array(b"PUBLISH", b"news", b"x" * 60_000), b"x" * 60_000),
    ]:
        assert answer(question) == b":2\r\n", question
        expect(subscription, "message", b"news", data)
        expect(subscription, "pmessage", b"news", data)
    assert answer(b"PUBLISH other hello") == b":0\r\n"

    # Messages of several senders arrive in the order of sending.
    senders = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(10)]
    for number in range(100):
        senders[number % 10].sendto(b"PUBLISH news %d" % number, ("127.0.0.1", PORT))
    for number in range(100):
        expect(subscription, "message", b"news", b"%d" % number)
        expect(subscription, "pmessage", b"news", b"%d" % number)

    # The hub sends no error to a datagram, and no answer that is longer than the datagram. Answers
    # come in the order of the datagrams, so the first answer here belongs to the last command.
    for silent in [
        b"PING",
        b"PING\r\n",
        b"ECHO hello",
        b"",
        b"\xff",
        b"GET " + b"x" * 100,
        array(b"SUBSCRIBE", b"news"),
    ]:
        sender.send(silent)
    assert answer(b"ECHO 1        ") == b"$1\r\n1\r\n"
    assert answer(b"PING   ") == b"+PONG\r\n"
    assert answer(array(b"PING")) == b"+PONG\r\n"

    # The subscription and the connection still work.
    assert client.publish("news", "by stream") == 2
    expect(subscription, "message", b"news", b"by stream")
    expect(subscription, "pmessage", b"news", b"by stream")
    assert client.ping()
    print("done")


main()
