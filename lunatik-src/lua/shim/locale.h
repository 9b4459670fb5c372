/* SPDX-License-Identifier: MIT */
/* No locales: the kernel speaks C. */
