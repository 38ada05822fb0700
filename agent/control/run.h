/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent's life: made from its configuration, run on the main loop, ended by a signal.
 *
 *   resolve clusters ─▶ intercept_open ─▶ relay (workers, listeners) ─▶ phases ─▶ admin, http ─▶ watch list ─▶ serve … SIGTERM
 *   … ─▶ phases_stop ─▶ relay_stop (answers what is in flight) ─▶ intercept_close(KEEP)
 */
#pragma once
#include "control/cli.h"

/* cli_hooks.agent_run. */
int agent_run(const struct config *config, struct error *error);

/* cli_hooks.doctor_checks: schema, privileges, clocks. */
void run_doctor_checks(struct doctor *doctor);
