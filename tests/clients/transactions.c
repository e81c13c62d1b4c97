/* Publishes with hiredis: transactions PORT
 * Prints the replies to all publishes. Message 5 is in a transaction that the server must
 * refuse. */
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

static redisContext *client;

/* Reads the next reply, and prints its numbers. */
static void reply(int type) {
    redisReply *reply;
    if (redisGetReply(client, (void **)&reply) != REDIS_OK || reply->type != type) {
        fprintf(stderr, "reply: %s\n", client->err ? client->errstr : reply->str);
        exit(1);
    }
    for (size_t at = 0; type == REDIS_REPLY_ARRAY && at < reply->elements; at++)
        printf("%lld ", reply->element[at]->integer);
    if (type == REDIS_REPLY_INTEGER) printf("%lld ", reply->integer);
    freeReplyObject(reply);
}

static void status(const char *command) {
    redisAppendCommand(client, command);
    reply(REDIS_REPLY_STATUS);
}

int main(int argc, char **argv) {
    (void)argc;
    client = redisConnect("127.0.0.1", atoi(argv[1]));
    status("SELECT 3");
    /* All at once, then all replies. */
    const char *commands[] = {"MULTI", "PUBLISH c 1", "PUBLISH c 2", "EXEC", "PUBLISH c 3"};
    for (int at = 0; at < 5; at++) redisAppendCommand(client, commands[at]);
    for (int at = 0; at < 3; at++) reply(REDIS_REPLY_STATUS);
    reply(REDIS_REPLY_ARRAY);
    reply(REDIS_REPLY_INTEGER);
    status("WATCH key"), status("MULTI"), status("PUBLISH c 4");
    redisAppendCommand(client, "EXEC"), reply(REDIS_REPLY_ARRAY);
    status("MULTI"), status("PUBLISH c 5");
    redisAppendCommand(client, "NOSUCH"), reply(REDIS_REPLY_ERROR);
    redisAppendCommand(client, "EXEC"), reply(REDIS_REPLY_ERROR);
    redisAppendCommand(client, "PUBLISH c 6"), reply(REDIS_REPLY_INTEGER);
    printf("\n");
    return 0;
}
