/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line. main() is: fill cli_hooks, return cli_main(…).
 *
 * Exit status: 0 done; 1 refused or failed, the reason on standard error; 2 the command line was not
 * understood.
 */
#pragma once
#include "base/error.h"
#include "control/config.h"
#include "control/doctor.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

/* Runs the agent in the foreground until it is told to stop. 0, or −errno with the reason. `config` is
 * checked and stays valid. */
typedef int (*cli_agent_run)(const struct config *config, struct error *error);

struct cli_hooks {
	cli_agent_run agent_run;
	/* Adds checks to `cqlferry doctor` behind the built-in ones (doctor_add). NULL = none. */
	void (*doctor_checks)(struct doctor *doctor);
};

int cli_main(int argc, char **argv, cli_agent_run agent_run);
int cli_main_with(int argc, char **argv, const struct cli_hooks *hooks);
