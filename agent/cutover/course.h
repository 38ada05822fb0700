/* SPDX-License-Identifier: Apache-2.0 */
/* What each phase means for workers and for the kernel side. */
#pragma once
#include "cutover/phase.h"

struct course phase_course(enum phase p, bool freeze_topology);

/* The moves that a request may ask for (the diagram in phase.h), and their names for people. A request for ROLLBACK means the way back to MIRROR. */
bool phase_move_legal(enum phase from, enum phase to);
const char *phase_moves_from(enum phase p);

/* Tells the kernel side which rule holds now. NULL intercept: nothing to do. */
void phase_tell_kernel(struct relay *r, enum phase p);
