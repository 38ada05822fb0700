/* SPDX-License-Identifier: Apache-2.0 */
/* Settings of a copy from where cqlsh has them: the command line, the environment, cqlshrc, a credentials
 * file. */
#pragma once
#include "copy/cloud.h"
#include "copy/cluster.h"
#include "copy/copy.h"
#include "copy/rc.h"
#include "copy/ssl.h"

struct copy_settings {
	struct rc rc, config, credentials; /* cqlshrc, CONFIGFILE, credentials */
	char rc_path[1024];		   /* "" = there is none */
	struct copy_login login;
	struct copy_ssl ssl;
	struct copy_cloud cloud;
	uint16_t consistency;
	struct copy_options options;
};

/* 0, −EINVAL and other −errno with a reason. Pass to settings_done() in any case. */
int settings_read(struct copy_settings *s, struct copy_request *request, struct error *error);
void settings_done(struct copy_settings *s);
