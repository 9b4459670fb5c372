/* SPDX-License-Identifier: MIT */
/* The runtime brings its own clock and its own seed. */
