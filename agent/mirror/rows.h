/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that cannot be repeated go through row sync (rowsync.h): from the queue of a dispatch to its threads and back.
 *
 *   queue ─▶ rows_submit ─▶ row sync ─▶ done ─message to the worker─▶ confirmed · on the gap ledger · back into the journal
 *
 * A write whose outcome on the primary is unknown is compared after a settle time, when the primary's own time-outs are over, and once
 * more after the hint window, because until then hints may still bring it. The second time nobody waits for it.
 */
#pragma once
#include "mirror/dispatch.h"

struct rows_job;

/* 0: it is on its way, and counts as flying. −EAGAIN: not now. Another −errno: there is no way (rows_give_up()). */
int rows_submit(struct dispatch *d, struct record *r);

/* Row sync cannot do it (`error`: as rowsync.h says): it goes on the ledger, and the log says why. */
void rows_give_up(struct dispatch *d, struct record *r, int error);

/* The dispatch ends: its records are its own again, and nobody will tell of them (call it for each until NULL). */
struct record *rows_take_back(struct dispatch *d);
