"""Publishes with one client library: transactions.py PORT LIBRARY [PROTOCOL]

Prints the replies to all publishes. Message 5 is in a transaction that the server must refuse.
"""

import asyncio
import sys


def like_redis_py(library, port, protocol):
    client = library.Redis(port=port, db=3, client_name="tester", protocol=protocol)
    replies = client.pipeline().publish("c", 1).publish("c", 2).execute()
    replies += client.pipeline(transaction=False).publish("c", 3).execute()
    with client.pipeline() as pipeline:
        pipeline.watch("key")
        pipeline.multi()
        replies += pipeline.publish("c", 4).execute()
    try:
        client.pipeline().publish("c", 5).execute_command("NOSUCH").execute()
        raise AssertionError("a refused transaction raises no error")
    except library.exceptions.ResponseError as error:
        assert "unknown command" in str(error), error
    replies.append(client.publish("c", 6))
    assert client.info("replication")["role"] == "master"
    assert client.info()["loading"] == 0
    return replies


async def coredis(port, protocol):
    import coredis

    options = {} if protocol == 3 else {"noevict": True, "notouch": True}
    client = coredis.Redis(port=port, db=3, client_name="tester", **options)
    async with client:
        async with client.pipeline(transaction=True) as pipeline:
            first = [pipeline.publish("c", "1"), pipeline.publish("c", "2")]
        async with client.pipeline(transaction=False) as pipeline:
            first.append(pipeline.publish("c", "3"))
        async with client.pipeline(transaction=True) as pipeline:
            first.append(pipeline.publish("c", "4"))
        return [await reply for reply in first] + [await client.publish("c", "6")]


async def glide(port, protocol):
    from glide import Batch, GlideClient, GlideClientConfiguration, NodeAddress
    from glide import ProtocolVersion, RequestError

    version = ProtocolVersion.RESP3 if protocol == 3 else ProtocolVersion.RESP2
    nodes = [NodeAddress("127.0.0.1", port)]
    client = await GlideClient.create(
        GlideClientConfiguration(nodes, database_id=3, client_name="tester", protocol=version)
    )

    def batch(*messages, is_atomic=True):
        commands = Batch(is_atomic=is_atomic)
        for message in messages:
            commands.publish(message, "c")
        return commands

    replies = await client.exec(batch("1", "2"), True)
    replies += await client.exec(batch("3", is_atomic=False), True)
    await client.watch(["key"])
    replies += await client.exec(batch("4"), True)
    try:
        await client.exec(batch("5").custom_command(["NOSUCH"]), True)
        raise AssertionError("a refused transaction raises no error")
    except RequestError:
        pass
    replies.append(await client.publish("6", "c"))
    await client.close()
    return replies


def main():
    port, library, protocol = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if library in ("redis", "valkey"):
        replies = like_redis_py(__import__(library), port, protocol)
    else:
        replies = asyncio.run(globals()[library](port, protocol))
    print(*replies)


main()
