"""Uses the hub with the libraries websockets and picows: websocket.py PORT LIBRARY.

Two clients share a channel: text, bytes and fragments arrive, pings are answered, and the server
closes as it is told.
"""

import asyncio
import sys

PORT, LIBRARY = sys.argv[1:]
URL = f"ws://127.0.0.1:{PORT}/ws/news"
PAYLOADS = ["text", "ä€😀", "", b"\x00\xff\xfe", b"\xff" * 100_000]


async def websockets_library():
    import websockets

    async with websockets.connect(URL) as one, websockets.connect(URL) as two:
        # The library offers compression, and the hub declines.
        assert one.response.headers.get("Sec-WebSocket-Extensions") is None
        for payload in PAYLOADS:
            await one.send(payload)
            assert await one.recv() == await two.recv() == payload
        # A message in fragments.
        await one.send(["one ", "two ", "three"])
        assert await one.recv() == await two.recv() == "one two three"
        for pong in [await one.ping("first"), await one.ping("second")]:
            await pong
    assert (one.close_code, two.close_code) == (1000, 1000)

    async with websockets.connect(URL) as client:
        await client.close(4321, "the reason of an application")
    assert client.close_code == 4321

    url = f"ws://127.0.0.1:{PORT}/ws"
    async with websockets.connect(url, subprotocols=["other", "slabd.v1.json"]) as client:
        assert client.subprotocol == "slabd.v1.json"
        await client.send('{"ping":1,"id":2.50}')
        assert await client.recv() == '{"pong":1,"id":2.50}'
    async with websockets.connect(url, subprotocols=["other"]) as client:
        assert client.subprotocol is None

    # The library's interface without asyncio.
    from websockets.sync.client import connect

    def blocking():
        with connect(URL) as client:
            client.send("blocking")
            assert client.recv(timeout=20) == "blocking"

    await asyncio.to_thread(blocking)


async def picows_library():
    import picows

    class Client(picows.WSListener):
        def __init__(self):
            self.frames = asyncio.Queue()

        def on_ws_frame(self, transport, frame):
            kind = frame.msg_type
            text = kind == picows.WSMsgType.TEXT
            code = frame.get_close_code() if kind == picows.WSMsgType.CLOSE else None
            payload = frame.get_payload_as_utf8_text() if text else frame.get_payload_as_bytes()
            self.frames.put_nowait((kind, code if code else payload))
            if code:
                transport.send_close(code)
                transport.disconnect()

    async def client():
        return await picows.ws_connect(Client, URL)

    (one, heard_one), (two, heard_two) = await client(), await client()
    kinds = {str: picows.WSMsgType.TEXT, bytes: picows.WSMsgType.BINARY}
    for payload in PAYLOADS:
        kind = kinds[type(payload)]
        one.send(kind, payload.encode() if type(payload) is str else payload)
        for heard in (heard_one, heard_two):
            assert await heard.frames.get() == (kind, payload)
    # A message in fragments, with a ping between them.
    one.send(picows.WSMsgType.TEXT, b"one ", fin=False)
    one.send(picows.WSMsgType.PING, b"there?")
    assert await heard_one.frames.get() == (picows.WSMsgType.PONG, b"there?")
    one.send(picows.WSMsgType.CONTINUATION, b"two")
    assert await heard_two.frames.get() == (picows.WSMsgType.TEXT, "one two")
    two.send_close(picows.WSCloseCode.OK, b"bye")
    assert await heard_two.frames.get() == (picows.WSMsgType.CLOSE, picows.WSCloseCode.OK)
    await two.wait_disconnected()
    one.disconnect()


programs = {"websockets": websockets_library, "picows": picows_library}
asyncio.run(asyncio.wait_for(programs[LIBRARY](), 60))
print("done")
