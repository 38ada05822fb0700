/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record that a migration has been started: migration.json in the state directory. The service sends its
 * Start once; an agent that is restarted in the middle of the migration finds it here and does not wait for
 * another one.
 *
 * A `directory` of "" keeps nothing.
 */
#pragma once
#include "base/error.h"

/* 1: there is one; 0: there is none; −errno with the reason: it cannot be read, and nobody can say. */
int started_load(const char *directory, struct error *error);

/* On disk when it returns 0. `id` is the Start's. −errno with the reason. */
int started_save(const char *directory, const char *id, struct error *error);

/* As if there had been no Start. */
void started_remove(const char *directory);
