/* SPDX-License-Identifier: Apache-2.0 */
#include "mirror/journal_format.h"

#include <errno.h>
#include <string.h>
#include <xxhash.h>

static const char magic[8] = {'C', 'Q', 'L', 'F', 'J', 'R', 'N', 'L'};

const char *journal_state_name(unsigned state)
{
	static const char *const names[ENTRY_STATES] = {"end", "in doubt", "queued", "sent", "done"};

	return state < ENTRY_STATES ? names[state] : NULL;
}

const char *journal_kind_name(unsigned kind)
{
	static const char *const names[ENTRY_KINDS] = {NULL, "write", "barrier", "counter", "rows", "prepared", "refused"};

	return kind < ENTRY_KINDS ? names[kind] : NULL;
}

uint32_t journal_check(const struct journal_entry *e, uint64_t salt)
{
	const uint8_t *from = (const uint8_t *)&e->now;
	uint64_t first;

	memcpy(&first, e, sizeof(first));
	first &= ~(uint64_t)0xFF; /* the state */
	return (uint32_t)XXH3_64bits_withSeed(from, sizeof(*e) - offsetof(struct journal_entry, now) + e->keyspace_size + e->body_size,
					      salt ^ (first * 0x9E3779B97F4A7C15u));
}

void journal_head_seal(struct journal_head *h)
{
	memcpy(h->magic, magic, sizeof(magic));
	h->version = JOURNAL_VERSION;
	h->check = XXH3_64bits(h, offsetof(struct journal_head, check));
}

int journal_head_read(struct span file, const struct journal_head **ret, const char **ret_why)
{
	const struct journal_head *h = (const void *)file.data;

	*ret_why = "it is shorter than a head";
	if (file.size < sizeof(*h))
		return -EINVAL;
	*ret_why = "it does not begin as a journal";
	if (memcmp(h->magic, magic, sizeof(magic)) != 0)
		return -EINVAL;
	*ret_why = "its head's checksum does not match";
	if (h->check != XXH3_64bits(h, offsetof(struct journal_head, check)))
		return -EINVAL;
	*ret_why = "it was written by another version";
	if (h->version != JOURNAL_VERSION)
		return -EINVAL;
	*ret = h;
	return 0;
}

static bool sound(const struct journal_entry *e, size_t left, uint64_t salt)
{
	if (left < sizeof(*e) || e->body_size > JOURNAL_ENTRY_MAX)
		return false;
	if (left < journal_entry_size(e->keyspace_size, e->body_size))
		return false;
	if (journal_kind(e) == 0 || journal_kind(e) >= ENTRY_KINDS || journal_state(e) >= ENTRY_STATES)
		return false;
	return e->check == journal_check(e, salt);
}

const struct journal_entry *journal_next(struct span file, size_t *at, bool *ret_torn)
{
	const struct journal_head *h = (const void *)file.data;
	const struct journal_entry *e;

	*ret_torn = false;
	if (*at == 0)
		*at = sizeof(*h);
	if (*at >= file.size || file.size - *at < sizeof(*e))
		return NULL;
	e = (const void *)(file.data + *at);
	if (e->state == ENTRY_END)
		return NULL;
	if (!sound(e, file.size - *at, h->salt)) {
		*ret_torn = true;
		return NULL;
	}
	*at += journal_entry_size(e->keyspace_size, e->body_size);
	return e;
}
