#include "mendctl/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The kernel writes blank, tab, newline and backslash as three octal digits. */
static void unescape(char *text)
{
	char *to = text;

	for (const char *from = text; *from; to++) {
		unsigned digits;

		if (from[0] == '\\' && sscanf(from + 1, "%3o", &digits) == 1) {
			*to = (char)digits;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = '\0';
}

static struct mount_entry *entry_create(const char *mountpoint, const char *source)
{
	struct mount_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->mountpoint = strdup(mountpoint);
	entry->source = strdup(source);
	if (entry->mountpoint && entry->source) {
		unescape(entry->mountpoint);
		unescape(entry->source);
		return entry;
	}
	mounts_free(entry);
	return NULL;
}

/* 36 35 98:0 /root /mount/point options [fields] - type source options. 0, 1: not one of ours,
 * -ENOMEM. */
static int parse_line(char *line, struct mount_entry **out)
{
	char *words[5], *rest = line, *type, *source, *owner;
	unsigned major_number, minor_number;
	char *separator = strstr(line, " - ");

	if (!separator)
		return 1;
	*separator = '\0';
	for (int i = 0; i < 5; i++) {
		words[i] = strsep(&rest, " ");
		if (!words[i])
			return 1;
	}
	rest = separator + 3;
	type = strsep(&rest, " ");
	source = strsep(&rest, " ");
	owner = rest ? strstr(rest, "user_id=") : NULL;
	if (!source || (strcmp(type, "fuse.mendfs") && strcmp(type, "fuseblk.mendfs")))
		return 1;
	if (sscanf(words[2], "%u:%u", &major_number, &minor_number) != 2)
		return 1;
	*out = entry_create(words[4], source);
	if (!*out)
		return -ENOMEM;
	(*out)->id = strtoull(words[0], NULL, 10);
	(*out)->dev = makedev(major_number, minor_number);
	(*out)->uid = owner ? (uid_t)strtoul(owner + strlen("user_id="), NULL, 10) : 0;
	return 0;
}

int mounts_parse(FILE *file, struct mount_entry **out)
{
	struct mount_entry *first = NULL, **last = &first;
	char *line = NULL;
	size_t size = 0;
	int result = 0;

	while (result >= 0 && getline(&line, &size, file) > 0) {
		result = parse_line(line, last);
		if (!result)
			last = &(*last)->next;
	}
	free(line);
	if (result < 0) {
		mounts_free(first);
		return result;
	}
	*out = first;
	return 0;
}

int mounts_read(struct mount_entry **out, struct why *why)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	int error;

	if (!file)
		return why_set(why, -errno, "/proc/self/mountinfo: %s; mount proc on /proc",
			       strerror(errno));
	error = mounts_parse(file, out);
	fclose(file);
	return error ? why_set(why, error, "out of memory") : 0;
}

void mounts_free(struct mount_entry *entries)
{
	while (entries) {
		struct mount_entry *next = entries->next;

		free(entries->mountpoint);
		free(entries->source);
		free(entries);
		entries = next;
	}
}

const struct mount_entry *mounts_by_id(const struct mount_entry *entries, uint64_t id)
{
	while (entries && entries->id != id)
		entries = entries->next;
	return entries;
}

static bool is_same_medium(const struct stat *a, const struct stat *b)
{
	if ((S_ISCHR(a->st_mode) && S_ISCHR(b->st_mode)) || (S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode)))
		return a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_believed(const struct mount_entry *entry, const struct stat *st)
{
	return entry->uid == 0 || entry->uid == geteuid() || entry->uid == st->st_uid;
}

const struct mount_entry *mounts_by_source(const struct mount_entry *entries, const struct stat *st)
{
	struct stat source;

	for (; entries; entries = entries->next)
		if (entries->source[0] == '/' && is_believed(entries, st) &&
		    !stat(entries->source, &source) && is_same_medium(&source, st))
			return entries;
	return NULL;
}

const struct mount_entry *mounts_by_path(const struct mount_entry *entries, const char *path)
{
	const struct mount_entry *best = NULL;
	size_t best_length = 0;

	for (; entries; entries = entries->next) {
		size_t length = strlen(entries->mountpoint);

		if (length < best_length || strncmp(path, entries->mountpoint, length))
			continue;
		if (path[length] && path[length] != '/' && length > 1)
			continue;
		best = entries;
		best_length = length;
	}
	return best;
}
