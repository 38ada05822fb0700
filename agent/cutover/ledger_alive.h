/* SPDX-License-Identifier: Apache-2.0 */
/* The file gaps.alive: the agent's last sign of life. Its bytes are described in ledger.h. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct ledger_alive {
	uint64_t sequence, backlog;
	int64_t alive_us, settled_us, since_us;
	bool mirrored, clean, missing_on_origin;
	char boot[40];
};

/* Writes the line into `slot` (LEDGER_SLOT bytes). */
void ledger_alive_encode(const struct ledger_alive *a, char *slot);

/* The newer of the two slots that are whole. False: there is none, no agent was here before. */
bool ledger_alive_read(int fd, struct ledger_alive *ret);
