// SPDX-License-Identifier: Apache-2.0
/*
 * Edit distance with neighbouring letters exchanged counted as one slip (optimal string alignment), because
 * that is the commonest typing error. A candidate counts as near up to a third of the word's length: beyond
 * that a suggestion misleads more often than it helps.
 */
#include "control/nearest.h"

#include <ctype.h>
#include <stdint.h>
#include <string.h>

#define WORD_MAX 96 /* longest variable name is 47 characters; longer words get no suggestion */

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

static size_t edit_distance(const char *a, size_t alen, const char *b, size_t blen)
{
	uint8_t row[3][WORD_MAX + 1];

	for (size_t j = 0; j <= blen; j++)
		row[0][j] = (uint8_t)j;
	for (size_t i = 1; i <= alen; i++) {
		uint8_t *now = row[i % 3], *before = row[(i + 2) % 3], *older = row[(i + 1) % 3];

		now[0] = (uint8_t)i;
		for (size_t j = 1; j <= blen; j++) {
			int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
			size_t d = smaller(smaller(before[j], now[j - 1]) + 1u, before[j - 1] + (x != y));

			if (i > 1 && j > 1 && x == tolower((unsigned char)b[j - 2]) &&
			    y == tolower((unsigned char)a[i - 2]))
				d = smaller(d, older[j - 2] + 1u);
			now[j] = (uint8_t)d;
		}
	}
	return row[alen % 3][blen];
}

void nearest_offer(struct nearest *n, const char *candidate)
{
	size_t alen = strlen(n->word), blen = strlen(candidate);

	if (alen > WORD_MAX || blen > WORD_MAX || alen == 0)
		return;
	size_t d = edit_distance(n->word, alen, candidate, blen);

	if (d <= (alen + 2) / 3 && (!n->best || d < n->distance)) {
		n->best = candidate;
		n->distance = d;
	}
}
