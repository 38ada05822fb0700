/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/ledger_alive.h"

#include <inttypes.h>
#include <libdeflate.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cutover/ledger.h"

void ledger_alive_encode(const struct ledger_alive *a, char *slot)
{
	char text[LEDGER_SLOT];
	int n = snprintf(text, sizeof(text), "1 %" PRIu64 " %" PRId64 " %" PRId64 " %" PRId64 " %d %d %d %" PRIu64 " %s ", a->sequence,
			 a->alive_us, a->settled_us, a->since_us, a->mirrored, a->clean, a->missing_on_origin, a->backlog,
			 a->boot[0] ? a->boot : "-");

	snprintf(text + n, sizeof(text) - (size_t)n, "%08x", libdeflate_crc32(0, text, (size_t)n));
	memset(slot, ' ', LEDGER_SLOT);
	memcpy(slot, text, strlen(text));
	slot[LEDGER_SLOT - 1] = '\n';
}

static bool alive_decode(const char *slot, struct ledger_alive *ret)
{
	char text[LEDGER_SLOT + 1], crc[9];
	struct ledger_alive a = {0};
	int mirrored, clean, origin, n = 0;

	memcpy(text, slot, LEDGER_SLOT);
	text[LEDGER_SLOT] = 0;
	if (sscanf(text, "1 %" SCNu64 " %" SCNd64 " %" SCNd64 " %" SCNd64 " %d %d %d %" SCNu64 " %39s %n", &a.sequence, &a.alive_us,
		   &a.settled_us, &a.since_us, &mirrored, &clean, &origin, &a.backlog, a.boot, &n) != 9 || n <= 0 || n > LEDGER_SLOT - 9)
		return false;
	snprintf(crc, sizeof(crc), "%08x", libdeflate_crc32(0, text, (size_t)n));
	if (memcmp(text + n, crc, 8) != 0)
		return false;
	a.mirrored = mirrored != 0;
	a.clean = clean != 0;
	a.missing_on_origin = origin != 0;
	*ret = a;
	return true;
}

bool ledger_alive_read(int fd, struct ledger_alive *ret)
{
	char slots[2 * LEDGER_SLOT] = {0};
	struct ledger_alive a;
	bool any = false;

	if (pread(fd, slots, sizeof(slots), 0) < LEDGER_SLOT)
		return false;
	for (int i = 0; i < 2; i++) {
		if (!alive_decode(slots + i * LEDGER_SLOT, &a) || (any && a.sequence < ret->sequence))
			continue;
		*ret = a;
		any = true;
	}
	return any;
}
