/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/replicas.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "cql/statement.h"
#include "mirror/ring_read.h"

#define REPLICATIONS_MAX 16u /* different ones; keyspaces with others are not answered for */
#define KEYSPACES_MAX 4096u  /* nor those beyond so many */

_Static_assert(RELAY_NODES_MAX <= 64, "a bit for each contact point");

struct replication {
	struct ring_replication how;
	uint64_t *holders; /* of each range of the ring */
};

struct keyspace {
	char name[CQL_NAME_MAX + 1];
	const uint64_t *holders;
};

struct replicas {
	_Atomic uint32_t references;
	struct ring ring;
	struct replication replications[REPLICATIONS_MAX];
	unsigned replication_count;
	struct keyspace *keyspaces; /* by name, once all are there */
	unsigned keyspace_count;
	uint64_t points[RING_NODES_MAX]; /* which contact points a node is */
};

struct replicas *replicas_get(struct replicas *s)
{
	atomic_fetch_add_explicit(&s->references, 1, memory_order_relaxed);
	return s;
}

void replicas_put(struct replicas *s)
{
	if (!s || atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) != 1)
		return;
	for (unsigned i = 0; i < s->replication_count; i++)
		free(s->replications[i].holders);
	free(s->keyspaces);
	ring_done(&s->ring);
	free(s);
}

/* Which node is which contact point. */
static int find_points(struct replicas *s, const struct cluster *c, struct error *error)
{
	unsigned found = 0;

	if (!s->ring.hashed || s->ring.token_count == 0)
		return error_set(error, -ENOTSUP, "its partitioner is not Murmur3Partitioner");
	for (unsigned i = 0; i < c->node_count; i++) {
		for (unsigned node = 0; node < s->ring.node_count; node++) {
			if (!addr_equal(&c->nodes[i], &s->ring.nodes[node].addr))
				continue;
			if (!s->ring.nodes[node].local)
				return error_set(error, -ENOTSUP, "its contact points lie in more than one data center");
			found += !s->points[node];
			s->points[node] |= (uint64_t)1 << i;
			break;
		}
	}
	return found < 2 ? error_set(error, -ENOTSUP, "fewer than two of its contact points are addresses that its nodes name as theirs") : 0;
}

/* Who holds what under that replication; NULL in *ret = there is no room for another. */
static int find_holders(struct replicas *s, const struct ring_replication *how, const uint64_t **ret)
{
	struct replication *r = s->replications;
	struct ring *ring = &s->ring;

	*ret = NULL;
	for (; r < s->replications + s->replication_count; r++) {
		if (r->how.strategy == how->strategy && r->how.factor == how->factor) {
			*ret = r->holders;
			return 0;
		}
	}
	if (s->replication_count == REPLICATIONS_MAX)
		return 0;
	free(ring->replicas);
	if (ring_finish(ring, how->strategy, how->factor) < 0)
		return -ENOMEM;
	*r = (struct replication){.how = *how, .holders = calloc(ring->token_count, sizeof(*r->holders))};
	if (!r->holders)
		return -ENOMEM;
	s->replication_count++;
	for (unsigned i = 0; i < ring->token_count; i++)
		for (unsigned k = 0; k < ring->replicas[i].count; k++)
			r->holders[i] |= s->points[ring->replicas[i].nodes[k]];
	*ret = r->holders;
	return 0;
}

static int on_keyspace(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct replicas *s = context;
	struct ring_replication how;
	const uint64_t *holders;
	struct keyspace *grown;
	int r;

	(void)columns;
	if (count != 2 || !ring_read_replication(cells[1], s->ring.nodes[0].dc, &how))
		return -EPROTO;
	if (how.strategy == RING_LOCAL || cells[0].size > CQL_NAME_MAX || s->keyspace_count == KEYSPACES_MAX)
		return 0;
	r = find_holders(s, &how, &holders);
	if (r < 0 || !holders)
		return r;
	grown = realloc(s->keyspaces, (s->keyspace_count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	s->keyspaces = grown;
	grown += s->keyspace_count++;
	*grown = (struct keyspace){.holders = holders};
	if (cells[0].size)
		memcpy(grown->name, cells[0].data, cells[0].size);
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct keyspace *)a)->name, ((const struct keyspace *)b)->name);
}

int replicas_read(struct client *client, const struct cluster *cluster, unsigned point, struct replicas **ret, struct error *error)
{
	struct replicas *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(error, -ENOMEM, "out of memory");
	s->references = 1;
	r = ring_read(&s->ring, client, &cluster->nodes[point], error);
	if (r == 0)
		r = find_points(s, cluster, error);
	if (r == 0)
		r = client_query(client, "SELECT keyspace_name, replication FROM system_schema.keyspaces", CL_LOCAL_ONE, on_keyspace, s, error);
	if (r < 0) {
		if (!*error->text)
			error_set(error, r, "%s: the ring cannot be understood: %s", client_node(client), strerror(-r));
		replicas_put(s);
		return r;
	}
	if (s->keyspace_count)
		qsort(s->keyspaces, s->keyspace_count, sizeof(*s->keyspaces), by_name);
	*ret = s;
	return 0;
}

static int named(const void *name, const void *keyspace)
{
	return strcmp(name, ((const struct keyspace *)keyspace)->name);
}

uint64_t replicas_holders(const struct replicas *s, const char *keyspace, int64_t token)
{
	const struct keyspace *k =
	    s->keyspace_count ? bsearch(keyspace, s->keyspaces, s->keyspace_count, sizeof(*s->keyspaces), named) : NULL;

	return k ? k->holders[ring_find(&s->ring, token)] : 0;
}
