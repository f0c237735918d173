# What tests of docs/ADMIN.md need: its blocks, which tests/vm/guide.py has put into /mendfs/guide, in their order.

# shape FILE: without what differs from one machine, run or day to another.
shape() { sed -E 's/\.\.\./@@/g; s/[0-9a-f]{8}-[0-9a-f-]{27}/UUID/g; s/[0-9][0-9.,:TZ-]*/N/g; s/[ \t]+/ /g; s/ $//' "$1"; }

# prints EXPECTED: each of its lines is in /tmp/said, in that order; `...` stands for anything.
prints() {
	shape "$1" >/tmp/expected
	shape /tmp/said >/tmp/shaped
	awk '
		function is_like(line, pattern,   parts, count, i, at) {
			count = split(pattern, parts, "@@")
			if (count == 1)
				return line == pattern
			if (substr(line, 1, length(parts[1])) != parts[1])
				return 0
			for (i = 1; i <= count; i++) {
				at = index(line, parts[i])
				if (parts[i] != "" && !at)
					return 0
				line = substr(line, at + length(parts[i]))
			}
			return parts[count] == "" || line == ""
		}
		FNR == NR { wanted[++n] = $0; next }
		{ while (wanted[at + 1] == "@@" && at < n) at++ }
		at < n && is_like($0, wanted[at + 1]) { at++ }
		END {
			while (at < n && wanted[at + 1] == "@@") at++
			if (at < n) { print "not printed: " wanted[at + 1]; exit 1 }
		}' /tmp/expected /tmp/shaped
}

# install_file PART: its first line is the path; what is there is kept.
install_file() {
	path=$(head -n 1 "$1")
	mkdir -p "$(dirname "$path")"
	tail -n +2 "$1" >>"$path"
	case $(sed -n 2p "$1") in
	'#!'*) chmod 755 "$path" ;;
	esac
}

# One part of the guide, in this shell: what it starts in the background stays.
follow() {
	case $1 in
	*.file) install_file "$1" ;;
	*.prints) prints "$1" || { cat /tmp/shaped; fail "$1: that is not what was printed"; } ;;
	*.fails)
		! (. "$1") >/tmp/said 2>&1 || fail "$1 did not fail"
		cat /tmp/said
		;;
	*)
		. "$1" >/tmp/said 2>&1
		cat /tmp/said
		;;
	esac
}
