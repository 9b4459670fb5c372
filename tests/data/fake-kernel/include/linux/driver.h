/* SPDX-License-Identifier: GPL-2.0-only */
#define DRIVER_ANSWER 42
