/* SPDX-License-Identifier: Apache-2.0 */
/* `cqlferry copy`: settings are gathered, the cluster is asked, rows are copied, and what came of it is said.
 */
#pragma once
#include "copy/command.h"

/* Exit status, beside 0. */
enum {
	COPY_FAILED = 1,
	COPY_USAGE = 2,
	COPY_PARTLY = 3 /* done, but rows were rejected or ranges given up */
};

struct copy_request {
	struct copy_command command; /* what to copy; WITH clauses in it, flags added behind them */
	/* NULL: not given, then from cqlshrc, the environment, or a default. */
	const char *host, *username, *password, *keyspace, *credentials, *cqlshrc, *consistency, *progress,
	    *bundle, *sni;
	uint32_t port, connect_seconds; /* 0: not given */
	bool ssl, proxy, resume;
};

/* Returns the exit status; what is wrong has been printed on standard error. */
int copy_run(struct copy_request *request);
