#include "fuse/vfs_options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>

#include "fuse/mountinfo.h"
#include "util/types.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif

#define ATIME_FLAGS ((unsigned long)(MS_NOATIME | MS_STRICTATIME))

/* What a kernel filesystem does, too, when it is told: relatime is the default, and what is neither "noatime" nor "strictatime". */
static const struct vfs_option {
	const char *name;
	unsigned long set, clear;
} vfs_table[] = {
	{"ro", MS_RDONLY, 0},
	{"rw", 0, MS_RDONLY},
	{"suid", 0, MS_NOSUID},
	{"nosuid", MS_NOSUID, 0},
	{"dev", 0, MS_NODEV},
	{"nodev", MS_NODEV, 0},
	{"exec", 0, MS_NOEXEC},
	{"noexec", MS_NOEXEC, 0},
	{"sync", MS_SYNCHRONOUS, 0},
	{"async", 0, MS_SYNCHRONOUS},
	{"dirsync", MS_DIRSYNC, 0},
	{"nosymfollow", MS_NOSYMFOLLOW, 0},
	{"symfollow", 0, MS_NOSYMFOLLOW},
	{"noatime", MS_NOATIME, ATIME_FLAGS},
	{"atime", 0, MS_NOATIME},
	{"relatime", 0, ATIME_FLAGS},
	{"norelatime", 0, 0},
	{"strictatime", MS_STRICTATIME, ATIME_FLAGS},
	{"nostrictatime", 0, MS_STRICTATIME},
	{"nodiratime", MS_NODIRATIME, 0},
	{"diratime", 0, MS_NODIRATIME},
};

static const char *const ignored_names[] = {
	/* Times are kept lazily anyway; the kernel refuses mand for FUSE and ignores it everywhere since 5.15. */
	"lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion", "silent", "loud", "quiet",
	/* Said to mount(8), mount -a, systemd. */
	"defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup", "nofail", "_netdev",
	/* On anyhow. */
	"default_permissions",
};

/* "user=NAME" and such; mount(8) adds the last two when it remounts. */
static const char *const ignored_prefixes[] = {"x-", "X-", "comment=", "user=", "uhelper=", "helper=", "user_id=", "group_id="};

static bool is_ignored(const char *option)
{
	for (size_t i = 0; i < ARRAY_SIZE(ignored_names); i++)
		if (!strcmp(option, ignored_names[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(ignored_prefixes); i++)
		if (!strncmp(option, ignored_prefixes[i], strlen(ignored_prefixes[i])))
			return true;
	return false;
}

bool vfs_option_take(struct vfs_options *options, const char *option)
{
	for (size_t i = 0; i < ARRAY_SIZE(vfs_table); i++) {
		if (strcmp(option, vfs_table[i].name))
			continue;
		options->flags = (options->flags & ~vfs_table[i].clear) | vfs_table[i].set;
		return true;
	}
	if (strcmp(option, "remount"))
		return is_ignored(option);
	options->remount = true;
	return true;
}

enum fs_atime vfs_options_atime(const struct vfs_options *options)
{
	if (options->flags & MS_NOATIME)
		return FS_ATIME_NEVER;
	return options->flags & MS_STRICTATIME ? FS_ATIME_ALWAYS : FS_ATIME_RELATIVE;
}

int vfs_options_finish(const struct vfs_options *options, const char *mountpoint)
{
	struct mount_attr attr = {.attr_set = 0};

	if (options->flags & MS_STRICTATIME) {
		attr.attr_clr = MOUNT_ATTR__ATIME;
		attr.attr_set = MOUNT_ATTR_STRICTATIME;
	}
	if (options->flags & MS_NODIRATIME) /* unknown to libfuse 3.14 */
		attr.attr_set |= MOUNT_ATTR_NODIRATIME;
	if (options->flags & MS_NOSYMFOLLOW)
		attr.attr_set |= MOUNT_ATTR_NOSYMFOLLOW;
	if ((!attr.attr_set && !attr.attr_clr) || !mount_setattr(AT_FDCWD, mountpoint, AT_SYMLINK_NOFOLLOW, &attr, sizeof(attr)))
		return 0;
	/* Strict access times are ours to keep; the flag only shows them. */
	return options->flags & MS_NOSYMFOLLOW ? -errno : 0;
}

int vfs_options_emit(const struct vfs_options *options, struct fuse_args *args)
{
	/* Both ways: libfuse's own defaults are nosuid and nodev. */
	static const struct {
		unsigned long flag;
		const char *on, *off;
	} words[] = {
		{MS_RDONLY, "-oro", NULL},	  {MS_NOSUID, "-onosuid", "-osuid"}, {MS_NODEV, "-onodev", "-odev"},
		{MS_NOEXEC, "-onoexec", NULL},	  {MS_SYNCHRONOUS, "-osync", NULL},  {MS_DIRSYNC, "-odirsync", NULL},
		{MS_NOATIME, "-onoatime", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		const char *word = options->flags & words[i].flag ? words[i].on : words[i].off;

		if (word && fuse_opt_add_arg(args, word))
			return -ENOMEM;
	}
	return 0;
}

int vfs_options_remount(const struct vfs_options *options, const char *mountpoint, struct why *why)
{
	struct mountinfo now;

	if (mountinfo_find(mountpoint, &now) || !mountinfo_is_ours(&now))
		return why_set(why, -EINVAL, "%s is no mendfs mount: nothing to remount", mountpoint);
	/* Everything else that FUSE mounts have is fixed when they begin; the kernel takes flags only. */
	if (mount(NULL, mountpoint, NULL, MS_REMOUNT | options->flags, NULL))
		return why_set(why, -errno, "%s cannot be remounted: %s", mountpoint, strerror(errno));
	return 0;
}
