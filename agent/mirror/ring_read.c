/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/ring_read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MURMUR "org.apache.cassandra.dht.Murmur3Partitioner"

struct reading {
	struct ring *ring;
	const struct addr *self;
};

/* A cell as text; "" for null. What does not fit is cut. */
static const char *cell_text(struct span cell, char *to, size_t size)
{
	snprintf(to, size, "%.*s", (int)cell.size, cell.data ? (const char *)cell.data : "");
	return to;
}

static bool read_token(struct span text, int64_t *ret)
{
	char copy[24], *end;

	if (text.size == 0 || text.size >= sizeof(copy))
		return false;
	cell_text(text, copy, sizeof(copy));
	errno = 0;
	*ret = strtoll(copy, &end, 10);
	return errno == 0 && *end == 0;
}

/* A set of tokens, which are text. Those of other partitioners are not kept. */
static int add_tokens(struct ring *r, unsigned node, struct span set)
{
	struct span token;
	uint32_t n;
	int64_t value;
	int rc = 0;

	if (!r->hashed || !set.data)
		return 0;
	if (!span_take_u32(&set, &n))
		return -EPROTO;
	for (; n && rc == 0; n--) {
		if (!span_take_bytes(&set, &token))
			return -EPROTO;
		if (read_token(token, &value))
			rc = ring_add_token(r, node, value);
	}
	return rc;
}

/* An id that is no UUID leaves a node without one, which is then spoken to through the control host. */
static void keep_id(struct ring_node *n, struct span id)
{
	if (id.size != 16)
		return;
	for (unsigned i = 0, at = 0; i < 16; i++)
		at += (unsigned)snprintf(n->id + at, sizeof(n->id) - at, "%s%02x",
					 i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id.data[i]);
}

static int add_node(struct ring *r, const struct addr *addr, struct span dc, struct span rack, struct span tokens, struct span id)
{
	char dc_text[64], rack_text[64];
	int node = ring_add_node(r, addr, cell_text(dc, dc_text, sizeof(dc_text)), cell_text(rack, rack_text, sizeof(rack_text)));

	if (node < 0)
		return node;
	keep_id(&r->nodes[node], id);
	return add_tokens(r, (unsigned)node, tokens);
}

static int on_local(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	const struct reading *reading = context;

	(void)columns;
	if (count != 5)
		return -EPROTO;
	reading->ring->hashed = span_equal(cells[3], span_text(MURMUR));
	return add_node(reading->ring, reading->self, cells[0], cells[1], cells[2], cells[4]);
}

static bool take_address(struct span cell, uint16_t port, struct addr *ret)
{
	static const uint8_t any[16];

	memset(ret, 0, sizeof(*ret));
	if ((cell.size != 4 && cell.size != 16) || !memcmp(cell.data, any, cell.size))
		return false;
	if (cell.size == 4) {
		ret->in.sin_family = AF_INET;
		memcpy(&ret->in.sin_addr, cell.data, 4);
	} else {
		ret->in6.sin6_family = AF_INET6;
		memcpy(&ret->in6.sin6_addr, cell.data, 16);
	}
	addr_set_port(ret, port);
	return true;
}

/* peer, native address, data center, rack, tokens, host id [, port] */
static int on_peer(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	const struct reading *reading = context;
	uint32_t port = addr_port(reading->self);
	struct span number;
	struct addr addr;

	(void)columns;
	if (count < 6)
		return -EPROTO;
	number = count > 6 ? cells[6] : span_of(NULL, 0);
	if (number.size == 4)
		span_take_u32(&number, &port);
	if (!cells[4].data || (!take_address(cells[1], (uint16_t)port, &addr) && !take_address(cells[0], (uint16_t)port, &addr)))
		return 0;
	return add_node(reading->ring, &addr, cells[2], cells[3], cells[4], cells[5]);
}

int ring_read(struct ring *r, struct client *client, const struct addr *self, struct error *error)
{
	struct reading reading = {.ring = r, .self = self};
	int rc = client_query(client, "SELECT data_center, rack, tokens, partitioner, host_id FROM system.local WHERE key = 'local'",
			      CL_LOCAL_ONE, on_local, &reading, error);

	if (rc == 0 && r->node_count == 0)
		return error_set(error, -EPROTO, "%s: system.local has no row", client_node(client));
	if (rc < 0)
		return rc;
	rc = client_query(client, "SELECT peer, native_address, data_center, rack, tokens, host_id, native_port FROM system.peers_v2",
			  CL_LOCAL_ONE, on_peer, &reading, error);
	if (rc != -EINVAL)
		return rc;
	*error->text = 0; /* before Cassandra 4 */
	return client_query(client, "SELECT peer, rpc_address, data_center, rack, tokens, host_id FROM system.peers", CL_LOCAL_ONE, on_peer,
			    &reading, error);
}

/* "3", or "3/1" where one of them is transient. */
static unsigned factor_of(struct span text)
{
	unsigned n = 0;

	for (size_t i = 0; i < text.size && text.data[i] >= '0' && text.data[i] <= '9' && n < 1000; i++)
		n = n * 10 + text.data[i] - '0';
	return n;
}

bool ring_read_replication(struct span map, const char *dc, struct ring_replication *ret)
{
	struct span key, value;
	uint32_t n;

	*ret = (struct ring_replication){.strategy = RING_LOCAL};
	if (!span_take_u32(&map, &n))
		return false;
	for (; n; n--) {
		if (!span_take_bytes(&map, &key) || !span_take_bytes(&map, &value))
			return false;
		if (span_equal(key, span_text("class"))) {
			ret->strategy = memmem(value.data, value.size, "SimpleStrategy", 14)            ? RING_SIMPLE
					: memmem(value.data, value.size, "NetworkTopologyStrategy", 23) ? RING_TOPOLOGY
													: RING_LOCAL;
		} else if (span_equal(key, span_text("replication_factor")) || span_equal(key, span_text(dc))) {
			ret->factor = factor_of(value);
		}
	}
	return true;
}
