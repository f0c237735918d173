/* Each element of an output, and each event, as a JSON object (docs/JSON.md). NULL: out of memory.
 * The caller puts the object. */
#ifndef CONTROL_RENDER_H
#define CONTROL_RENDER_H

#include "control/json.h"
#include "fs/query.h"

/* Where a filesystem is seen; strings that do not apply are NULL. */
struct render_place {
	const char *device;     /* the source as given */
	const char *mountpoint; /* NULL: not mounted */
	const char *transport;
};

/* What is known of a lost metadata block, added to an object; 0, or nonzero: out of memory. Files are counted, not named. */
int render_loss_add(struct json_object *object, const struct meta_loss *loss);
struct json_object *render_filesystem(const struct super *super, const struct fs_summary *summary,
				      const struct render_place *place);
struct json_object *render_extent(const struct fs_map_extent *extent);
/* How an inode is called. */
struct render_names {
	uint32_t generation;
	char **paths;
	size_t count;
	const char *error; /* why paths and generation could not be found; NULL: they could */
};

/* names: of a data owner, else NULL. */
struct json_object *render_owner(const struct fs_owner *owner, const struct render_names *names);
struct json_object *render_badblock(const struct badblock_record *record);
struct json_object *render_range(devoff_t device_offset, uint64_t length_bytes);
/* An element of `damaged`, range by range: render_damage_add() each (0, or nonzero: out of memory),
 * then render_damage_end(). */
struct json_object *render_damaged(inum_t ino, const struct render_names *names);
int render_damage_add(struct json_object *damaged, const struct fs_damage *damage);
int render_damage_end(struct json_object *damaged);

/* 36 characters, lower case. */
#define RENDER_UUID_BYTES 37
void render_uuid(const uint8_t *uuid, char text[RENDER_UUID_BYTES]);

#endif
