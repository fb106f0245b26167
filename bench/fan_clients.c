/* Many clients of one server over TLS 1.3, who count a mark in what they are told, and one who
 * publishes. Knows no protocol: what to send, and what to wait for, comes as hexadecimal text on
 * stdin, a command a line; what was found goes to stdout. A measure for bench/fanout.py.
 *
 *   to PORT GREETED          1: the server says a line before TLS
 *   mark HEX                 one event in what is told
 *   step WHO SEND WAIT       after the handshake; s: who is told, p: who publishes
 *   blob B EVENTS HEX        what is published; each ######## in it becomes a new number
 *   beat HEX                 what each client says from time to time, see `drain`
 *   publisher, connect N     "connected N"
 *   run B TIMES PAUSE        publish, wait until all have it; no sooner than PAUSE us after the
 *                            last time. "took US US ...": from publishing to all have it
 *   until COUNT              until all have so many: "read SECONDS BYTES", since the last step
 *   flow SECONDS             read what comes, "flowed BYTES"
 *   drain                    say the beat, read what is there; "drained"
 */
#define _GNU_SOURCE
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
#include <time.h>
#include <unistd.h>

enum { MOST = 20000, STEPS = 8, BLOBS = 4, READY = 256, SIZE = 65536, CARRY = 32, PATIENCE = 60 };

struct bytes {
	unsigned char *at;
	size_t size;
};

struct client {
	int fd;
	SSL *tls;
	int told; /* counts marks; else a publisher, whose replies are dropped */
	long count;
	size_t carried;
	unsigned char carry[CARRY];
};

struct script {
	struct bytes send[STEPS], wait[STEPS];
	int steps;
};

static struct client *clients[MOST], *publisher;
static int count, poller, port, greeted;
static long target, missing;
static unsigned long number;
static unsigned long long total;
static double asked_at;
static struct bytes mark, beat, blobs[BLOBS];
static int events_of[BLOBS];
static struct script told, publishes;
static SSL_CTX *context;
/* The carry of a client stands before what is read. */
static unsigned char room[CARRY + SIZE];

static void
die(const char *what)
{
	perror(what);
	ERR_print_errors_fp(stderr);
	exit(1);
}

static double
now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static struct bytes
unhex(const char *text)
{
	size_t size = text == NULL || *text == '-' ? 0 : strlen(text) / 2;
	struct bytes made = { malloc(size + 1), size };

	for (size_t i = 0; i < size; i++)
		sscanf(text + 2 * i, "%2hhx", made.at + i);
	return made;
}

/* size bytes stand behind room + CARRY. */
static void
take(struct client *client, size_t size)
{
	unsigned char *from = room + CARRY - client->carried, *end = room + CARRY + size, *found;
	size_t keep = mark.size - 1;

	total += size;
	if (!client->told || mark.size == 0)
		return;
	long before = client->count;
	memcpy(from, client->carry, client->carried);
	for (unsigned char *at = from; (found = mark.size == 1 ?
	    memchr(at, mark.at[0], (size_t)(end - at)) :
	    memmem(at, (size_t)(end - at), mark.at, mark.size)) != NULL; at = found + mark.size)
		client->count++;
	if (keep > (size_t)(end - from))
		keep = (size_t)(end - from);
	memcpy(client->carry, end - keep, keep);
	client->carried = keep;
	if (before < target && client->count >= target)
		missing--;
}

static void
readable(struct client *client)
{
	int got;

	while ((got = SSL_read(client->tls, room + CARRY, SIZE)) > 0)
		take(client, (size_t)got);
	if (SSL_get_error(client->tls, got) != SSL_ERROR_WANT_READ)
		die("a connection was closed");
}

static void
say(struct client *client, const unsigned char *bytes, size_t size)
{
	while (size > 0) {
		int done = SSL_write(client->tls, bytes, (int)size);

		if (done > 0) {
			bytes += done;
			size -= (size_t)done;
			continue;
		}
		if (SSL_get_error(client->tls, done) != SSL_ERROR_WANT_WRITE)
			die("a connection was closed while it was written to");
		struct pollfd file = { .fd = client->fd, .events = POLLOUT };
		poll(&file, 1, -1);
	}
}

/* A turn of all that can be read; waits so long at most, ms. */
static void
turn(int patience)
{
	struct epoll_event ready[READY];
	int n = epoll_wait(poller, ready, READY, patience);

	for (int i = 0; i < n; i++)
		readable(ready[i].data.ptr);
}

static void
await_all(void)
{
	double last = now() + PATIENCE;

	while (missing > 0) {
		turn(1000);
		if (now() > last) {
			fprintf(stderr, "%ld clients wait for event %ld\n", missing, target);
			exit(1);
		}
	}
}

static void
aim(long at)
{
	target = at;
	missing = 0;
	for (int i = 0; i < count; i++)
		missing += clients[i]->count < target;
}

/* One step after the other; what comes behind the last answer counts already. */
static void
introduce(struct client *client, const struct script *script)
{
	for (int i = 0; i < script->steps; i++) {
		struct bytes wait = script->wait[i];
		size_t held = 0;
		unsigned char *found = NULL;

		asked_at = now();
		say(client, script->send[i].at, script->send[i].size);
		while (wait.size > 0 && found == NULL) {
			int got = held == SIZE ? 0 :
			    SSL_read(client->tls, room + CARRY + held, (int)(SIZE - held));

			if (got <= 0) {
				fprintf(stderr, "step %d: %.*s\n", i, (int)held, room + CARRY);
				die("no answer");
			}
			held += (size_t)got;
			found = memmem(room + CARRY, held, wait.at, wait.size);
		}
		if (found != NULL) {
			found += wait.size;
			held -= (size_t)(found - (room + CARRY));
			memmove(room + CARRY, found, held);
			if (held > 0)
				take(client, held);
		}
	}
}

static struct client *
come(const struct script *script, int is_told)
{
	struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	struct client *client = calloc(1, sizeof *client);
	struct timeval patience = { .tv_sec = PATIENCE };
	char byte = 0;
	int one = 1;

	client->fd = socket(AF_INET, SOCK_STREAM, 0);
	there.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (client->fd < 0 || connect(client->fd, (struct sockaddr *)&there, sizeof there) < 0)
		die("connect");
	while (greeted && byte != '\n')
		if (read(client->fd, &byte, 1) != 1)
			die("no greeting");
	client->tls = SSL_new(context);
	SSL_set_fd(client->tls, client->fd);
	if (SSL_connect(client->tls) != 1)
		die("handshake");
	client->told = is_told;
	introduce(client, script);
	fcntl(client->fd, F_SETFL, O_NONBLOCK);
	/* What TLS has read ahead shows on no socket. */
	readable(client);
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };
	epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &event);
	return client;
}

static void
publish(const struct bytes *blob)
{
	unsigned char *at = blob->at, *end = at + blob->size;
	char digits[24];

	while ((at = memmem(at, (size_t)(end - at), "########", 8)) != NULL) {
		snprintf(digits, sizeof digits, "%08lu", number++ % 100000000UL);
		memcpy(at, digits, 8);
		at += 8;
	}
	say(publisher, blob->at, blob->size);
}

static void
run(int which, int times, double pause)
{
	double *took = calloc((size_t)times, sizeof *took), due = now();
	struct bytes copy = { malloc(blobs[which].size), blobs[which].size };

	aim(0);
	for (int i = 0; i < times; i++) {
		double begun = now();

		while (begun < due) {
			double left = (due - begun) * 1000;

			/* The last millisecond is waited for awake. */
			turn(left > 2 ? (int)left - 1 : 0);
			begun = now();
		}
		/* One that should have begun before has waited, too. */
		if (pause > 0 && begun - due > 0.001)
			begun = due;
		due += pause;
		memcpy(copy.at, blobs[which].at, copy.size);
		aim(clients[0]->count + events_of[which]);
		publish(&copy);
		await_all();
		took[i] = now() - begun;
	}
	printf("took");
	for (int i = 0; i < times; i++)
		printf(" %.1f", took[i] * 1e6);
	printf("\n");
	free(took);
	free(copy.at);
}

static void
obey(char *line)
{
	char *word = strtok(line, " \n"), *a = strtok(NULL, " \n"), *b = strtok(NULL, " \n"),
	     *c = strtok(NULL, " \n");

	if (word == NULL)
		return;
	if (strcmp(word, "to") == 0) {
		port = atoi(a);
		greeted = atoi(b);
	} else if (strcmp(word, "mark") == 0) {
		mark = unhex(a);
	} else if (strcmp(word, "beat") == 0) {
		beat = unhex(a);
	} else if (strcmp(word, "step") == 0) {
		struct script *script = *a == 's' ? &told : &publishes;

		if (script->steps == STEPS)
			die("too many steps");
		script->send[script->steps] = unhex(b);
		script->wait[script->steps++] = unhex(c);
	} else if (strcmp(word, "blob") == 0) {
		events_of[atoi(a)] = atoi(b);
		blobs[atoi(a)] = unhex(c);
	} else if (strcmp(word, "publisher") == 0) {
		publisher = come(&publishes, 0);
		printf("publishes\n");
	} else if (strcmp(word, "connect") == 0) {
		long before = count ? clients[0]->count : 0;

		total = 0;
		for (int i = atoi(a); i > 0 && count < MOST; i--) {
			clients[count] = come(&told, 1);
			clients[count++]->count += before;
		}
		printf("connected %d\n", count);
	} else if (strcmp(word, "run") == 0) {
		run(atoi(a), atoi(b), atof(c) / 1e6);
	} else if (strcmp(word, "until") == 0) {
		aim(atol(a));
		await_all();
		printf("read %.6f %llu\n", now() - asked_at, total);
	} else if (strcmp(word, "flow") == 0) {
		double end = now() + atof(a);

		while (now() < end)
			turn(10);
		printf("flowed %llu\n", total);
	} else if (strcmp(word, "drain") == 0) {
		for (int i = 0; i < count; i++) {
			say(clients[i], beat.at, beat.size);
			readable(clients[i]);
		}
		if (publisher != NULL) {
			say(publisher, beat.at, beat.size);
			readable(publisher);
		}
		printf("drained\n");
	} else {
		fprintf(stderr, "no such command: %s\n", word);
		exit(1);
	}
	fflush(stdout);
}

int
main(void)
{
	char *line = NULL;
	size_t size = 0;

	signal(SIGPIPE, SIG_IGN);
	context = SSL_CTX_new(TLS_client_method());
	poller = epoll_create1(0);
	/* One suite, so that all do the same work, whatever a server would prefer. */
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384");
	SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
	    SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_read_ahead(context, 1);
	SSL_CTX_set_default_read_buffer_len(context, SIZE);
	printf("fan_clients ready\n");
	fflush(stdout);
	while (getline(&line, &size, stdin) > 0)
		obey(line);
	return 0;
}
