#include "mendctl/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

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

static struct mount_entry *entry_create(uint64_t id, dev_t dev, const char *mountpoint, const char *source)
{
	struct mount_entry *entry = calloc(1, sizeof(*entry));

	if (!entry)
		return NULL;
	entry->id = id;
	entry->dev = dev;
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

/* 36 35 98:0 /root /mount/point options [fields] - type source options. 0, 1: not one of ours, -ENOMEM. */
static int parse_line(char *line, struct mount_entry **out)
{
	char *words[5], *rest = line, *type, *source;
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
	if (!source || strcmp(type, "fuse.mendfs"))
		return 1;
	if (sscanf(words[2], "%u:%u", &major_number, &minor_number) != 2)
		return 1;
	*out = entry_create(strtoull(words[0], NULL, 10), makedev(major_number, minor_number), words[4], source);
	return *out ? 0 : -ENOMEM;
}

int mounts_read(struct mount_entry **out, struct why *why)
{
	struct mount_entry *first = NULL, **last = &first;
	FILE *file = fopen("/proc/self/mountinfo", "re");
	char *line = NULL;
	size_t size = 0;
	int result = 0;

	if (!file)
		return why_set(why, -errno, "/proc/self/mountinfo: %s; mount proc on /proc", strerror(errno));
	while (result >= 0 && getline(&line, &size, file) > 0) {
		result = parse_line(line, last);
		if (!result)
			last = &(*last)->next;
	}
	free(line);
	fclose(file);
	if (result < 0) {
		mounts_free(first);
		return why_set(why, result, "out of memory");
	}
	*out = first;
	return 0;
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
