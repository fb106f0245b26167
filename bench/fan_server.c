/* The least that a fan-out over TLS can be: what a publisher says, all subscribers are told. A
 * message is four bytes of length, highest first, and the payload; it is told as it came. "each":
 * in a write of its own; "joined": what has come of whole messages in one write a subscriber.
 * A connection says first what it is, and is told "ok": S subscriber, P publisher; RCOUNT,SIZE
 * and a line end: who is sent so many messages of this size, as fast as it goes. Says its port.
 * No login, no rights, nothing kept: a measure for bench/fanout.py.
 *
 * fan_server each|joined CERTIFICATE KEY
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 20000, EVENTS = 64, HEAD = 4, SIZE = 1 << 20, RECORD = 16384 };

struct peer {
	int fd, kind;
	SSL *tls;
	unsigned char *late; /* what it has not taken yet */
	size_t late_size;
};

static struct peer *subscribers[MOST];
static int count, poller, joined;
static unsigned char held[SIZE];
static size_t held_size;

static void
die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static void
wants(struct peer *peer, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = peer };

	epoll_ctl(poller, EPOLL_CTL_MOD, peer->fd, &event);
}

/* How much of it was taken. */
static size_t
push(struct peer *peer, const unsigned char *bytes, size_t size)
{
	size_t done = 0;

	while (done < size) {
		int took = SSL_write(peer->tls, bytes + done, (int)(size - done));

		if (took <= 0)
			break;
		done += (size_t)took;
	}
	return done;
}

static void
tell(struct peer *peer, const unsigned char *bytes, size_t size)
{
	size_t done = peer->late_size ? 0 : push(peer, bytes, size);

	if (done == size)
		return;
	peer->late = realloc(peer->late, peer->late_size + size - done);
	memcpy(peer->late + peer->late_size, bytes + done, size - done);
	peer->late_size += size - done;
	wants(peer, EPOLLIN | EPOLLOUT);
}

static void
writable(struct peer *peer)
{
	size_t done = push(peer, peer->late, peer->late_size);

	peer->late_size -= done;
	memmove(peer->late, peer->late + done, peer->late_size);
	if (peer->late_size == 0)
		wants(peer, EPOLLIN);
}

static void
tell_all(const unsigned char *bytes, size_t size)
{
	for (int i = 0; i < count; i++)
		tell(subscribers[i], bytes, size);
}

/* Whole messages of what has come. */
static void
pass_on(void)
{
	size_t at = 0;

	while (held_size - at >= HEAD) {
		const unsigned char *p = held + at;
		size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];

		if (size > SIZE - HEAD)
			die("a message is too long");
		if (held_size - at < HEAD + size)
			break;
		if (!joined)
			tell_all(p, HEAD + size);
		at += HEAD + size;
	}
	if (joined && at > 0)
		tell_all(held, at);
	held_size -= at;
	memmove(held, held + at, held_size);
}

/* Nobody else is served meanwhile. */
static void
send_many(struct peer *peer, const char *order)
{
	long messages = 0, size = 0;
	static unsigned char block[RECORD];
	size_t left, filled;

	if (sscanf(order, "R%ld,%ld", &messages, &size) != 2 || size < 1 || size > RECORD)
		die("R");
	filled = (size_t)(RECORD / size * size);
	memset(block, 'x', sizeof block);
	for (size_t at = 0; at < filled; at += (size_t)size)
		block[at] = '^';
	left = (size_t)(messages * size);
	while (left > 0) {
		size_t part = left < filled ? left : filled;

		for (size_t done = 0; done < part;) {
			int took = SSL_write(peer->tls, block + done, (int)(part - done));

			if (took > 0) {
				done += (size_t)took;
				continue;
			}
			if (SSL_get_error(peer->tls, took) != SSL_ERROR_WANT_WRITE)
				return;
			struct pollfd file = { .fd = peer->fd, .events = POLLOUT };
			poll(&file, 1, -1);
		}
		left -= part;
	}
}

static void
introduced(struct peer *peer, const unsigned char *bytes, int size)
{
	char order[64] = "";

	peer->kind = bytes[0];
	tell(peer, (const unsigned char *)"ok", 2);
	if (peer->kind == 'S') {
		if (count == MOST)
			die("too many");
		subscribers[count++] = peer;
	} else if (peer->kind == 'R') {
		memcpy(order, bytes, size < 63 ? (size_t)size : 63);
		send_many(peer, order);
	}
}

static void
leave(struct peer *peer)
{
	for (int i = 0; i < count; i++)
		if (subscribers[i] == peer)
			subscribers[i--] = subscribers[--count];
	SSL_free(peer->tls);
	close(peer->fd);
	free(peer->late);
	free(peer);
}

static void
readable(struct peer *peer)
{
	unsigned char first[64];
	int got;

	for (;;) {
		int publishes = peer->kind == 'P';

		got = publishes ?
		    SSL_read(peer->tls, held + held_size, (int)(SIZE - held_size)) :
		    SSL_read(peer->tls, first, sizeof first);
		if (got <= 0)
			break;
		if (publishes)
			held_size += (size_t)got;
		else if (peer->kind == 0)
			introduced(peer, first, got);
	}
	got = SSL_get_error(peer->tls, got);
	if (held_size > 0)
		pass_on();
	if (got != SSL_ERROR_WANT_READ)
		leave(peer);
}

/* The handshake holds up everybody: who measures makes all connections first. */
static void
greet(SSL_CTX *context, int listener)
{
	struct peer *peer = calloc(1, sizeof *peer);
	int one = 1;

	peer->fd = accept(listener, NULL, NULL);
	peer->tls = SSL_new(context);
	setsockopt(peer->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	SSL_set_fd(peer->tls, peer->fd);
	if (SSL_accept(peer->tls) != 1)
		die("handshake");
	fcntl(peer->fd, F_SETFL, O_NONBLOCK);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = peer };
	epoll_ctl(poller, EPOLL_CTL_ADD, peer->fd, &event);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	socklen_t size = sizeof here;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	if (argc != 4 || SSL_CTX_use_certificate_chain_file(context, argv[2]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, argv[3], SSL_FILETYPE_PEM) != 1)
		die("fan_server each|joined CERTIFICATE KEY");
	joined = strcmp(argv[1], "joined") == 0;
	poller = epoll_create1(0);
	signal(SIGPIPE, SIG_IGN);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 64) < 0)
		die("listen");
	getsockname(listener, (struct sockaddr *)&here, &size);
	printf("fan_server ready on %d\n", ntohs(here.sin_port));
	fflush(stdout);

	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL }, ready[EVENTS];
	epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int n = epoll_wait(poller, ready, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct peer *peer = ready[i].data.ptr;

			if (peer == NULL) {
				greet(context, listener);
				continue;
			}
			if (ready[i].events & EPOLLOUT)
				writable(peer);
			if (ready[i].events & ~(uint32_t)EPOLLOUT)
				readable(peer);
		}
	}
}
