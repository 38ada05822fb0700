/* SPDX-License-Identifier: Apache-2.0 */
/* What a file's own fsync() does not do: its name. */
#pragma once

/*
 * After a file in `directory` was made or renamed: returns when the disk has the name, too. A crash before it may leave the old file or
 * none. May block for as long as the disk takes. 0 or −errno.
 */
int durable_directory(const char *directory);
