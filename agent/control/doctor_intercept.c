// SPDX-License-Identifier: Apache-2.0
/* What agent/intercept finds by trying: hooks, conflicts with other programs, probes. Only where interception
 * is enabled. */
#include "control/doctor.h"
#include "intercept/intercept.h"

static void on_finding(void *opaque, enum intercept_grade grade, const char *what, const char *remedy)
{
	static const enum doctor_grade grades[] = {
	    [INTERCEPT_FINE] = DOCTOR_OK, [INTERCEPT_NOTE] = DOCTOR_WARN, [INTERCEPT_BROKEN] = DOCTOR_FAIL};

	doctor_find(opaque, grades[grade], remedy && *remedy ? remedy : NULL, "%s", what);
}

static void check_intercept(struct doctor *d, const struct config *c, void *context)
{
	static const enum intercept_acceleration acceleration[] = {[ACCELERATION_AUTO] = INTERCEPT_AUTO,
								   [ACCELERATION_ON] = INTERCEPT_ON,
								   [ACCELERATION_OFF] = INTERCEPT_OFF};
	const struct intercept_options options = {
	    .pin_root = *c->intercept.pin_path ? c->intercept.pin_path : NULL,
	    .cgroups = (const char *const *)c->intercept.cgroups.item,
	    .cgroup_count = c->intercept.cgroups.count,
	    .acceleration = acceleration[c->intercept.acceleration],
	    .workers = config_workers(c),
	    .grace_ms = c->intercept.grace_millis,
	};

	(void)context;
	if (!c->intercept.enabled) {
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "intercept.enabled is false: clients have to be pointed at listen.port %u",
			    c->listen.port);
		return;
	}
	intercept_doctor(&options, on_finding, d);
}

void doctor_add_intercept(struct doctor *d)
{
	doctor_add(d, "interception", check_intercept, NULL);
}
