// SPDX-License-Identifier: Apache-2.0
#include "net/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void ring_done(struct ring *r)
{
	free(r->nodes);
	free(r->tokens);
	free(r->replicas);
	*r = (struct ring){0};
}

int ring_add_node(struct ring *r, const struct addr *addr, const char *dc, const char *rack)
{
	struct ring_node *grown, *n;

	if (r->node_count == RING_NODES_MAX)
		return -ENOSPC;
	grown = realloc(r->nodes, (r->node_count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	r->nodes = grown;
	n = &grown[r->node_count];
	*n = (struct ring_node){.addr = *addr};
	addr_format(addr, n->text);
	snprintf(n->dc, sizeof(n->dc), "%s", dc);
	snprintf(n->rack, sizeof(n->rack), "%s", rack);
	n->local = r->node_count == 0 || !strcmp(n->dc, grown[0].dc);
	return (int)r->node_count++;
}

int ring_add_token(struct ring *r, unsigned node, int64_t token)
{
	if (r->token_count == RING_TOKENS_MAX)
		return -ENOSPC;
	if ((r->token_count & (r->token_count - 1)) == 0) {
		struct ring_token *grown =
		    realloc(r->tokens, (r->token_count ? 2 * r->token_count : 1) * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		r->tokens = grown;
	}
	r->tokens[r->token_count++] = (struct ring_token){.token = token, .node = (uint16_t)node};
	return 0;
}

static int compare_tokens(const void *a, const void *b)
{
	int64_t x = ((const struct ring_token *)a)->token, y = ((const struct ring_token *)b)->token;

	return (x > y) - (x < y);
}

static bool holds(const struct ring_replicas *list, unsigned node)
{
	for (unsigned i = 0; i < list->count; i++)
		if (list->nodes[i] == node)
			return true;
	return false;
}

/* Nodes from token `from` on, each once, as many as the factor says; of other data centers none are kept. */
static void replicas_simple(const struct ring *r, unsigned from, unsigned factor, struct ring_replicas *ret)
{
	struct ring_replicas seen = {0};

	if (factor > RING_REPLICAS_MAX)
		factor = RING_REPLICAS_MAX;
	for (unsigned i = 0; i < r->token_count && seen.count < factor; i++) {
		uint16_t node = r->tokens[(from + i) % r->token_count].node;

		if (holds(&seen, node))
			continue;
		seen.nodes[seen.count++] = node;
		if (r->nodes[node].local)
			ret->nodes[ret->count++] = node;
	}
}

static unsigned count_racks(const struct ring *r)
{
	unsigned racks = 0;

	for (unsigned i = 0; i < r->node_count; i++) {
		bool known = !r->nodes[i].local;

		for (unsigned k = 0; k < i && !known; k++)
			known = r->nodes[k].local && !strcmp(r->nodes[k].rack, r->nodes[i].rack);
		racks += !known;
	}
	return racks;
}

/* A rack gets its second replica only when each rack has one. */
static void replicas_by_rack(const struct ring *r, unsigned from, unsigned factor, unsigned racks,
			     struct ring_replicas *ret)
{
	struct ring_replicas later = {0};
	unsigned seen = 0;

	if (factor > RING_REPLICAS_MAX)
		factor = RING_REPLICAS_MAX;
	for (unsigned i = 0; i < r->token_count && ret->count < factor; i++) {
		uint16_t node = r->tokens[(from + i) % r->token_count].node;
		bool known = false;

		if (!r->nodes[node].local || holds(ret, node) || holds(&later, node))
			continue;
		for (unsigned k = 0; k < ret->count; k++)
			known |= !strcmp(r->nodes[ret->nodes[k]].rack, r->nodes[node].rack);
		if (known && seen < racks) {
			if (later.count < RING_REPLICAS_MAX)
				later.nodes[later.count++] = node;
			continue;
		}
		ret->nodes[ret->count++] = node;
		if (!known && ++seen == racks)
			for (unsigned k = 0; k < later.count && ret->count < factor; k++)
				ret->nodes[ret->count++] = later.nodes[k];
	}
	/* Fewer racks with tokens than there are nodes' racks. */
	for (unsigned k = 0; k < later.count && ret->count < factor; k++)
		if (!holds(ret, later.nodes[k]))
			ret->nodes[ret->count++] = later.nodes[k];
}

int ring_finish(struct ring *r, enum ring_strategy strategy, unsigned factor)
{
	unsigned racks = count_racks(r);

	if (r->token_count)
		qsort(r->tokens, r->token_count, sizeof(*r->tokens), compare_tokens);
	r->replicas = calloc(r->token_count ? r->token_count : 1, sizeof(*r->replicas));
	if (!r->replicas)
		return -ENOMEM;
	for (unsigned i = 0; i < r->token_count; i++) {
		if (strategy == RING_SIMPLE)
			replicas_simple(r, i, factor, &r->replicas[i]);
		else if (strategy == RING_TOPOLOGY)
			replicas_by_rack(r, i, factor, racks, &r->replicas[i]);
		else
			r->replicas[i] = (struct ring_replicas){.count = 1};
	}
	return 0;
}

unsigned ring_find(const struct ring *r, int64_t token)
{
	unsigned low = 0, high = r->token_count;

	while (low < high) {
		unsigned middle = low + (high - low) / 2;

		if (r->tokens[middle].token < token)
			low = middle + 1;
		else
			high = middle;
	}
	return low == r->token_count ? 0 : low;
}

struct range_list {
	struct token_range *ranges;
	unsigned count;
};

/* (begin, end] in `pieces` of about the same width. */
static void add_pieces(struct range_list *l, int64_t begin, int64_t end, uint32_t place, unsigned pieces)
{
	uint64_t width = (uint64_t)end - (uint64_t)begin, step;

	if (begin >= end)
		return;
	step = width / pieces ? width / pieces : 1;
	for (unsigned i = 0; i < pieces && begin < end; i++) {
		uint64_t left = (uint64_t)end - (uint64_t)begin;
		int64_t to = i + 1 == pieces || left <= step ? end : (int64_t)((uint64_t)begin + step);

		l->ranges[l->count++] = (struct token_range){.begin = begin, .end = to, .place = place};
		begin = to;
	}
}

struct token_range *ring_ranges(const struct ring *r, unsigned least, const int64_t *begin,
				const int64_t *end, unsigned *ret_count)
{
	unsigned tokens = r->token_count ? r->token_count : 1, pieces = least / tokens + 1;
	int64_t low = begin ? *begin : INT64_MIN, high = end ? *end : INT64_MAX, from = INT64_MIN;
	struct range_list l = {.ranges = calloc((size_t)(tokens + 1) * pieces, sizeof(*l.ranges))};

	if (!l.ranges)
		return NULL;
	for (unsigned i = 0; i <= r->token_count; i++) {
		int64_t to = i < r->token_count ? r->tokens[i].token : INT64_MAX;

		add_pieces(&l, from > low ? from : low, to < high ? to : high, i < r->token_count ? i : 0,
			   pieces);
		from = to;
	}
	*ret_count = l.count;
	return l.ranges;
}
