/* SPDX-License-Identifier: MIT */
#ifndef LUNATIK_SHIM_SIGNAL_H
#define LUNATIK_SHIM_SIGNAL_H

typedef int sig_atomic_t;

#endif
