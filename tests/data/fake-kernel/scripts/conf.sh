#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# conf.sh KCONFIG CONFIG: keeps of CONFIG what KCONFIG defines and whose
# dependency is on, drops the rest without a word, as the kernel's conf does.
set -eu
kconfig=$1 config=$2 new=$2.new
: > "$new"
for symbol in $(sed -n 's/^config //p' "$kconfig"); do
	line=$(grep -E "^(CONFIG_$symbol=|# CONFIG_$symbol is)" "$config" | tail -n 1) || :
	needs=$(sed -n "/^config $symbol\$/,/^\$/s/.*depends on //p" "$kconfig")
	if [ -n "$needs" ] && ! grep -q "^CONFIG_$needs=y" "$config"; then
		continue
	fi
	echo "${line:-# CONFIG_$symbol is not set}" >> "$new"
done
mv "$new" "$config"
