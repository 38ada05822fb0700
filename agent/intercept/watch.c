/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watch list (which destinations are ours) and the target nodes for kernel-direct.
 *
 * The tries outlive the agent. What an earlier agent was configured with and this one is not is dropped when
 * this one starts; what was learned from system.peers stays, because a client may connect to a peer before we
 * have learned it again.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "intercept/priv.h"

#include "cqlferry.skel.h"

union watch_key {
	struct watch4_key ip4;
	struct watch6_key ip6;
};

static int watch_map(const struct intercept *it, int ip)
{
	return ip == 4 ? bpf_map__fd(it->skeleton->maps.watch4) : bpf_map__fd(it->skeleton->maps.watch6);
}

/* Host bits beyond the prefix are cleared, so that one network has one key. */
static int watch_entry_from(struct watch_entry *ret_entry, const struct sockaddr *address, int prefix,
			    struct error *e)
{
	struct watch_entry entry;
	char text[ENDPOINT_TEXT];
	int bits, code;

	code = endpoint_from_sockaddr(&entry.network, address);
	if (code)
		return error_set(e, code, "watch list: address family %d is neither IPv4 nor IPv6",
				 address->sa_family);
	bits = entry.network.ip == 4 ? 32 : 128;
	/* The prefix of an IPv4-mapped network counts from the IPv6 address's first bit. */
	if (address->sa_family == AF_INET6 && entry.network.ip == 4 && prefix >= 96)
		prefix -= 96;
	if (prefix < 0)
		prefix = bits;
	if (prefix > bits)
		return error_set(e, -EINVAL, "watch list: %s/%d: a prefix has at most %d bits",
				 endpoint_text(&entry.network, text), prefix, bits);
	if (!entry.network.port)
		return error_set(e, -EINVAL, "watch list: %s: a port is needed, 9042 for instance",
				 endpoint_text(&entry.network, text));
	for (int bit = prefix; bit < bits; bit++)
		entry.network.address[bit / 8] &= (uint8_t) ~(0x80 >> bit % 8);
	entry.prefix = prefix;
	*ret_entry = entry;
	return 0;
}

static void watch_key_from(union watch_key *key, const struct watch_entry *entry)
{
	memset(key, 0, sizeof(*key));
	if (entry->network.ip == 4) {
		key->ip4.prefixlen = 32 + (uint32_t)entry->prefix;
		key->ip4.port = entry->network.port;
		memcpy(key->ip4.address, entry->network.address, 4);
	} else {
		key->ip6.prefixlen = 32 + (uint32_t)entry->prefix;
		key->ip6.port = entry->network.port;
		memcpy(key->ip6.address, entry->network.address, 16);
	}
}

static bool watch_entry_equal(const struct watch_entry *a, const struct watch_entry *b)
{
	return a->prefix == b->prefix && !memcmp(&a->network, &b->network, sizeof(a->network));
}

/* What this agent was told; only needed to drop the rest when it takes over from another. */
static int watch_note(struct intercept *it, const struct watch_entry *entry)
{
	for (size_t i = 0; i < it->watched_count; i++)
		if (watch_entry_equal(&it->watched[i], entry))
			return 0;
	if (it->watched_count == it->watched_room) {
		size_t room = it->watched_room ? 2 * it->watched_room : 64;
		struct watch_entry *grown = realloc(it->watched, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		it->watched = grown;
		it->watched_room = room;
	}
	it->watched[it->watched_count++] = *entry;
	return 0;
}

static int watch_put(struct intercept *it, const struct sockaddr *address, int prefix, enum watch_why why,
		     struct error *e)
{
	struct watch value = {0}, old;
	struct watch_entry entry;
	union watch_key key;
	char text[ENDPOINT_TEXT];
	int code;

	code = watch_entry_from(&entry, address, prefix, e);
	if (code)
		return code;
	watch_key_from(&key, &entry);
	/* A lookup gives the longest match, which is this very entry if its prefix is ours (the network is):
	 * keep its count. */
	if (!bpf_map_lookup_elem(watch_map(it, entry.network.ip), &key, &old) &&
	    old.prefix == (uint32_t)entry.prefix) {
		if (old.why == why)
			return watch_note(it, &entry);
		value.connects = old.connects;
	}
	value.why = why;
	value.prefix = (uint32_t)entry.prefix;
	if (bpf_map_update_elem(watch_map(it, entry.network.ip), &key, &value, BPF_ANY)) {
		code = errno == ENOSPC ? -E2BIG : -errno;
		return error_set(
		    e, code, "watch list: %s/%d: %s", endpoint_text(&entry.network, text), entry.prefix,
		    code == -E2BIG
			? "the list is full (4096 for each family); use networks instead of single addresses"
			: strerror(-code));
	}
	return watch_note(it, &entry);
}

int intercept_watch_add(struct intercept *it, const struct sockaddr *address, int prefix,
			enum intercept_why why, struct error *e)
{
	_Static_assert((int)INTERCEPT_CONFIGURED == (int)WATCH_CONFIGURED &&
			   (int)INTERCEPT_SERVICE == (int)WATCH_SERVICE,
		       "same numbers");
	return watch_put(it, address, prefix, (enum watch_why)why, e);
}

int intercept_watch_except(struct intercept *it, const struct sockaddr *address, int prefix, struct error *e)
{
	return watch_put(it, address, prefix, WATCH_EXCEPT, e);
}

int intercept_watch_del(struct intercept *it, const struct sockaddr *address, int prefix)
{
	struct watch_entry entry;
	union watch_key key;
	int code;

	code = watch_entry_from(&entry, address, prefix, NULL);
	if (code)
		return code;
	for (size_t i = 0; i < it->watched_count; i++)
		if (watch_entry_equal(&it->watched[i], &entry))
			it->watched[i--] = it->watched[--it->watched_count];
	watch_key_from(&key, &entry);
	return bpf_map_delete_elem(watch_map(it, entry.network.ip), &key) ? -errno : 0;
}

int watch_open(struct intercept *it, struct error *e)
{
	struct sockaddr_in probe = {.sin_family = AF_INET, .sin_port = htons(INTERCEPT_PROBE_PORT)};

	probe.sin_addr.s_addr = htonl(INTERCEPT_PROBE_IP4);
	return watch_put(it, (struct sockaddr *)&probe, -1, WATCH_PROBE, e);
}

static bool watch_is_told(const struct intercept *it, const struct watch_entry *entry)
{
	for (size_t i = 0; i < it->watched_count; i++)
		if (watch_entry_equal(&it->watched[i], entry))
			return true;
	return false;
}

static void watch_reconcile_map(struct intercept *it, int ip)
{
	union watch_key key, next;
	int fd = watch_map(it, ip);
	struct watch value;
	int more;

	for (more = !bpf_map_get_next_key(fd, NULL, &next); more;) {
		struct watch_entry entry = {0};

		/* The next key first: a deleted key has no next. */
		key = next;
		more = !bpf_map_get_next_key(fd, &key, &next);
		entry.network.ip = (uint16_t)ip;
		if (ip == 4) {
			entry.network.port = (uint16_t)key.ip4.port;
			memcpy(entry.network.address, key.ip4.address, 4);
			entry.prefix = (int)key.ip4.prefixlen - 32;
		} else {
			entry.network.port = (uint16_t)key.ip6.port;
			memcpy(entry.network.address, key.ip6.address, 16);
			entry.prefix = (int)key.ip6.prefixlen - 32;
		}
		if (bpf_map_lookup_elem(fd, &key, &value) || value.prefix != (uint32_t)entry.prefix)
			continue;
		if (value.why != WATCH_LEARNED && !watch_is_told(it, &entry))
			bpf_map_delete_elem(fd, &key);
	}
}

void watch_reconcile(struct intercept *it)
{
	watch_reconcile_map(it, 4);
	watch_reconcile_map(it, 6);
}

bool watch_has(struct intercept *it, const struct endpoint *endpoint)
{
	struct watch_entry entry = {.network = *endpoint, .prefix = endpoint->ip == 4 ? 32 : 128};
	union watch_key key;
	struct watch value;

	watch_key_from(&key, &entry);
	if (bpf_map_lookup_elem(watch_map(it, endpoint->ip), &key, &value))
		return false;
	return value.why == WATCH_CONFIGURED || value.why == WATCH_LEARNED || value.why == WATCH_SERVICE;
}

/* ---- kernel-direct */

/* New entries first, their number last: a connect that looks meanwhile finds a valid node of either list. */
int intercept_set_direct(struct intercept *it, const struct sockaddr *const *addresses, size_t count,
			 struct error *e)
{
	int fd = bpf_map__fd(it->skeleton->maps.targets);
	uint32_t filled4 = 0, filled6 = 0;

	for (size_t i = 0; i < count; i++) {
		struct endpoint endpoint;
		uint32_t key;
		int code = endpoint_from_sockaddr(&endpoint, addresses[i]);

		if (code || !endpoint.port)
			return error_set(e, code ? code : -EINVAL,
					 "target node %zu for kernel-direct: not an IP address with a port",
					 i);
		if ((endpoint.ip == 4 ? filled4 : filled6) == INTERCEPT_MAX_DIRECT)
			return error_set(e, -E2BIG, "kernel-direct takes at most %d target nodes of a family",
					 INTERCEPT_MAX_DIRECT);
		key = endpoint.ip == 4 ? filled4++ : INTERCEPT_MAX_DIRECT + filled6++;
		if (bpf_map_update_elem(fd, &key, &endpoint, BPF_ANY))
			return error_set(e, -errno, "kernel-direct target nodes: %s", strerror(errno));
	}
	_Static_assert(INTERCEPT_MAX_DIRECT == ABI_DIRECT && INTERCEPT_MAX_WATCH == ABI_WATCH, "same limits");
	__atomic_store_n(&it->settings->targets4, filled4, __ATOMIC_RELEASE);
	__atomic_store_n(&it->settings->targets6, filled6, __ATOMIC_RELEASE);
	return 0;
}
