// SPDX-License-Identifier: Apache-2.0
/*
 * rowsync: row sync on its own, without an agent: jobs as lines of JSON on standard input, results on
 * standard output.
 *
 *   rowsync ORIGIN TARGET USER PASSWORD [THREADS]       addresses with port, "10.77.1.1:9042"
 *
 *   {"from": "origin", "serial": false, "delay_ms": 0, "children": [{"text": "…", "keyspace": "ks",
 *    "values": ["00000001", null, false], "names": ["k", …]}]}
 *     a value is hexadecimal; null is null, false is not set; "names" where the request brings names
 *   {"schema": "ks"}   the schema has changed
 *   {"wait": true}     goes on when all jobs before are done
 *
 * For each job "N RESULT" (its number from 0, and 0 or an errno), in the order in which they are done; at the
 * end of input, when all are done, one line of JSON with the counters and the seconds from the first job to
 * the last.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#include "base/clock.h"
#include "mirror/rowsync.h"

#define CHILDREN_MAX 1024
#define VALUES_ROOM (4u << 20)
#define QUEUE_MAX 16384u

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static unsigned open_jobs;
static uint64_t last_ns;

static void done(void *context, int result)
{
	pthread_mutex_lock(&lock);
	printf("%zu %d\n", (size_t)context, -result);
	open_jobs--;
	last_ns = clock_now_ns();
	pthread_cond_broadcast(&ended);
	pthread_mutex_unlock(&lock);
}

static void wait_all(void)
{
	pthread_mutex_lock(&lock);
	while (open_jobs)
		pthread_cond_wait(&ended, &lock);
	fflush(stdout);
	pthread_mutex_unlock(&lock);
}

static void die(const char *what, const char *detail)
{
	fprintf(stderr, "rowsync: %s: %s\n", what, detail);
	exit(2);
}

static void address(const char *text, struct addr *ret)
{
	char copy[64], *colon;

	snprintf(copy, sizeof(copy), "%s", text);
	colon = strrchr(copy, ':');
	if (!colon)
		die(text, "no port");
	*colon = 0;
	ret->in.sin_family = AF_INET;
	ret->in.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 10));
	if (inet_pton(AF_INET, copy, &ret->in.sin_addr) != 1)
		die(text, "no IPv4 address");
}

static size_t put_u32(uint8_t *to, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(v >> (24 - 8 * i));
	return 4;
}

static size_t put_value(uint8_t *to, const json_t *value)
{
	const char *hex = json_string_value(value);

	if (!hex)
		return put_u32(to, json_is_null(value) ? (uint32_t)-1 : (uint32_t)-2);
	size_t n = strlen(hex) / 2;
	unsigned byte;

	put_u32(to, (uint32_t)n);
	for (size_t i = 0; i < n; i++) {
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			die("no hexadecimal", hex);
		to[4 + i] = (uint8_t)byte;
	}
	return 4 + n;
}

/* Values go to *room, which moves on. */
static void make_child(const json_t *j, struct rowsync_child *c, uint8_t **room)
{
	const json_t *values = json_object_get(j, "values"), *names = json_object_get(j, "names");
	uint8_t *begin = *room;

	*c = (struct rowsync_child){.text = span_text(json_string_value(json_object_get(j, "text"))),
				    .keyspace = json_string_value(json_object_get(j, "keyspace")),
				    .values_count = (uint16_t)json_array_size(values),
				    .names = names != NULL,
				    .version = 4};
	for (size_t i = 0; i < json_array_size(values); i++) {
		if (names) {
			const char *name = json_string_value(json_array_get(names, i));
			size_t n = strlen(name);

			*(*room)++ = (uint8_t)(n >> 8);
			*(*room)++ = (uint8_t)n;
			memcpy(*room, name, n);
			*room += n;
		}
		*room += put_value(*room, json_array_get(values, i));
	}
	c->values = span_of(begin, (size_t)(*room - begin));
}

static void submit(struct rowsync *rs, const json_t *j, size_t number)
{
	static struct rowsync_child children[CHILDREN_MAX];
	static uint8_t values[VALUES_ROOM];
	const json_t *list = json_object_get(j, "children");
	const char *from = json_string_value(json_object_get(j, "from"));
	uint64_t delay_ms = (uint64_t)json_integer_value(json_object_get(j, "delay_ms"));
	uint8_t *room = values;
	struct rowsync_job job = {.from = from && !strcmp(from, "target") ? TARGET : ORIGIN,
				  .serial = json_is_true(json_object_get(j, "serial")),
				  .not_before_ns = delay_ms ? clock_now_ns() + delay_ms * 1000000u : 0,
				  .child_count = (unsigned)json_array_size(list),
				  .children = children,
				  .done = done,
				  .context = (void *)number};
	int rc;

	if (job.child_count > CHILDREN_MAX)
		die("too many children", "");
	for (unsigned i = 0; i < job.child_count; i++)
		make_child(json_array_get(list, i), &children[i], &room);
	pthread_mutex_lock(&lock);
	open_jobs++;
	/* One place for those that are on their way, or it would be refused now and then. */
	while (open_jobs > QUEUE_MAX)
		pthread_cond_wait(&ended, &lock);
	pthread_mutex_unlock(&lock);
	rc = rowsync_submit(rs, &job);
	if (rc)
		done((void *)number, rc);
}

int main(int argc, char **argv)
{
	static struct relay_options relay;
	struct rowsync_options options = {.relay = &relay, .queue_max = QUEUE_MAX};
	struct rowsync_counters c;
	struct error error = {0};
	char *line = NULL;
	size_t room = 0, number = 0;
	uint64_t first_ns = 0;

	if (argc < 5)
		die("usage", "rowsync ORIGIN TARGET USER PASSWORD [THREADS]");
	for (int side = 0; side < SIDES; side++) {
		address(argv[1 + side], &relay.cluster[side].nodes[0]);
		relay.cluster[side].node_count = 1;
		relay.cluster[side].username = argv[3];
		relay.cluster[side].password = argv[4];
	}
	if (argc > 5)
		options.threads = (unsigned)strtoul(argv[5], NULL, 10);
	struct rowsync *rs = rowsync_new(&options, &error);

	if (!rs)
		die("start", error.text);
	while (getline(&line, &room, stdin) > 0) {
		json_error_t why;
		json_t *j = json_loads(line, 0, &why);

		if (!j)
			die("input", why.text);
		if (json_object_get(j, "wait")) {
			wait_all();
			puts("waited");
			fflush(stdout);
		} else if (json_object_get(j, "schema")) {
			rowsync_schema_changed(rs, json_string_value(json_object_get(j, "schema")));
		} else {
			if (!first_ns)
				first_ns = clock_now_ns();
			submit(rs, j, number++);
		}
		json_decref(j);
	}
	wait_all();
	rowsync_count(rs, &c);
	printf("{\"done\": %llu, \"failed\": %llu, \"merged\": %llu, \"retries\": %llu, \"rows\": %llu, "
	       "\"repaired\": %llu, \"deleted\": %llu, \"splits\": %llu, \"seconds\": %.3f}\n",
	       (unsigned long long)c.done, (unsigned long long)c.failed, (unsigned long long)c.merged,
	       (unsigned long long)c.retries, (unsigned long long)c.rows, (unsigned long long)c.repaired,
	       (unsigned long long)c.deleted, (unsigned long long)c.splits,
	       first_ns ? (double)(last_ns - first_ns) / 1e9 : 0.0);
	rowsync_stop(rs);
	rowsync_free(rs);
	free(line);
	return 0;
}
