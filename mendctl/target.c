#include "mendctl/target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "media/claim.h"

#define FINISHING_MS 30000
#define SILENT_MS 2000
#define SAY_MS 1000
#define FINISHING_STEP_MS 100

/* Without looking at it: the path made absolute, dots left as they are. */
static void make_absolute(const char *path, char out[PATH_MAX])
{
	char directory[PATH_MAX];

	if (path[0] == '/' || !getcwd(directory, sizeof(directory)))
		directory[0] = '\0';
	if (snprintf(out, PATH_MAX, "%s%s%s", directory, *directory ? "/" : "", path) >= PATH_MAX)
		out[0] = '\0';
}

static const struct mount_entry *mount_by_name(const char *name, const struct mount_entry *entries)
{
	char path[PATH_MAX];

	make_absolute(name, path);
	return mounts_by_path(entries, path);
}

static int dead_mount(const char *name, const struct mount_entry *entries, struct why *why)
{
	const struct mount_entry *mount = mount_by_name(name, entries);

	return why_set(
	    why, -ENOTCONN,
	    "%s is a dead mount point (its daemon is gone); clear it with: fusermount3 -u %s",
	    mount ? mount->mountpoint : name, mount ? mount->mountpoint : name);
}

static int find_mount(const char *path, const struct mount_entry *entries,
		      const struct mount_entry **out, struct why *why)
{
	struct statx stx;
	int error;

	*out = NULL;
	if (!statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, STATX_TYPE | STATX_MNT_ID, &stx)) {
		*out = mounts_by_id(entries, stx.stx_mnt_id);
		return 0;
	}
	error = -errno;
	if (claim_mount_is_dead(error))
		return dead_mount(path, entries, why);
	/* A user's own mount lets nobody else in, root included; its daemon may still answer. */
	if (error == -EACCES)
		*out = mount_by_name(path, entries);
	if (*out)
		return 0;
	return why_set(why, error,
		       "%s: %s; name a mount point, a path inside one, or a device or image", path,
		       strerror(-error));
}

int target_mount_of(const char *path, struct mount_entry **entries, const struct mount_entry **out,
		    struct why *why)
{
	int error = mounts_read(entries, why);

	if (error)
		return error;
	error = find_mount(path, *entries, out, why);
	if (!error)
		return 0;
	mounts_free(*entries);
	*entries = NULL;
	return error;
}

int target_connect(const struct mount_entry *mount, struct why *why, struct target *out)
{
	struct why reason;
	int error = client_open_mount(mount->dev, mount->uid, &reason, &out->client);

	/* Mounted in another network namespace, or the second name was taken: the image's own
	 * socket may answer. */
	if (error == -ENOENT && mount->source[0] == '/') {
		struct stat st;

		if (!stat(mount->source, &st))
			error = client_open_inode(&st, mount->uid, &reason, &out->client);
	}
	if (error == -ENOENT)
		return why_set(why, error,
			       "%s: its daemon does not answer; if it is gone, clear the mount "
			       "with: fusermount3 -u %s",
			       mount->mountpoint, mount->mountpoint);
	if (error)
		return why_set(why, error, "%s: %s", mount->mountpoint, reason.text);
	out->mountpoint = strdup(mount->mountpoint);
	out->source = strdup(mount->source);
	out->dev = mount->dev;
	if (out->mountpoint && out->source)
		return 0;
	target_fini(out);
	return why_set(why, -ENOMEM, "out of memory");
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int still_held(const char *name, const struct claim_holder *holder, struct why *why)
{
	return why_set(
	    why, -EBUSY, "%s is held by process %d, which %s; try again", name, (int)holder->pid,
	    holder->state == CLAIM_SILENT ? "does not answer" : "does not finish with it");
}

/*
 * 0: nobody holds it. 1: connected. -EBUSY where it became neither in time. The owner of an image
 * is believed to hold it: it is his to spoil anyway.
 */
static int wait_for_holder(const char *name, const struct stat *st, struct why *why,
			   struct client **client)
{
	const struct timespec step = {.tv_nsec = FINISHING_STEP_MS * 1000000};
	int64_t begin = now_ms();
	bool said = false;

	for (;;) {
		struct why reason;
		struct claim_holder holder;
		int error = client_open_inode(st, st->st_uid, &reason, client);
		int64_t waited = now_ms() - begin;

		if (!error)
			return 1;
		claim_query(st, &holder);
		if (error == -ENOENT && holder.state == CLAIM_NONE)
			return 0;
		if (error != -ENOENT && holder.state == CLAIM_SERVING)
			return why_set(why, error, "%s: %s", name, reason.text);
		if (waited > (holder.state == CLAIM_FINISHING ? FINISHING_MS : SILENT_MS))
			return still_held(name, &holder, why);
		if (waited > SAY_MS && !said)
			fprintf(stderr, "mendctl: %s: waiting for process %d to finish with it\n",
				name, (int)holder.pid);
		said = waited > SAY_MS;
		nanosleep(&step, NULL);
	}
}

/* 0: it is not seen from here. */
static dev_t device_of_mount(const char *mountpoint)
{
	struct mount_entry *entries;
	const struct mount_entry *mount;
	struct why why;
	dev_t dev = 0;

	if (!mountpoint || mounts_read(&entries, &why))
		return 0;
	mount = mounts_by_path(entries, mountpoint);
	if (mount)
		dev = mount->dev;
	mounts_free(entries);
	return dev;
}

static int find_source(const char *name, const struct mount_entry *entries, struct why *why,
		       struct target *out)
{
	const struct mount_entry *mount;
	struct stat st;
	int result;

	if (stat(name, &st))
		return why_set(why, -errno, "%s: %s", name, strerror(errno));
	mount = mounts_by_source(entries, &st);
	if (mount && !target_connect(mount, why, out))
		return 0;
	if (S_ISDIR(st.st_mode))
		return why_set(why, -EINVAL,
			       "%s is not in a mounted mendfs: name a mount point, a path inside "
			       "one, or a device or image",
			       name);
	if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
		return why_set(why, -EINVAL, "%s is no device-dax or block device and no image file",
			       name);
	result = wait_for_holder(name, &st, why, &out->client);
	if (result < 0)
		return result;
	out->source = strdup(name);
	if (result > 0) {
		out->mountpoint = strdup(client_mountpoint(out->client));
		out->dev = device_of_mount(out->mountpoint);
	}
	if (out->source && (!result || out->mountpoint))
		return 0;
	target_fini(out);
	return why_set(why, -ENOMEM, "out of memory");
}

int target_find(const char *name, struct why *why, struct target *out)
{
	struct mount_entry *entries;
	const struct mount_entry *mount;
	int error;

	memset(out, 0, sizeof(*out));
	error = target_mount_of(name, &entries, &mount, why);
	if (error)
		return error;
	error = mount ? target_connect(mount, why, out) : find_source(name, entries, why, out);
	mounts_free(entries);
	return error;
}

void target_fini(struct target *target)
{
	client_close(target->client);
	free(target->mountpoint);
	free(target->source);
	memset(target, 0, sizeof(*target));
}

/* A mounted one changes under the eyes of whoever reads it, and its owner has claimed it. */
int target_refuse_mounted(const char *name, struct why *why)
{
	struct target target;
	int error = target_find(name, why, &target);

	if (error)
		return error;
	if (target.client)
		error = why_set(why, -EBUSY,
				"%s is mounted%s%s: unmount it first; what its daemon can say is in owners, badblocks, damaged and map",
				name, target.mountpoint ? " on " : "", target.mountpoint ? target.mountpoint : "");
	target_fini(&target);
	return error;
}
