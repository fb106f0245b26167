/* The least that a relay over TLS can be: of the connections that come, the first and the second
 * are a pair, the third and the fourth, and so on; what one says the other hears. A message is
 * four bytes of length, highest first, and the payload; what has come of whole messages goes on
 * in one write. Says its port. No login, no rights, no limits: a measure for bench/bridge.py.
 *
 * cc -O2 tls_relay.c -lssl -lcrypto; tls_relay CERTIFICATE KEY
 */
#include <arpa/inet.h>
#include <fcntl.h>
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
#include <netinet/in.h>
#include <netinet/tcp.h>

enum { MOST = 1024, EVENTS = 64, HEAD = 4, SIZE = 65536 };

struct end {
	int fd;
	SSL *tls;
	struct end *other;
	size_t held;
	unsigned char buffer[SIZE];
};

static struct end *ends[MOST];
static int count;

static void
die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

/* Bytes of whole messages at the beginning of the buffer. */
static size_t
whole(const struct end *end)
{
	size_t at = 0;

	while (end->held - at >= HEAD) {
		const unsigned char *p = end->buffer + at;
		size_t size = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];

		if (size > SIZE - HEAD)
			die("a message is too long");
		if (end->held - at < HEAD + size)
			break;
		at += HEAD + size;
	}
	return at;
}

/* Waits for a side that does not take it, and everybody with it: nobody here is so slow. */
static int
pass_on(struct end *to, const unsigned char *bytes, size_t size)
{
	while (size > 0) {
		int done = SSL_write(to->tls, bytes, (int)size);

		if (done > 0) {
			bytes += done;
			size -= (size_t)done;
			continue;
		}
		if (SSL_get_error(to->tls, done) != SSL_ERROR_WANT_WRITE)
			return -1;
		struct pollfd room = { .fd = to->fd, .events = POLLOUT };
		poll(&room, 1, -1);
	}
	return 0;
}

/* 0, or -1: it is over. */
static int
readable(struct end *from)
{
	int got, reason;

	do {
		got = SSL_read(from->tls, from->buffer + from->held, (int)(SIZE - from->held));
		if (got > 0)
			from->held += (size_t)got;
	} while (got > 0 && from->held < SIZE);
	reason = got > 0 ? SSL_ERROR_NONE : SSL_get_error(from->tls, got);

	size_t size = whole(from);
	if (size > 0) {
		if (from->other == NULL || pass_on(from->other, from->buffer, size) < 0)
			return -1;
		from->held -= size;
		memmove(from->buffer, from->buffer + size, from->held);
	}
	if (reason == SSL_ERROR_NONE)
		return SSL_has_pending(from->tls) ? readable(from) : 0;
	return reason == SSL_ERROR_WANT_READ ? 0 : -1;
}

/* The handshake holds up everybody: who measures makes all connections first. */
static void
greet(SSL_CTX *context, int listener, int poller)
{
	struct end *end = calloc(1, sizeof *end);
	int one = 1;

	if (end == NULL || count == MOST)
		die("too many");
	end->fd = accept(listener, NULL, NULL);
	end->tls = SSL_new(context);
	setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	SSL_set_fd(end->tls, end->fd);
	if (SSL_accept(end->tls) != 1)
		die("handshake");
	fcntl(end->fd, F_SETFL, O_NONBLOCK);
	if (count % 2 == 1) {
		end->other = ends[count - 1];
		end->other->other = end;
	}
	ends[count++] = end;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = end };
	epoll_ctl(poller, EPOLL_CTL_ADD, end->fd, &event);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in here = { .sin_family = AF_INET };
	socklen_t size = sizeof here;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	int listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);

	if (argc != 3 || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1)
		die("tls_relay CERTIFICATE KEY");
	signal(SIGPIPE, SIG_IGN);
	SSL_CTX_set_num_tickets(context, 0);
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) < 0 || listen(listener, 64) < 0)
		die("listen");
	getsockname(listener, (struct sockaddr *)&here, &size);
	printf("tls_relay ready on %d\n", ntohs(here.sin_port));
	fflush(stdout);

	struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL }, ready[EVENTS];
	epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
	for (;;) {
		int n = epoll_wait(poller, ready, EVENTS, -1);

		for (int i = 0; i < n; i++) {
			struct end *end = ready[i].data.ptr;

			if (end == NULL)
				greet(context, listener, poller);
			else if (readable(end) < 0)
				epoll_ctl(poller, EPOLL_CTL_DEL, end->fd, NULL);
		}
	}
}
