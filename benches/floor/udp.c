/* The floor of the UDP benchmark: echo by one thread in batches of up to 64 datagrams, with one
 * recvmmsg(2) and one sendmmsg(2) per batch.
 *
 * The headers are static. Each received datagram is sent back through the same header, and only the
 * two lengths that the calls change are restored afterwards.
 *
 *   cc -O2 -o udp udp.c && ./udp PORT
 *
 * Binds 127.0.0.1 and prints "ready PORT". PORT 0 takes a free port.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, BUFFER = 2048 };

static char buffers[BATCH][BUFFER];
static struct sockaddr_in sources[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr headers[BATCH];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static int bind_to(unsigned short port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("socket");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(fd, (struct sockaddr *)&address, length) < 0)
        die("bind");
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0)
        die("getsockname");
    printf("ready %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void echo_batch(int fd)
{
    int received = recvmmsg(fd, headers, BATCH, MSG_DONTWAIT, NULL);
    if (received < 0) {
        if (errno == EAGAIN || errno == EINTR)
            return;
        die("recvmmsg");
    }
    for (int i = 0; i < received; i++)
        vectors[i].iov_len = headers[i].msg_len;
    for (int sent = 0; sent < received;) {
        int n = sendmmsg(fd, headers + sent, received - sent, 0);
        if (n < 0 && errno != EINTR)
            die("sendmmsg");
        if (n > 0)
            sent += n;
    }
    for (int i = 0; i < received; i++) {
        vectors[i].iov_len = BUFFER;
        headers[i].msg_hdr.msg_namelen = sizeof sources[i];
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: %s PORT\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < BATCH; i++) {
        vectors[i] = (struct iovec){.iov_base = buffers[i], .iov_len = BUFFER};
        headers[i].msg_hdr = (struct msghdr){
            .msg_name = &sources[i],
            .msg_namelen = sizeof sources[i],
            .msg_iov = &vectors[i],
            .msg_iovlen = 1};
    }
    int fd = bind_to(atoi(argv[1]));
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        die("epoll");
    for (;;) {
        if (epoll_wait(epoll, &event, 1, -1) > 0)
            echo_batch(fd);
        else if (errno != EINTR)
            die("epoll_wait");
    }
}
