#include "control/commands.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "control/command_bodies.h"

static const struct command commands[] = {
    {"list", "filesystems", command_list, true, false},
    {"map", "extents", command_map, true, false},
    {"owners", "owners", command_owners, true, false},
    {"badblocks", "badblocks", command_badblocks, true, false},
    {"damaged", "damaged", command_damaged, true, false},
    {"inject-error", "injected", command_inject, true, true},
    {"uninject-error", "removed", command_uninject, true, true},
    {"monitor", NULL, NULL, false, false},
    {"clone", "cloned", command_clone, false, true},
    {"label", "filesystems", command_label, true, true},
    {"uuid", "filesystems", command_uuid, true, true},
    {"resize", "filesystems", command_resize, true, true},
    {"shutdown", "filesystems", command_shutdown, false, true},
    {"scrub", "scrubs", command_scrub, true, false},
    {"stats", "requests", command_stats, false, false},
    {"drop-caches", "dropped", command_drop_caches, false, false},
    {"sync", "synced", command_sync, false, false},
    {"check", "findings", command_check, true, false},
    {"version", "programs", command_version, true, false},
};

const struct command *command_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

int command_kind_parse(const char *name)
{
	for (int kind = FS_OWNER_DATA; kind <= FS_OWNER_QUARANTINE; kind++)
		if (!strcmp(fs_owner_kind_name((enum fs_owner_kind)kind), name))
			return kind;
	return -EINVAL;
}

int command_run(const struct command *command, const struct command_context *context,
		const struct command_args *args, struct command_sink *sink, struct why *why)
{
	int error;

	why->text[0] = '\0';
	if (!command->run)
		return why_set(why, -EOPNOTSUPP,
			       "%s works on a mounted filesystem only: mount it first",
			       command->name);
	error = command->run(context, args, sink, why);
	if (error < 0 && !why->text[0])
		why_set(why, error, "%s: %s", command->name, command_reason(error));
	return error;
}

const char *command_reason(int error)
{
	if (error == -EUCLEAN)
		return "metadata is damaged: see mendctl check";
	return error == -EIO ? "poison, and no other copy: see mendctl badblocks"
			     : strerror(-error);
}

int command_no_memory(struct why *why)
{
	return why_set(why, -ENOMEM, "out of memory");
}

int command_emit(struct command_sink *sink, struct json_object *element, struct why *why)
{
	return element ? sink->emit(sink->arg, element) : command_no_memory(why);
}

int command_resolve(struct fs *fs, const struct command_args *args, inum_t *out, struct why *why)
{
	int error;

	if (args->ino) {
		*out = args->ino;
		return 0;
	}
	if (!args->path)
		return why_set(why, -EINVAL, "name a file");
	error = fs_resolve(fs, args->path, out);
	if (error)
		return why_set(why, error,
			       "%s: %s in this filesystem (paths begin with / at its root)",
			       args->path, command_reason(error));
	return 0;
}

int command_regular_file(struct fs *fs, const struct command_args *args, struct fs_attr *attr,
			 struct why *why)
{
	inum_t ino;
	int error = command_resolve(fs, args, &ino, why);

	if (error)
		return error;
	error = fs_getattr(fs, ino, attr);
	if (error)
		return why_set(why, error, "inode %llu: %s", (unsigned long long)ino,
			       command_reason(error));
	if ((attr->record.mode & S_IFMT) != S_IFREG)
		return why_set(why, -EINVAL, "inode %llu is not a regular file: it has no extents",
			       (unsigned long long)ino);
	return 0;
}

int command_device_range(struct fs *fs, const struct command_args *args, struct why *why)
{
	uint64_t size = fs_super(fs)->size_bytes;

	if (args->offset >= size || args->length_bytes > size - args->offset)
		return why_set(why, -ERANGE,
			       "%llu+%llu is outside the device, which has %llu bytes",
			       (unsigned long long)args->offset,
			       (unsigned long long)args->length_bytes, (unsigned long long)size);
	return 0;
}
