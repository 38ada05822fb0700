/* SPDX-License-Identifier: Apache-2.0 */
#include "net/sni.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <netdb.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/magic.h"

#define SNI_MAGIC 0x5A1D00D5u
#define ADDRESSES_MAX 8

struct sni {
	uint32_t magic;
	struct sni_settings settings;
	pthread_mutex_t lock;
	char bundle_host[BUNDLE_HOST_MAX];
	struct bundle_contact contact;
	struct addr address[ADDRESSES_MAX]; /* of the proxy */
	unsigned addresses, turn;
	bool kept; /* the cache file says what is in force */
};

/* ---- what was said last */

/* A file that cannot be written is only missed at a start without the service; it is tried again. */
static void keep(struct sni *s, const struct bundle_contact *c)
{
	json_t *points = json_array(), *all;
	char address[BUNDLE_HOST_MAX + 16], fresh[4096 + 8];

	if (!s->settings.cache_file || !*s->settings.cache_file)
		goto out;
	for (unsigned i = 0; i < c->count; i++)
		json_array_append_new(points, json_string(c->host_id[i]));
	snprintf(address, sizeof(address), strchr(c->proxy_host, ':') ? "[%s]:%u" : "%s:%u", c->proxy_host,
		 c->proxy_port);
	/* As the service says it, so that one parser reads both. */
	all = json_pack("{s:i, s:s, s:{s:s, s:s, s:s, s:O}}", "version", 1, "region", c->region,
			"contact_info", "type", "sni_proxy", "local_dc", c->local_dc, "sni_proxy_address",
			address, "contact_points", points);
	snprintf(fresh, sizeof(fresh), "%s.new", s->settings.cache_file);
	s->kept = all && json_dump_file(all, fresh, JSON_INDENT(1)) == 0 &&
		  rename(fresh, s->settings.cache_file) == 0;
	json_decref(all);
out:
	json_decref(points);
}

static int recall(const struct sni *s, struct bundle_contact *ret, struct error *error)
{
	char data[64 << 10];
	ssize_t n = -1;
	int fd = -1;

	if (s->settings.cache_file && *s->settings.cache_file)
		fd = open(s->settings.cache_file, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, data, sizeof(data));
		close(fd);
	}
	return n > 0 ? bundle_contact_parse(span_of(data, (size_t)n), ret, error)
		     : error_set(error, -ENOENT, "nothing is kept");
}

/* ---- asking */

static int look_up(const struct bundle_contact *c, struct addr *address, unsigned *ret_count,
		   struct error *error)
{
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list = NULL;
	int r = getaddrinfo(c->proxy_host, NULL, &hints, &list);
	unsigned n = 0;

	if (r != 0)
		return error_set(error, -EHOSTUNREACH, "cannot look up the SNI proxy \"%s\": %s",
				 c->proxy_host, gai_strerror(r));
	for (struct addrinfo *a = list; a && n < ADDRESSES_MAX; a = a->ai_next) {
		memset(&address[n], 0, sizeof(address[n]));
		memcpy(&address[n].storage, a->ai_addr, a->ai_addrlen);
		addr_set_port(&address[n], c->proxy_port);
		addr_unmap(&address[n++]);
	}
	freeaddrinfo(list);
	*ret_count = n;
	return 0;
}

/* What is in force changes only as a whole. */
static int take(struct sni *s, const char *bundle_host, const struct bundle_contact *c, struct error *error)
{
	struct addr address[ADDRESSES_MAX];
	unsigned count = 0;
	bool differs;
	int rc = look_up(c, address, &count, error);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&s->lock);
	differs = memcmp(&s->contact, c, sizeof(*c)) != 0;
	s->contact = *c;
	memcpy(s->address, address, count * sizeof(*address));
	s->addresses = count;
	memmove(s->bundle_host, bundle_host, strlen(bundle_host) + 1);
	pthread_mutex_unlock(&s->lock);
	return differs;
}

static int ask(struct sni *s, struct bundle *b, struct bundle_contact *contact, struct error *error)
{
	int rc = bundle_read(s->settings.bundle_file, b, NULL, error);

	if (rc == 0)
		rc = bundle_ask(b, s->settings.any_name, s->settings.mark ? *s->settings.mark : 0, contact,
				error);
	return rc;
}

int sni_refresh(struct sni *s, struct error *error)
{
	struct bundle b = {0};
	struct bundle_contact contact = {0};
	int rc;

	MAGIC_CHECK(s, SNI_MAGIC);
	rc = ask(s, &b, &contact, error);
	if (rc == 0)
		rc = take(s, b.config.host, &contact, error);
	if (rc == 1 || (rc == 0 && !s->kept))
		keep(s, &contact);
	bundle_done(&b);
	return rc;
}

int sni_new(const struct sni_settings *settings, struct sni **ret, struct error *stale, struct error *error)
{
	struct sni *s = calloc(1, sizeof(*s));
	struct bundle b = {0};
	struct bundle_contact contact = {0};
	int rc;

	if (!s)
		return error_set(error, -ENOMEM, "out of memory");
	s->magic = SNI_MAGIC;
	s->settings = *settings;
	pthread_mutex_init(&s->lock, NULL);
	error_set(stale, 0, "%s", "");
	rc = ask(s, &b, &contact, error);
	if (rc == 0)
		rc = take(s, b.config.host, &contact, error);
	if (rc >= 0) {
		keep(s, &contact);
	} else if (b.config.host[0] && recall(s, &contact, NULL) == 0) { /* the bundle itself is good */
		struct error why;

		if (take(s, b.config.host, &contact, &why) >= 0) {
			error_set(stale, rc, "%s", error->text);
			rc = 0;
		}
	}
	bundle_done(&b);
	if (rc < 0) {
		sni_free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

void sni_free(struct sni *s)
{
	if (!s)
		return;
	MAGIC_CHECK(s, SNI_MAGIC);
	pthread_mutex_destroy(&s->lock);
	s->magic = 0;
	free(s);
}

unsigned sni_count(struct sni *s)
{
	unsigned n;

	pthread_mutex_lock(&s->lock);
	n = s->contact.count;
	pthread_mutex_unlock(&s->lock);
	return n;
}

static bool is_address(const char *text)
{
	unsigned char raw[16];

	return inet_pton(AF_INET, text, raw) == 1 || inet_pton(AF_INET6, text, raw) == 1;
}

void sni_endpoint(struct sni *s, unsigned node, struct endpoint *ret)
{
	*ret = (struct endpoint){.tls = s->settings.tls};
	pthread_mutex_lock(&s->lock);
	ret->addr = s->address[s->turn++ % s->addresses];
	snprintf(ret->sni, sizeof(ret->sni), "%s", s->contact.host_id[node % s->contact.count]);
	/* The proxy shows one certificate for all its nodes, made for the database's name. */
	snprintf(ret->names[0], ENDPOINT_NAME, "%s", s->bundle_host);
	if (strcmp(s->bundle_host, s->contact.proxy_host) != 0 && !is_address(s->bundle_host) &&
	    !is_address(s->contact.proxy_host))
		snprintf(ret->names[1], ENDPOINT_NAME, "%s", s->contact.proxy_host);
	pthread_mutex_unlock(&s->lock);
}
