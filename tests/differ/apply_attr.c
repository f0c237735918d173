/* What is done with attributes, plain and extended. */
#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/differ/differ.h"

APPLY(stat)
{
	struct stat st;

	if (fstatat(AT_FDCWD, op->path[0], &st, (int)op->flags))
		return -1;
	facts_of(s->differ, &st, a->facts, sizeof(a->facts));
	return 0;
}

APPLY(fstat)
{
	struct stat st;

	if (fstat(slot_fd(s, op->slot[0]), &st))
		return -1;
	facts_of(s->differ, &st, a->facts, sizeof(a->facts));
	return 0;
}

APPLY(chmod)
{
	return chmod(op->path[0], op->mode);
}

APPLY(fchmod)
{
	return fchmod(slot_fd(s, op->slot[0]), op->mode);
}

APPLY(chown)
{
	return fchownat(AT_FDCWD, op->path[0], op->uid, op->gid, (int)op->flags);
}

APPLY(fchown)
{
	return fchown(slot_fd(s, op->slot[0]), op->uid, op->gid);
}

APPLY(utimens)
{
	return utimensat(AT_FDCWD, op->path[0], op->times, (int)op->flags);
}

APPLY(futimens)
{
	return futimens(slot_fd(s, op->slot[0]), op->times);
}

APPLY(access)
{
	return faccessat(AT_FDCWD, op->path[0], (int)op->mode & 7, (int)op->flags);
}

/* What fits a value: short, and of this operation only. */
static const void *value_of(const struct op *op)
{
	static uint8_t value[MOST_LENGTH];

	for (size_t i = 0; i < op->length && i < sizeof(value); i++)
		value[i] = (uint8_t)(op->fill >> (8 * (i % 8)));
	return value;
}

#define CREATE_OR_REPLACE 3
#define NOFOLLOW 4

APPLY(setxattr)
{
	int flags = (int)op->flags & CREATE_OR_REPLACE;

	if (op->flags & NOFOLLOW)
		return lsetxattr(op->path[0], op->xattr, value_of(op), op->length, flags);
	return setxattr(op->path[0], op->xattr, value_of(op), op->length, flags);
}

APPLY(fsetxattr)
{
	return fsetxattr(slot_fd(s, op->slot[0]), op->xattr, value_of(op), op->length, (int)op->flags);
}

APPLY(getxattr)
{
	ssize_t got = op->flags & NOFOLLOW ? lgetxattr(op->path[0], op->xattr, a->bytes, op->length)
					   : getxattr(op->path[0], op->xattr, a->bytes, op->length);

	a->count = got > 0 && op->length ? (size_t)got : 0;
	return got;
}

APPLY(fgetxattr)
{
	ssize_t got = fgetxattr(slot_fd(s, op->slot[0]), op->xattr, a->bytes, op->length);

	a->count = got > 0 && op->length ? (size_t)got : 0;
	return got;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

size_t sort_names(const char *list, size_t size, uint8_t *to, size_t room)
{
	const char *names[64];
	size_t count = 0, used = 0;

	for (const char *name = list; name < list + size && count < 64; name += strlen(name) + 1)
		if (strncmp(name, "trusted.SGI_ACL_", 16)) /* allowed.c */
			names[count++] = name;
	qsort(names, count, sizeof(names[0]), compare_names);
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf((char *)to + used, room - used, "%s\n", names[i]);
	return used;
}

APPLY(listxattr)
{
	char list[8192];
	ssize_t got = op->flags & NOFOLLOW ? llistxattr(op->path[0], list, sizeof(list)) : listxattr(op->path[0], list, sizeof(list));

	if (got < 0)
		return -1;
	a->count = sort_names(list, (size_t)got, a->bytes, BYTES_ROOM);
	return (long)a->count;
}

APPLY(removexattr)
{
	return op->flags & NOFOLLOW ? lremovexattr(op->path[0], op->xattr) : removexattr(op->path[0], op->xattr);
}

APPLY(setacl)
{
	static const char *const names[] = {"system.posix_acl_access", "system.posix_acl_default"};

	if (!op->acl[15])
		return removexattr(op->path[0], names[op->flags]);
	return setxattr(op->path[0], names[op->flags], op->acl, op->acl[15], 0);
}
