/* SPDX-License-Identifier: Apache-2.0 */
/* What each phase means for workers and for the kernel side. */
#pragma once
#include "cutover/phase.h"

struct course phase_course(enum phase p, bool freeze_topology);

/* Tells the kernel side which rule holds now. NULL intercept: nothing to do. */
void phase_tell_kernel(struct relay *r, enum phase p);
