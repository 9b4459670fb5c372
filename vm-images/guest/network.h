/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LAB_NETWORK_H
#define LAB_NETWORK_H

#include <stdbool.h>
#include <stddef.h>

/**
 * configure() - make a machine a node of a network
 * @lines: what to do, one thing a line (see network.c); they are taken apart
 * @why: of the first line that could not be done: its number, counted from 1,
 *	a blank and the kernel's own words; those after it are not tried
 * @size: bytes of @why
 *
 * Return: true if all of it was done.
 */
bool configure(char *lines, char *why, size_t size);

/**
 * rtnetlink() - the kernel's end for all that is done to cards, ioctls too
 *
 * Opened once, and kept: a clone has it from its base, and executes nothing for it.
 *
 * Return: file descriptor; -1, with errno set, if there is none.
 */
int rtnetlink(void);

#endif
