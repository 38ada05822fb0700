// SPDX-License-Identifier: Apache-2.0
#include "copy/token.h"

#include <string.h>

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
