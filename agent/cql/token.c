// SPDX-License-Identifier: Apache-2.0
#include "cql/token.h"

#include <string.h>

#include "cql/wire.h"

/* MurmurHash3 (x64, 128 bits, seed 0), first half; bytes of the tail are signed, as the servers have always
 * computed it. */

static uint64_t rotate(uint64_t v, unsigned by)
{
	return v << by | v >> (64 - by);
}

static uint64_t mix(uint64_t v)
{
	v ^= v >> 33;
	v *= 0xff51afd7ed558ccdull;
	v ^= v >> 33;
	v *= 0xc4ceb9fe1a85ec53ull;
	return v ^ v >> 33;
}

static uint64_t load_le64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v; /* little-endian machines only, like the rest of the binary */
}

/* Up to eight bytes of the tail, sign-extended one by one. */
static uint64_t load_tail(const uint8_t *p, size_t size)
{
	uint64_t v = 0;

	for (size_t i = size; i-- > 0;)
		v ^= (uint64_t)(int64_t)(int8_t)p[i] << (8 * i);
	return v;
}

int64_t token_of(struct span key)
{
	const uint64_t c1 = 0x87c37b91114253d5ull, c2 = 0x4cf5ad432745937full;
	uint64_t h1 = 0, h2 = 0, k1, k2;
	size_t blocks = key.size / 16, rest = key.size % 16;
	const uint8_t *p = key.data;

	for (; blocks; blocks--, p += 16) {
		k1 = load_le64(p);
		k2 = load_le64(p + 8);
		h1 ^= rotate(k1 * c1, 31) * c2;
		h1 = (rotate(h1, 27) + h2) * 5 + 0x52dce729;
		h2 ^= rotate(k2 * c2, 33) * c1;
		h2 = (rotate(h2, 31) + h1) * 5 + 0x38495ab5;
	}
	if (rest > 8)
		h2 ^= rotate(load_tail(p + 8, rest - 8) * c2, 33) * c1;
	if (rest)
		h1 ^= rotate(load_tail(p, rest < 8 ? rest : 8) * c1, 31) * c2;
	h1 ^= key.size;
	h2 ^= key.size;
	h1 += h2;
	h2 += h1;
	h1 = mix(h1) + mix(h2);
	return (int64_t)h1 == INT64_MIN ? INT64_MAX : (int64_t)h1;
}

bool token_of_values(struct span values, const uint16_t *places, unsigned count, int64_t *ret)
{
	struct span part[TOKEN_PARTS_MAX] = {{0}};
	uint8_t key[TOKEN_KEY_MAX];
	struct wire w = wire_of(values);
	struct wire_out o = {.to = key, .capacity = sizeof(key)};

	if (count == 0 || count > TOKEN_PARTS_MAX)
		return false;
	for (unsigned at = 0, found = 0; found < count; at++) {
		struct span value = wire_bytes(&w);

		if (w.error)
			return false;
		for (unsigned i = 0; i < count; i++) {
			if (places[i] != at)
				continue;
			if (!value.data)
				return false;
			part[i] = value;
			found++;
		}
	}
	if (count > 1) {
		for (unsigned i = 0; i < count; i++) {
			out_string(&o, part[i]);
			out_byte(&o, 0);
		}
		if (o.full)
			return false;
		part[0] = span_of(key, o.at);
	}
	*ret = token_of(part[0]);
	return true;
}
