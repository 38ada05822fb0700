// SPDX-License-Identifier: Apache-2.0
/*
 * The way to each contact point: name, TCP, and one CQL round trip. OPTIONS needs no login
 * (native_protocol_v4.spec 4.1.3); its answer names the protocol versions, and whether anything but CQL
 * listens there.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "control/doctor.h"

#define ANSWER_MAX 4096 /* SUPPORTED of Cassandra 5 is about 250 bytes */
#define OP_ERROR 0x00
#define OP_OPTIONS 0x05
#define OP_SUPPORTED 0x06

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
	struct pollfd p = {.fd = fd, .events = events};
	uint64_t now;

	while ((now = clock_now_ns()) < deadline_ns) {
		int n = poll(&p, 1, (int)((deadline_ns - now) / 1000000) + 1);

		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ETIMEDOUT;
}

static int dial(const struct addrinfo *a, uint64_t deadline_ns)
{
	int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), code = 0, rc;
	socklen_t size = sizeof(code);

	if (fd < 0)
		return -errno;
	if (connect(fd, a->ai_addr, a->ai_addrlen) == 0)
		return fd;
	rc = errno == EINPROGRESS ? wait_for(fd, POLLOUT, deadline_ns) : -errno;
	if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &size) == 0 && code)
		rc = -code;
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

/* Sends OPTIONS and reads one frame's header and body. Bytes read, or −errno. */
static ssize_t ask_options(int fd, uint64_t deadline_ns, unsigned char *answer)
{
	static const unsigned char options[9] = {0x04, 0, 0, 0, OP_OPTIONS, 0, 0, 0, 0};
	size_t used = 0, wanted = 9;
	int rc;

	if (send(fd, options, sizeof(options), MSG_NOSIGNAL) != sizeof(options))
		return -errno;
	while (used < wanted) {
		ssize_t n;

		rc = wait_for(fd, POLLIN, deadline_ns);
		if (rc < 0)
			return used >= 9 ? (ssize_t)used : rc;
		n = recv(fd, answer + used, ANSWER_MAX - used, 0);
		if (n == 0)
			return used ? (ssize_t)used : -ECONNRESET;
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		used += n > 0 ? (size_t)n : 0;
		/* A TLS server answers with an alert of 7 bytes, and closes. */
		if (used >= 9) {
			uint32_t body = (uint32_t)answer[5] << 24 | (uint32_t)answer[6] << 16 |
					(uint32_t)answer[7] << 8 | answer[8];

			wanted = body > ANSWER_MAX - 9 ? ANSWER_MAX : 9 + body;
		}
	}
	return (ssize_t)used;
}

/* Strings of the multimap's entry `name` as "a, b"; the map is in the frame's body: [short n] ([string]
 * [string list])*. */
static void supported_entry(const unsigned char *body, size_t size, const char *name, char *text, size_t room)
{
	size_t at = 2, out = 0;

	text[0] = 0;
	for (unsigned entries = size >= 2 ? body[0] << 8 | body[1] : 0; entries > 0; entries--) {
		bool wanted = false;
		unsigned strings = 1; /* the key, then its list */

		for (unsigned i = 0; i < strings; i++) {
			if (at + 2 > size)
				return;
			size_t n = (size_t)(body[at] << 8 | body[at + 1]);

			if (at + 2 + n > size)
				return;
			if (i == 0)
				wanted = n == strlen(name) && !memcmp(body + at + 2, name, n);
			else if (wanted && out + 1 < room)
				out += (size_t)snprintf(text + out, room - out, "%s%.*s", out ? ", " : "",
							(int)n, body + at + 2);
			at += 2 + n;
			if (i == 0) {
				if (at + 2 > size)
					return;
				strings += (unsigned)(body[at] << 8 | body[at + 1]);
				at += 2;
			}
		}
		if (wanted)
			return;
	}
}

static void report_answer(struct doctor *d, const char *who, const unsigned char *answer, ssize_t size)
{
	char versions[256];

	if (size < 0) {
		doctor_find(d, DOCTOR_FAIL, "is this the CQL port, and does it speak without TLS?",
			    "%s accepts connections, but does not answer CQL: %s", who, strerror((int)-size));
	} else if (size >= 2 && answer[0] == 0x15 && answer[1] == 0x03) {
		doctor_find(d, DOCTOR_FAIL, "give it a listener without TLS for now", "%s speaks TLS", who);
	} else if (size >= 9 && (answer[0] & 0x80) && answer[4] == OP_SUPPORTED) {
		supported_entry(answer + 9, (size_t)size - 9, "PROTOCOL_VERSIONS", versions,
				sizeof(versions));
		doctor_find(d, DOCTOR_OK, NULL, "%s speaks CQL%s%s", who, *versions ? ": " : "", versions);
	} else if (size >= 9 && (answer[0] & 0x80) && answer[4] == OP_ERROR) {
		doctor_find(d, DOCTOR_WARN, "cqlferry needs protocol v4 or v5 on both clusters",
			    "%s speaks CQL, but refuses protocol v4 (answers with version %u)", who,
			    answer[0] & 0x7f);
	} else {
		doctor_find(d, DOCTOR_FAIL, "is this the CQL port?",
			    "%s answers with something that is not CQL", who);
	}
}

static void check_node(struct doctor *d, const struct config *c, const char *cluster,
		       struct config_endpoint node)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
	unsigned char answer[ANSWER_MAX];
	char port[8], who[320];
	int rc, fd = -EHOSTUNREACH;

	snprintf(port, sizeof(port), "%u", node.port);
	snprintf(who, sizeof(who), "%s %s port %s", cluster, node.host, port);
	rc = getaddrinfo(node.host, port, &hints, &list);
	if (rc != 0) {
		doctor_find(d, DOCTOR_FAIL, "correct the name, or give an address", "%s: %s", who,
			    gai_strerror(rc));
		return;
	}
	uint64_t deadline = clock_now_ns() + (uint64_t)c->limits.dial_timeout_millis * 1000000u;

	for (struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
		fd = dial(a, deadline);
	freeaddrinfo(list);
	if (fd < 0) {
		doctor_find(d, DOCTOR_FAIL,
			    fd == -ECONNREFUSED
				? "is the node up, and is this its CQL port?"
				: "is there a route, and does no firewall or NetworkPolicy drop it?",
			    "%s cannot be reached: %s", who, strerror(-fd));
		return;
	}
	ssize_t size = ask_options(fd, deadline, answer);

	close(fd);
	report_answer(d, who, answer, size);
}

static void check_clusters(struct doctor *d, const struct config *c, void *context)
{
	(void)context;
	for (size_t i = 0; i < c->origin.contact_points.count; i++)
		check_node(d, c, "origin", config_endpoint(&c->origin, i));
	for (size_t i = 0; i < c->target.contact_points.count; i++)
		check_node(d, c, "target", config_endpoint(&c->target, i));
	if (!c->origin.contact_points.count)
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "origin.contactPoints is empty: the origin is learned from the clients");
	if (!c->target.contact_points.count)
		doctor_find(d, DOCTOR_NOTE, NULL, "target.contactPoints is empty: nothing can be mirrored");
}

void doctor_add_clusters(struct doctor *d)
{
	doctor_add(d, "clusters", check_clusters, NULL);
}
