"""Two processes' worth of Django Channels over one broker: groups, and messages to one channel."""

import asyncio
import sys

from channels_redis.pubsub import RedisPubSubChannelLayer


async def main(url):
    one, two = (RedisPubSubChannelLayer(hosts=[url]) for _ in range(2))
    names = [await layer.new_channel() for layer in (one, two, two)]
    for layer, name in zip((one, two, two), names):
        await layer.group_add("room", name)
    for number in range(100):
        sender = (one, two)[number % 2]
        await sender.group_send("room", {"type": "chat", "number": number})
        for layer, name in zip((one, two, two), names):
            message = await asyncio.wait_for(layer.receive(name), 5)
            assert message["number"] == number, message
    await one.group_discard("room", names[0])
    await two.group_send("room", {"type": "chat", "number": "last"})
    for name in names[1:]:
        assert (await asyncio.wait_for(two.receive(name), 5))["number"] == "last"
    await two.send(names[0], {"type": "direct"})
    assert await asyncio.wait_for(one.receive(names[0]), 5) == {"type": "direct"}
    print("all messages arrived")


asyncio.run(main(sys.argv[1]))
