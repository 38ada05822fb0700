/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* Is this destination one that we steer? Longest prefix wins, so that an exception inside a watched network
 * is possible. */
#pragma once
#include "endpoint.h"
#include "maps.h"

/* The matching entry, or NULL when the destination is not watched or excepted. */
static __always_inline struct watch *watch_match(const struct endpoint *to)
{
	struct watch *w;

	if (to->ip == 4) {
		struct watch4_key key = {.prefixlen = 64, .port = to->port};

		__builtin_memcpy(key.address, to->address, 4);
		w = bpf_map_lookup_elem(&watch4, &key);
	} else {
		struct watch6_key key = {.prefixlen = 160, .port = to->port};

		__builtin_memcpy(key.address, to->address, 16);
		w = bpf_map_lookup_elem(&watch6, &key);
	}
	if (!w || w->why == WATCH_EXCEPT || w->why == WATCH_NOT)
		return 0;
	return w;
}
