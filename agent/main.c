/* SPDX-License-Identifier: Apache-2.0 */
/* cqlferry: one binary; the command line decides what it does. */
#include "control/cli.h"
#include "control/run.h"

int main(int argc, char **argv)
{
	static const struct cli_hooks hooks = {.agent_run = agent_run, .doctor_checks = run_doctor_checks};

	return cli_main_with(argc, argv, &hooks);
}
