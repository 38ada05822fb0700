// SPDX-License-Identifier: Apache-2.0
/* This node as the configuration wants to use it: whether it fits together, ports, files, another agent. */
#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "control/admin_client.h"
#include "control/doctor.h"

static void check_configuration(struct doctor *d, const struct config *c, void *context)
{
	struct error error;
	struct stat st;

	(void)context;
	if (config_check(c, &error) < 0)
		doctor_find(d, DOCTOR_FAIL, "see `cqlferry help configuration`", "%s", error.text);
	else
		doctor_find(
		    d, DOCTOR_OK, NULL, "%s%s: phase %s%s", *c->file ? c->file : "defaults and environment",
		    c->document_mode ? " (the document's variables)" : "",
		    config_phase_name(c->phase.initial), c->intercept.enabled ? ", interception" : "");
	const char *const files[] = {c->file, c->origin.password_file, c->target.password_file};

	for (size_t i = 0; i < 3; i++)
		if (*files[i] && stat(files[i], &st) == 0 && st.st_mode & S_IROTH &&
		    (i > 0 || *c->origin.password || *c->target.password))
			doctor_find(d, DOCTOR_WARN,
				    "chmod o-r it, or move the password to a passwordFile of mode 0600",
				    "'%s' may be read by everyone on this node", files[i]);
}

/* True when an agent answers on the admin socket: then it is the one that holds the ports. */
static bool agent_runs(const struct config *c)
{
	struct error error;
	json_t *request = json_pack("{s:s}", "command", "status"), *final = NULL;
	int rc = admin_call(c->admin.socket, request, 2000, NULL, NULL, &final, &error);

	json_decref(request);
	json_decref(final);
	return rc == 0;
}

static void check_agent(struct doctor *d, const struct config *c, void *context)
{
	(void)context;
	if (agent_runs(c))
		doctor_find(d, DOCTOR_OK, NULL, "an agent answers at %s", c->admin.socket);
	else if (access(c->admin.socket, F_OK) == 0)
		doctor_find(d, DOCTOR_NOTE, NULL,
			    "no agent answers at %s; a new one replaces the stale socket", c->admin.socket);
	else
		doctor_find(d, DOCTOR_NOTE, NULL, "no agent is running (%s)", c->admin.socket);
}

static int try_bind(const char *address, uint32_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	bool v6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
	int on = 1, fd, code = 0;

	if (!v6 && inet_pton(AF_INET, address, &in.sin_addr) != 1)
		return EINVAL;
	fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on,
		   sizeof(on)); /* TIME_WAIT is no obstacle for the agent either */
	if (bind(fd, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in, v6 ? sizeof(in6) : sizeof(in)) <
		0 ||
	    listen(fd, 1) < 0)
		code = errno;
	close(fd);
	return code;
}

static void check_ports(struct doctor *d, const struct config *c, void *context)
{
	const struct {
		const char *key, *address;
		uint32_t port;
	} ports[] = {
	    {"listen.port", c->listen.address, c->listen.port},
	    {"listen.agentPort", *c->listen.agent_address ? c->listen.agent_address : "0.0.0.0",
	     c->intercept.enabled ? c->listen.agent_port : 0},
	    {"http.port", c->http.address, c->http.port},
	    {"migration.proxyPort", "0.0.0.0", c->migration.proxy_port},
	};
	bool running = agent_runs(c);

	(void)context;
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		int code = ports[i].port ? try_bind(ports[i].address, ports[i].port) : 0;

		if (!ports[i].port)
			continue;
		if (code == 0)
			doctor_find(d, DOCTOR_OK, NULL, "%s %u is free", ports[i].key, ports[i].port);
		else if (code == EADDRINUSE && running)
			doctor_find(d, DOCTOR_OK, NULL,
				    "%s %u is in use, as it should be: an agent is running", ports[i].key,
				    ports[i].port);
		else
			doctor_find(d, DOCTOR_FAIL,
				    code == EADDRINUSE
					? "stop what listens there (ss -ltnp), or choose another port"
					: "choose an address of this node and a port that may be used",
				    "%s: %s port %u: %s", ports[i].key, ports[i].address, ports[i].port,
				    strerror(code));
	}
}

static void check_state(struct doctor *d, const struct config *c, void *context)
{
	const char *path = c->state.directory;
	struct statvfs fs;

	(void)context;
	if (!*path) {
		doctor_find(d, DOCTOR_WARN, "set state.directory",
			    "nothing is kept over a restart: state.directory is empty");
		return;
	}
	if (access(path, F_OK) < 0) {
		doctor_find(d, errno == ENOENT ? DOCTOR_NOTE : DOCTOR_FAIL,
			    errno == ENOENT ? NULL : "let the agent's user reach it",
			    "state.directory %s: %s%s", path, strerror(errno),
			    errno == ENOENT ? "; the agent makes it" : "");
		return;
	}
	if (access(path, W_OK | X_OK) < 0) {
		doctor_find(d, DOCTOR_FAIL, "let the agent's user write to it, or set another",
			    "state.directory %s: %s", path, strerror(errno));
		return;
	}
	if (statvfs(path, &fs) == 0) {
		unsigned long long free_mib = (unsigned long long)fs.f_bavail * fs.f_frsize >> 20;

		if (free_mib < 64)
			doctor_find(d, DOCTOR_WARN, "make room", "state.directory %s has %llu MiB left", path,
				    free_mib);
		else if (c->journal.sync != CONFIG_SYNC_MEMORY && free_mib < c->limits.mirror_bytes >> 20)
			doctor_find(d, DOCTOR_WARN, "make room, or lower limits.mirrorBytes: the policy applies when either is spent",
				    "state.directory %s has %llu MiB left, limits.mirrorBytes are %llu MiB", path, free_mib,
				    (unsigned long long)c->limits.mirror_bytes >> 20);
		else
			doctor_find(d, DOCTOR_OK, NULL, "state.directory %s can be written, %llu MiB free",
				    path, free_mib);
	}
}

void doctor_add_node(struct doctor *d)
{
	doctor_add(d, "configuration", check_configuration, NULL);
	doctor_add(d, "agent", check_agent, NULL);
	doctor_add(d, "ports", check_ports, NULL);
	doctor_add(d, "state", check_state, NULL);
}
