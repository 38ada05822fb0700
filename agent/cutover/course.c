/* SPDX-License-Identifier: Apache-2.0 */
#include "cutover/course.h"

#include <string.h>

#include "base/log.h"
#include "intercept/intercept.h"

static const char *const names[PHASES] = {"observe", "mirror", "drain", "cutover", "rollback", "finish"};

const char *phase_name(enum phase p)
{
	return names[p];
}

int phase_from_name(const char *name)
{
	for (int i = 0; i < PHASES; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

/* Rows: from; columns: to. The words of the diagram in phase.h. A request for ROLLBACK means the way back to MIRROR. */
static const bool legal[PHASES][PHASES] = {
	/*             observe mirror drain cutover rollback finish */
	[PHASE_OBSERVE]  = {0, 1, 0, 0, 0, 0},
	[PHASE_MIRROR]   = {1, 0, 1, 1, 0, 0},
	[PHASE_DRAIN]    = {1, 1, 0, 1, 0, 0},
	[PHASE_CUTOVER]  = {0, 0, 0, 0, 1, 1},
	[PHASE_ROLLBACK] = {0, 1, 0, 0, 1, 0},
	[PHASE_FINISH]   = {0, 0, 0, 0, 0, 0},
};

bool phase_move_legal(enum phase from, enum phase to)
{
	return legal[from][to];
}

const char *phase_moves_from(enum phase p)
{
	static const char *const texts[PHASES] = {
		[PHASE_OBSERVE] = "mirror", [PHASE_MIRROR] = "drain, cutover, observe", [PHASE_DRAIN] = "cutover, mirror, observe",
		[PHASE_CUTOVER] = "finish, rollback", [PHASE_ROLLBACK] = "mirror", [PHASE_FINISH] = "nothing: finish is the end"};

	return texts[p];
}

struct course phase_course(enum phase p, bool freeze_topology)
{
	static const struct course table[PHASES] = {
		/*                  primary  mirroring frozen warm  finished */
		[PHASE_OBSERVE]  = {ORIGIN, false, false, false, false},
		[PHASE_MIRROR]   = {ORIGIN, true,  false, false, false},
		[PHASE_DRAIN]    = {ORIGIN, true,  false, true,  false},
		[PHASE_CUTOVER]  = {TARGET, true,  true,  false, false},
		[PHASE_ROLLBACK] = {TARGET, true,  true,  true,  false},
		[PHASE_FINISH]   = {TARGET, false, true,  false, true},
	};
	struct course c = table[p];

	c.frozen = c.frozen && freeze_topology;
	return c;
}

/* Straight to the target only where nothing needs to be translated: the clients' own credentials, no TLS of ours. */
static void offer_direct(struct relay *r)
{
	const struct sockaddr *nodes[RELAY_NODES_MAX];
	const struct cluster *c = &r->options.cluster[TARGET];
	bool untranslated = !r->options.configured_auth && r->options.kernel_direct && !c->tls && !r->options.client_tls;
	struct error error;

	for (unsigned i = 0; untranslated && i < c->node_count; i++)
		nodes[i] = &c->nodes[i].sa;
	/* None, where it is not allowed: what an agent before this one offered is pinned, and would go on being used. */
	if (intercept_set_direct(r->intercept, nodes, untranslated ? c->node_count : 0, &error) < 0)
		log_warn("cutover", "new connections keep going through the agent: %s", error.text);
}

void phase_tell_kernel(struct relay *r, enum phase p)
{
	if (!r->intercept)
		return;
	if (p == PHASE_FINISH)
		offer_direct(r);
	if (intercept_set_phase(r->intercept, (enum intercept_phase)p) < 0)
		log_error("cutover", "the kernel side did not take phase %s", names[p]);
}
