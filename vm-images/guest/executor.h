/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_EXECUTOR_H
#define LAB_EXECUTOR_H

#include <stdbool.h>

/**
 * executor() - serve whoever is at the other end of a port, until they hang up
 * @port: file descriptor; nothing of it is inherited by the commands
 * @again: another one was killed, with all that it was asked for
 * @wake: makes a clone itself, from a line of words; NULL, or what went wrong
 *
 * Return: exit status: 0 after the hang-up.
 */
int executor(int port, bool again, const char *(*wake)(char *words));

#endif
