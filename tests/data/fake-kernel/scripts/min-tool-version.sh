#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
case $1 in gcc) echo 5.1.0 ;; llvm) echo 13.0.1 ;; *) exit 1 ;; esac
