# SPDX-License-Identifier: GPL-2.0-only
#
# awk -f names.awk tables headers.i > names.h
#
# headers.i comes from the preprocessor with -dD: what the configuration leaves
# out is gone, macros still have their #define, and line markers tell the file.
# So the names that this very kernel knows are found without asking for its
# version; the compiler then gives their values.

FNR == NR {
	if ($0 ~ /^#/ || NF < 3)
		next
	table[++tables] = $1
	prefix[tables] = $2
	for (i = 3; i <= NF; i++)
		header[tables] = header[tables] " " $i
	next
}

# Which tables the file at hand has names for, as "1 2 3".
function tables_of(path,	i, j, count, ends, found) {
	for (i = 1; i <= tables; i++) {
		count = split(header[i], ends, " ")
		for (j = 1; j <= count; j++)
			if (substr(path, length(path) - length(ends[j])) == "/" ends[j])
				found = found " " i
	}
	return found
}

function take(name,	count, i, wanted, size) {
	if (name ~ /^BPF_FUNC_/)	# hundreds, of no use to scripts
		return
	count = split(wanted_here, wanted, " ")
	for (i = 1; i <= count; i++) {
		size = length(prefix[wanted[i]])
		if (substr(name, 1, size) != prefix[wanted[i]] || name in taken)
			continue
		if (length(name) == size)
			continue
		taken[name] = 1
		lines[wanted[i]] = lines[wanted[i]] sprintf("\t{ \"%s\", %s },\n", \
			substr(name, size + 1), name)
	}
}

# The names of an enum's members, in what stands between its braces.
function take_members(text,	count, i, members) {
	count = split(text, members, ",")
	for (i = 1; i <= count; i++)
		if (match(members[i], /^[ \t]*[A-Za-z_][A-Za-z0-9_]*/)) {
			members[i] = substr(members[i], RSTART, RLENGTH)
			gsub(/[ \t]/, "", members[i])
			take(members[i])
		}
}

/^# [0-9]+ "/ {
	split($0, part, "\"")
	if (!(part[2] in known))
		known[part[2]] = tables_of(part[2])
	wanted_here = known[part[2]]
	next
}

wanted_here == "" { next }

# Neither function-like macros nor strings nor empty ones.
/^#define / {
	if ($2 ~ /^[A-Za-z_][A-Za-z0-9_]*$/ && NF > 2 && $0 !~ /"/)
		take($2)
	next
}

/^#/ { next }

{
	text = $0
	while (text != "") {
		if (!inside) {
			if (!opening) {
				if (!match(text, /(^|[^A-Za-z0-9_])enum([^A-Za-z0-9_]|$)/))
					break
				text = substr(text, RSTART + RLENGTH - 1)
				opening = 1
			}
			if (!match(text, /[{;()]/))
				break
			inside = substr(text, RSTART, 1) == "{"
			opening = 0
			text = substr(text, RSTART + 1)
			continue
		}
		end = index(text, "}")
		take_members(end ? substr(text, 1, end - 1) : text)
		if (!end)
			break
		inside = 0
		text = substr(text, end + 1)
	}
}

END {
	for (i = 1; i <= tables; i++) {
		if (lines[i] == "") {
			printf "names.awk: no %s in%s\n", prefix[i], header[i] > "/dev/stderr"
			exit 1
		}
		printf "static const struct lunatik_constant %s[] = {\n%s\t{ NULL, 0 }\n};\n\n", \
			table[i], lines[i]
	}
}
