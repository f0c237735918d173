/* Changing the superblock: label, uuid, size. Everything else in it is as mkfs made it. */
#include "fs/inode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

/* --- on the medium ---------------------------------------------------------------------------------------------------------- */

static int super_store(struct media *media, unsigned slot, const struct format_super *packed)
{
	const devoff_t offset = super_slot_offset(slot);
	int error = media_write(media, offset, packed, sizeof(*packed), NULL);

	if (error == -EIO) {
		error = media_clear(media, offset, BLOCK_BYTES);
		if (!error)
			error = media_write(media, offset, packed, sizeof(*packed), NULL);
	}
	/* Durable before the next slot is touched: one of them is whole at every moment. */
	return error ? error : media_sync(media);
}

int fs_write_super(struct media *media, const struct super *super)
{
	struct format_super packed;
	unsigned stored = 0;
	int first = 0;

	format_super_pack(&packed, super);
	for (unsigned slot = 0; slot < SUPER_SLOTS; slot++) {
		int error;

		if (!(super->slots >> slot & 1))
			continue;
		error = super_store(media, slot, &packed);
		stored += !error;
		first = first ? first : error;
	}
	return stored ? 0 : first;
}

static bool slot_is_right(struct media *media, unsigned slot, const struct format_super *packed)
{
	struct format_super found;
	int error = media_read(media, super_slot_offset(slot), &found, sizeof(found), NULL);

	/* A poisoned one is the failure pipeline's. */
	return error ? true : memcmp(&found, packed, sizeof(found)) == 0;
}

int super_complete(struct fs *fs)
{
	struct format_super packed;
	int error = 0;

	format_super_pack(&packed, &fs->super);
	for (unsigned slot = 0; slot < SUPER_SLOTS && !error; slot++) {
		if (!(fs->super.slots >> slot & 1) || slot_is_right(fs->media, slot, &packed))
			continue;
		log_warning("%s: superblock %u is not like the others: rewritten", media_path(fs->media), slot);
		error = super_store(fs->media, slot, &packed);
	}
	return error;
}

/* --- in memory -------------------------------------------------------------------------------------------------------------- */

/* Older versions stay until unmount: somebody may be reading them. */
static void super_show(struct fs *fs, struct super_version *version)
{
	version->older = fs->super_now;
	fs->super_now = version;
}

const struct super *fs_super(struct fs *fs)
{
	struct super_version *now = fs->super_now;

	return now ? &now->super : &fs->super;
}

void super_forget(struct fs *fs)
{
	struct super_version *version = fs->super_now, *older;

	for (fs->super_now = NULL; version; version = older) {
		older = version->older;
		free(version);
	}
}

int super_update(struct fs *fs, struct super *super, struct why *why)
{
	struct super_version *version = malloc(sizeof(*version));
	int error;

	if (!version)
		return why_set(why, -ENOMEM, "out of memory");
	super->update = fs_super(fs)->update + 1;
	version->super = *super;
	error = fs_write_super(fs->media, super);
	if (error) {
		free(version);
		/* Some were stored, if not durably: a later mount must not find what was refused here. */
		fs_write_super(fs->media, fs_super(fs));
		return why_set(why, error, "%s: the superblock cannot be written: %s", media_path(fs->media), strerror(-error));
	}
	super_show(fs, version);
	return 0;
}

/* --- label and uuid --------------------------------------------------------------------------------------------------------- */

int identity_refuses(struct fs *fs, struct why *why)
{
	int error = fs_refuses_changes(fs);

	if (!error)
		return 0;
	return why_set(why, error, "%s: %s", media_path(fs->media), error == -EROFS ? "read-only" : "was shut down: unmount it, mount it again");
}

int fs_set_label(struct fs *fs, const char *label, struct why *why)
{
	struct super super;
	int error = identity_refuses(fs, why);

	if (error)
		return error;
	if (!format_label_is_valid(label, strlen(label)))
		return why_set(why, -EINVAL, "a label is UTF-8 of at most %u bytes without control characters", SUPER_LABEL_BYTES);
	pthread_mutex_lock(&fs->super_lock);
	super = *fs_super(fs);
	memset(super.label, 0, sizeof(super.label));
	memcpy(super.label, label, strlen(label));
	error = super_update(fs, &super, why);
	pthread_mutex_unlock(&fs->super_lock);
	return error;
}

int fs_set_uuid(struct fs *fs, const uint8_t uuid[FORMAT_UUID_BYTES], struct why *why)
{
	struct super super;
	int error = identity_refuses(fs, why);

	if (error)
		return error;
	pthread_mutex_lock(&fs->super_lock);
	super = *fs_super(fs);
	memcpy(super.uuid, uuid, FORMAT_UUID_BYTES);
	error = super_update(fs, &super, why);
	if (!error)
		error = media_poison_tie(fs->media, uuid, why);
	pthread_mutex_unlock(&fs->super_lock);
	return error;
}
