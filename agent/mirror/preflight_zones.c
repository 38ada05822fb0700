/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A timestamp literal without a zone ('2024-03-01 10:00') is read in the time zone of the coordinator's JVM. It is repeated on the other
 * cluster as it stands, so both have to be in the same one. Which one a cluster is in nobody tells; what it makes of two such literals, one
 * on either side of a change to summer time, does. One node of each is asked.
 */
#include <stdlib.h>

#include "mirror/preflight_priv.h"

/* As UTC, in ms. Of a year that is not long ago: zones change. */
#define WINTER_TEXT "2025-01-15 00:00"
#define WINTER 1736899200000
#define SUMMER_TEXT "2025-07-15 00:00"
#define SUMMER 1752537600000

struct zone {
	int64_t winter, summer; /* minutes east of UTC */
	bool known;
};

static bool instant_cell(struct span cell, int64_t *ret)
{
	uint64_t n = 0;

	if (cell.size != 8)
		return false;
	for (int i = 0; i < 8; i++)
		n = n << 8 | cell.data[i];
	*ret = (int64_t)n;
	return true;
}

static int on_instants(void *context, const struct column *columns, const struct span *cells, unsigned count)
{
	struct zone *z = context;
	int64_t winter, summer;

	if (!instant_cell(preflight_cell(columns, cells, count, "winter"), &winter) ||
	    !instant_cell(preflight_cell(columns, cells, count, "summer"), &summer))
		return 0;
	/* Midnight comes the earlier the farther east. */
	*z = (struct zone){(WINTER - winter) / 60000, (SUMMER - summer) / 60000, true};
	return 0;
}

static void put_offset(char to[16], int64_t minutes)
{
	long long n = llabs((long long)minutes);

	snprintf(to, 16, "UTC%c%02lld:%02lld", minutes < 0 ? '-' : '+', n / 60 % 100, n % 60);
}

/* "UTC+00:00", or "UTC-05:00 (in July UTC-04:00)" */
static void zone_text(const struct zone *z, char to[64])
{
	char winter[16], summer[16];

	put_offset(winter, z->winter);
	put_offset(summer, z->summer);
	if (z->winter == z->summer)
		snprintf(to, 64, "%s", winter);
	else
		snprintf(to, 64, "%s (in July %s)", winter, summer);
}

void preflight_zones(struct preflight *p)
{
	struct zone zone[SIDES] = {{0}};
	char text[SIDES][64];

	for (enum side s = ORIGIN; s < SIDES; s++) {
		struct error error = {0};
		int rc = client_query(p->client[s],
				      "SELECT (timestamp)'" WINTER_TEXT "' AS winter, (timestamp)'" SUMMER_TEXT
				      "' AS summer FROM system.local WHERE key = 'local'",
				      CL_ONE, on_instants, &zone[s], &error);

		if (rc < 0 || !zone[s].known) {
			preflight_say(p, PREFLIGHT_NOTE, NULL,
				      "%s: its time zone is not known (%s): make sure that both clusters are in the same one, or that timestamp literals name theirs",
				      side_name(s), rc < 0 && error.text[0] ? error.text : "no such answer");
			return;
		}
		zone_text(&zone[s], text[s]);
	}
	if (zone[ORIGIN].winter == zone[TARGET].winter && zone[ORIGIN].summer == zone[TARGET].summer)
		preflight_say(p, PREFLIGHT_OK, NULL, "both clusters read timestamps without a zone as %s", text[ORIGIN]);
	else
		preflight_say(p, PREFLIGHT_FAIL,
			      "give the nodes of both clusters the same time zone (-Duser.timezone, or TZ in their environment); or see that all timestamp "
			      "literals name theirs ('2025-01-15 10:00+0000')",
			      "time zones differ: the origin is at %s, the target at %s: a timestamp literal without a zone ('2025-01-15 10:00') is another instant on each",
			      text[ORIGIN], text[TARGET]);
}
