/* The floor of the TCP benchmarks: echo by one thread on epoll, with nothing else.
 *
 * Each event costs one recv and one send, which are cheaper than read and write. They share one
 * buffer on the stack, and a connection has no memory. A real server adds timeouts, limits,
 * counters and unsent output. This program closes a connection that does not take its echo at once.
 *
 *   cc -O2 -o echo echo.c && ./echo PORT [edge|wait]
 *
 * Listens on 127.0.0.1 and prints "ready PORT". PORT 0 takes a free port.
 *
 *   edge   edge-triggered instead of level-triggered. One read per edge is enough, because a read
 *          shorter than the buffer has drained the socket (epoll(7)). The rest of a longer burst
 *          waits for the next edge.
 *   wait   waits for room when a socket is full, and serves no other connection in this time: a
 *          floor for bulk.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, BACKLOG = 4096, BUFFER = 16 * 1024 };

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static unsigned interest = EPOLLIN;
static int waits = 0;

static int listen_on(unsigned short port)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    /* Accepted sockets inherit this option. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) < 0)
        die("bind");
    if (listen(fd, BACKLOG) < 0)
        die("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("getsockname");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(int listener, int epoll)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EINTR || errno == ECONNABORTED)
                continue;
            if (errno == EAGAIN)
                return;
            die("accept4");
        }
        struct epoll_event event = {.events = interest, .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            die("epoll_ctl");
    }
}

static int send_all(int fd, const char *bytes, size_t count)
{
    for (;;) {
        ssize_t sent = send(fd, bytes, count, MSG_NOSIGNAL);
        if (sent == (ssize_t)count)
            return 1;
        if (!waits || (sent < 0 && errno != EAGAIN && errno != EINTR))
            return 0;
        if (sent > 0) {
            bytes += sent;
            count -= sent;
        }
        struct pollfd room = {.fd = fd, .events = POLLOUT};
        poll(&room, 1, -1);
    }
}

static void echo(int fd)
{
    char buffer[BUFFER];
    ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !send_all(fd, buffer, n))
        close(fd);
}

int main(int argc, char **argv)
{
    const char *mode = argc == 3 ? argv[2] : "";
    waits = strcmp(mode, "wait") == 0;
    if (strcmp(mode, "edge") == 0)
        interest |= EPOLLET;
    else if (argc != 2 && !waits) {
        fprintf(stderr, "usage: %s PORT [edge|wait]\n", argv[0]);
        return 2;
    }
    int listener = listen_on(atoi(argv[1]));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event) < 0)
        die("epoll");
    static struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        if (count < 0 && errno != EINTR)
            die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener, epoll);
            else
                echo(events[i].data.fd);
        }
    }
}
