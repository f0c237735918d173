#include "tests/crash/model_apply.h"

#include "tests/crash/model_xattr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* --- paths ---------------------------------------------------------------------------------------------------------------- */

static inum_t slot_ino(const struct model *model, const char *path)
{
	return model->slots[(path[1] - '0') % MODEL_SLOTS];
}

static inum_t step(const struct model_state *state, inum_t dir, const char *name, size_t length)
{
	const struct model_inode *inode = state_find(state, dir);
	char text[FS_NAME_MAX + 1];
	struct model_name *found;

	if (!inode || length >= sizeof(text))
		return 0;
	memcpy(text, name, length);
	text[length] = 0;
	found = inode_find_name(inode, text);
	return found ? found->ino : 0;
}

/* The directory of the last step, and that step. */
static int follow(const struct model *model, const char *path, inum_t *dir, inum_t *ino, const char **name)
{
	const struct model_state *state = &model->states[model->count];
	const char *slash;

	*dir = FS_ROOT_INO;
	*name = path;
	*ino = path[0] ? 0 : FS_ROOT_INO;
	if (path[0] == '%')
		*ino = slot_ino(model, path);
	if (!path[0] || path[0] == '%')
		return *ino ? 0 : -ENOENT;
	while ((slash = strchr(*name, '/'))) {
		*dir = step(state, *dir, *name, (size_t)(slash - *name));
		if (!*dir)
			return -ENOENT;
		*name = slash + 1;
	}
	if (!S_ISDIR(state_find(state, *dir)->record.mode))
		return -ENOTDIR;
	*ino = step(state, *dir, *name, strlen(*name));
	return 0;
}

inum_t model_resolve(const struct model *model, const char *path)
{
	const char *name;
	inum_t dir, ino;

	return follow(model, path, &dir, &ino, &name) ? 0 : ino;
}

static bool kind_makes_name(enum model_kind kind)
{
	return kind == MODEL_CREATE || kind == MODEL_SYMLINK;
}

static bool kind_removes_name(enum model_kind kind)
{
	return kind == MODEL_UNLINK || kind == MODEL_RMDIR || kind == MODEL_RENAME;
}

static bool kind_has_path(enum model_kind kind)
{
	return kind != MODEL_SYNCFS && kind != MODEL_FORGET && kind != MODEL_LABEL && kind != MODEL_RESIZE && kind != MODEL_TRIM;
}

static bool kind_has_path2(enum model_kind kind)
{
	return kind == MODEL_LINK || kind == MODEL_RENAME || kind == MODEL_COPY || kind == MODEL_CLONE || kind == MODEL_DEDUPE;
}

int target_resolve(const struct model *model, const struct model_op *op, struct model_target *target)
{
	int error = 0;

	*target = (struct model_target){.op = op, .tag = op->tag ? op->tag : model->next_tag};
	if (kind_has_path(op->kind))
		error = follow(model, op->path, &target->dir, &target->ino, &target->name);
	if (!error && kind_has_path2(op->kind))
		error = follow(model, op->path2, &target->dir2, &target->ino2, &target->name2);
	if (op->kind == MODEL_FORGET)
		target->ino = model->slots[op->slot];
	if (error)
		return error;
	if (kind_has_path(op->kind) && !target->ino && !kind_makes_name(op->kind) && !kind_removes_name(op->kind))
		return -ENOENT;
	if ((op->kind == MODEL_COPY || op->kind == MODEL_CLONE || op->kind == MODEL_DEDUPE) && !target->ino2)
		return -ENOENT;
	return 0;
}

/* --- what flags forbid, and ask for ------------------------------------------------------------------------------------- */

static bool has_flags(const struct model_state *state, inum_t ino, uint64_t flags)
{
	return ino && (state_find(state, ino)->record.flags & flags);
}

static int deny(bool forbidden)
{
	return forbidden ? -EPERM : 0;
}

static int deny_removal(const struct model_state *state, inum_t dir, inum_t ino)
{
	return deny(has_flags(state, dir, INODE_APPEND) || has_flags(state, ino, INODE_APPEND | INODE_IMMUTABLE));
}

/* A file of another project has no place in a directory that hands its own down. */
static int deny_entry(const struct model_state *state, inum_t dir, inum_t ino)
{
	const struct inode_record *there = &state_find(state, dir)->record;

	return (there->flags & INODE_PROJINHERIT) && there->project != state_find(state, ino)->record.project ? -EXDEV : 0;
}

static int deny_write(const struct model_state *state, inum_t ino, uint64_t pos)
{
	bool within = pos < state_find(state, ino)->record.size_bytes;

	return deny(has_flags(state, ino, INODE_IMMUTABLE) || (within && has_flags(state, ino, INODE_APPEND)));
}

static int deny_replace(const struct model_state *state, inum_t ino)
{
	return deny(has_flags(state, ino, INODE_IMMUTABLE | INODE_APPEND));
}

static int deny_moves(const struct model_state *state, const struct model_target *t)
{
	int error = deny_removal(state, t->dir, t->ino);

	if (!error && t->ino2)
		error = deny_removal(state, t->dir2, t->ino2);
	if (!error)
		error = deny_entry(state, t->dir2, t->ino);
	if (!error && t->ino2 && (t->op->flags & RENAME_EXCHANGE))
		error = deny_entry(state, t->dir, t->ino2);
	return error;
}

static int deny_setattr(const struct model_state *state, const struct model_target *t)
{
	unsigned kept = FS_SET_MODE | FS_SET_UID | FS_SET_GID | FS_SET_SIZE | FS_SET_ATIME | FS_SET_MTIME;

	return deny(has_flags(state, t->ino, INODE_IMMUTABLE) || (has_flags(state, t->ino, INODE_APPEND) && (t->op->flags & kept)));
}

/* What stays immutable changes in nothing else. */
static int deny_flags(const struct model_state *state, const struct model_target *t)
{
	const struct inode_record *now = &state_find(state, t->ino)->record;
	bool sets_flags = t->op->flags & FS_SET_FLAGS;

	if (!(now->flags & INODE_IMMUTABLE))
		return 0;
	if (sets_flags)
		return deny((t->op->mode & INODE_IMMUTABLE) && t->op->mode != (now->flags & INODE_FS_FLAGS));
	return deny(t->op->mode != now->project);
}

bool target_is_durable(const struct model_state *before, const struct model_target *t)
{
	switch (t->op->kind) {
	case MODEL_FSYNC:
	case MODEL_SYNCFS:
		return true;
	case MODEL_COPY:
	case MODEL_CLONE:
	case MODEL_DEDUPE:
		return has_flags(before, t->ino2, INODE_SYNC);
	case MODEL_SETATTR:
	case MODEL_WRITE:
	case MODEL_APPEND:
	case MODEL_FALLOCATE:
	case MODEL_SETXATTR:
	case MODEL_REMOVEXATTR:
		return has_flags(before, t->ino, INODE_SYNC);
	case MODEL_CREATE:
	case MODEL_SYMLINK:
	case MODEL_UNLINK:
	case MODEL_RMDIR:
		return has_flags(before, t->dir, INODE_SYNC | INODE_DIRSYNC);
	case MODEL_LINK:
		return has_flags(before, t->dir2, INODE_SYNC | INODE_DIRSYNC);
	case MODEL_RENAME:
		return has_flags(before, t->dir, INODE_SYNC | INODE_DIRSYNC) || has_flags(before, t->dir2, INODE_SYNC | INODE_DIRSYNC);
	default:
		return false;
	}
}

/* --- what the filesystem answers ------------------------------------------------------------------------------------------ */

static mode_t mode_of(const struct model_state *state, inum_t ino)
{
	return state_find(state, ino)->record.mode;
}

static int expect_file(const struct model_state *state, inum_t ino)
{
	if (S_ISREG(mode_of(state, ino)))
		return 0;
	return S_ISDIR(mode_of(state, ino)) ? -EISDIR : -EINVAL;
}

static int expect_empty(const struct model_state *state, inum_t ino)
{
	return state_find(state, ino)->count_names ? -ENOTEMPTY : 0;
}

static bool is_above(const struct model_state *state, inum_t ino, inum_t dir)
{
	while (dir != ino && dir != FS_ROOT_INO)
		dir = state_find(state, dir)->parent;
	return dir == ino;
}

static int expect_moved_over(const struct model_state *state, const struct model_target *t)
{
	bool from_dir = S_ISDIR(mode_of(state, t->ino)), to_dir = S_ISDIR(mode_of(state, t->ino2));

	if (from_dir && !to_dir)
		return -ENOTDIR;
	if (!from_dir && to_dir)
		return -EISDIR;
	return to_dir ? expect_empty(state, t->ino2) : 0;
}

static int expect_rename(const struct model_state *state, const struct model_target *t)
{
	unsigned flags = t->op->flags;

	int error;

	if (has_flags(state, t->dir, INODE_IMMUTABLE))
		return -EPERM;
	if (!t->ino)
		return -ENOENT;
	if (has_flags(state, t->dir2, INODE_IMMUTABLE))
		return -EPERM;
	if (t->ino2 && (flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (t->ino == t->ino2)
		return 0;
	if (!t->ino2 && (flags & RENAME_EXCHANGE))
		return -ENOENT;
	error = deny_moves(state, t);
	if (error)
		return error;
	if (S_ISDIR(mode_of(state, t->ino)) && is_above(state, t->ino, t->dir2))
		return -EINVAL;
	if ((flags & RENAME_EXCHANGE) && S_ISDIR(mode_of(state, t->ino2)) && is_above(state, t->ino2, t->dir))
		return -EINVAL;
	return t->ino2 && !(flags & RENAME_EXCHANGE) ? expect_moved_over(state, t) : 0;
}

static int expect_removed(const struct model_state *state, const struct model_target *t)
{
	bool want_dir = t->op->kind == MODEL_RMDIR;

	if (has_flags(state, t->dir, INODE_IMMUTABLE))
		return -EPERM;
	if (!t->ino)
		return -ENOENT;
	if (deny_removal(state, t->dir, t->ino))
		return -EPERM;
	if (S_ISDIR(mode_of(state, t->ino)) != want_dir)
		return want_dir ? -ENOTDIR : -EISDIR;
	return want_dir ? expect_empty(state, t->ino) : 0;
}

static int expect_setattr(const struct model_state *state, const struct model_target *t)
{
	int error = t->op->flags & FS_SET_SIZE ? expect_file(state, t->ino) : 0;

	return error ? error : deny_setattr(state, t);
}

uint64_t target_copy_bytes(const struct model_state *state, const struct model_target *t)
{
	uint64_t size = state_find(state, t->ino)->record.size_bytes;

	return t->op->pos < size ? min_u64(t->op->length, size - t->op->pos) : 0;
}

static int expect_copy(const struct model_state *state, const struct model_target *t)
{
	uint64_t gap = t->op->pos > t->op->pos2 ? t->op->pos - t->op->pos2 : t->op->pos2 - t->op->pos;
	int error = expect_file(state, t->ino);

	if (!error)
		error = expect_file(state, t->ino2);
	if (!error)
		error = deny_write(state, t->ino2, t->op->pos2);
	if (!error && t->ino == t->ino2 && gap < target_copy_bytes(state, t))
		error = -EINVAL;
	return error;
}

static bool range_is_within(const struct model_state *state, inum_t ino, uint64_t pos, uint64_t length)
{
	return pos + length <= state_find(state, ino)->record.size_bytes;
}

static int expect_dedupe(const struct model_state *state, const struct model_target *t)
{
	const struct model_op *op = t->op;
	uint64_t gap = op->pos > op->pos2 ? op->pos - op->pos2 : op->pos2 - op->pos;
	int error = expect_file(state, t->ino);

	if (!error)
		error = expect_file(state, t->ino2);
	if (!error)
		error = deny(has_flags(state, t->ino2, INODE_IMMUTABLE));
	if (error)
		return error;
	if (op->pos % BLOCK_BYTES || op->pos2 % BLOCK_BYTES || !range_is_within(state, t->ino, op->pos, op->length) ||
	    !range_is_within(state, t->ino2, op->pos2, op->length))
		return -EINVAL;
	return t->ino == t->ino2 && gap < round_up_u64(op->length, BLOCK_BYTES) ? -EINVAL : 0;
}

bool target_differs(const struct model_state *state, const struct model_target *t, uint8_t *buffer)
{
	const struct model_op *op = t->op;
	const struct model_inode *from = state_find(state, t->ino), *to = state_find(state, t->ino2);
	uint64_t length = op->length;

	if (!S_ISREG(from->record.mode) || !S_ISREG(to->record.mode) || length > MODEL_FILE_BYTES_MAX / 2)
		return false;
	if (op->pos + length != from->record.size_bytes || op->pos2 + length != to->record.size_bytes)
		length -= length % BLOCK_BYTES;
	inode_read(from, op->pos, buffer, length);
	inode_read(to, op->pos2, buffer + length, length);
	return memcmp(buffer, buffer + length, length) != 0;
}

static int expect_xattr(const struct model_state *state, const struct model_target *t)
{
	mode_t mode = mode_of(state, t->ino);

	if (!strncmp(t->op->path2, "user.", 5) && !S_ISREG(mode) && !S_ISDIR(mode))
		return -EPERM;
	if (deny_replace(state, t->ino))
		return -EPERM;
	if (t->op->kind == MODEL_REMOVEXATTR && !inode_find_xattr(state_find(state, t->ino), t->op->path2))
		return -ENODATA;
	return 0;
}

static int expect_clone(const struct model_state *state, const struct model_target *t)
{
	int error = t->ino == t->ino2 ? -EINVAL : expect_file(state, t->ino);

	if (!error)
		error = expect_file(state, t->ino2);
	return error ? error : deny_replace(state, t->ino2);
}

static int expect_content(const struct model_state *state, const struct model_target *t)
{
	int error = expect_file(state, t->ino);

	if (error)
		return error;
	if (t->op->kind == MODEL_WRITE)
		return deny_write(state, t->ino, t->op->pos);
	if (t->op->kind == MODEL_APPEND || !(t->op->flags & ~(unsigned)FALLOC_FL_KEEP_SIZE))
		return deny(has_flags(state, t->ino, INODE_IMMUTABLE));
	return deny_replace(state, t->ino);
}

static int expect_flags(const struct model_state *state, const struct model_target *t)
{
	mode_t mode = mode_of(state, t->ino);
	uint64_t allowed = S_ISDIR(mode) ? INODE_FS_FLAGS : S_ISREG(mode) ? INODE_FS_FLAGS & ~(INODE_DIRSYNC | INODE_PROJINHERIT) : INODE_NODUMP | INODE_NOATIME;

	if ((t->op->flags & FS_SET_FLAGS) && (t->op->mode & ~allowed))
		return -EOPNOTSUPP;
	return deny_flags(state, t);
}

static int expect_new(const struct model_state *state, const struct model_target *t)
{
	if (t->op->kind == MODEL_TMPFILE && !S_ISDIR(mode_of(state, t->ino)))
		return -ENOTDIR;
	if (has_flags(state, t->op->kind == MODEL_TMPFILE ? t->ino : t->dir, INODE_IMMUTABLE))
		return -EPERM;
	return t->op->kind != MODEL_TMPFILE && t->ino ? -EEXIST : 0;
}

static int expect_link(const struct model_state *state, const struct model_target *t)
{
	int error = deny(has_flags(state, t->dir2, INODE_IMMUTABLE) || S_ISDIR(mode_of(state, t->ino)));

	if (!error)
		error = deny_replace(state, t->ino);
	if (!error)
		error = deny_entry(state, t->dir2, t->ino);
	return !error && t->ino2 ? -EEXIST : error;
}

int target_expect(const struct model_state *state, const struct model_target *t)
{
	switch (t->op->kind) {
	case MODEL_CREATE:
	case MODEL_SYMLINK:
	case MODEL_TMPFILE:
		return expect_new(state, t);
	case MODEL_LINK:
		return expect_link(state, t);
	case MODEL_UNLINK:
	case MODEL_RMDIR:
		return expect_removed(state, t);
	case MODEL_RENAME:
		return expect_rename(state, t);
	case MODEL_SETATTR:
		return expect_setattr(state, t);
	case MODEL_WRITE:
	case MODEL_APPEND:
	case MODEL_FALLOCATE:
		return expect_content(state, t);
	case MODEL_FLAGS:
		return expect_flags(state, t);
	case MODEL_COPY:
		return expect_copy(state, t);
	case MODEL_CLONE:
		return expect_clone(state, t);
	case MODEL_DEDUPE:
		return expect_dedupe(state, t);
	case MODEL_SETXATTR:
	case MODEL_REMOVEXATTR:
		return expect_xattr(state, t);
	default:
		return 0;
	}
}

/* --- names ---------------------------------------------------------------------------------------------------------------- */

static void change_links(struct model_state *state, inum_t ino, int delta)
{
	state_edit(state, ino)->record.nlink += (uint32_t)delta;
}

static void inherit_flags(struct inode_record *record, const struct inode_record *dir)
{
	uint64_t flags = dir->flags & (INODE_NODUMP | INODE_NOATIME);

	if (S_ISREG(record->mode) || S_ISDIR(record->mode))
		flags |= dir->flags & INODE_SYNC;
	if (S_ISDIR(record->mode))
		flags |= dir->flags & (INODE_DIRSYNC | INODE_PROJINHERIT);
	record->flags = flags;
	record->project = dir->flags & INODE_PROJINHERIT ? dir->project : 0;
}

static void apply_new(struct model_state *state, const struct model_target *t, inum_t ino, mode_t mode)
{
	struct model_inode *inode = state_add(state, ino, mode);
	const struct model_inode *dir = state_find(state, t->dir);

	inode->record.uid = t->op->uid;
	inode->record.gid = t->op->gid;
	inode->record.nlink = S_ISDIR(mode) ? 2 : 1;
	inode->record.rdev = S_ISCHR(mode) || S_ISBLK(mode) ? t->op->rdev : 0;
	inode->parent = S_ISDIR(mode) ? t->dir : 0;
	inherit_flags(&inode->record, &dir->record);
	if (dir->record.mode & S_ISGID) {
		inode->record.gid = dir->record.gid;
		inode->record.mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	if (t->op->kind != MODEL_RENAME) /* a whiteout is no file of anybody's */
		inode_inherit(inode, dir);
}

static void apply_create(struct model_state *state, const struct model_target *t, inum_t ino)
{
	apply_new(state, t, ino, t->op->mode);
	inode_add_name(state_edit(state, t->dir), t->name, ino);
	if (S_ISDIR(t->op->mode))
		change_links(state, t->dir, 1);
}

static void apply_symlink(struct model_state *state, const struct model_target *t, inum_t ino)
{
	struct model_inode *inode;

	apply_new(state, t, ino, S_IFLNK | 0777);
	inode = state_edit(state, ino);
	inode->target = strdup(t->op->path2);
	inode->record.size_bytes = strlen(t->op->path2);
	inode_add_name(state_edit(state, t->dir), t->name, ino);
}

static void apply_tmpfile(struct model_state *state, const struct model_target *t, inum_t ino)
{
	struct model_target in_dir = *t;

	in_dir.dir = t->ino;
	apply_new(state, &in_dir, ino, t->op->mode);
	state_edit(state, ino)->record.nlink = 0;
}

/* Its last name goes, or one of several. */
static void drop_name(struct model_state *state, inum_t dir, const char *name, inum_t ino)
{
	struct model_inode *victim = state_edit(state, ino);

	inode_remove_name(state_edit(state, dir), name);
	if (!S_ISDIR(victim->record.mode)) {
		victim->record.nlink--;
		return;
	}
	victim->record.nlink = 0;
	change_links(state, dir, -1);
}

static void apply_exchange(struct model_state *state, const struct model_target *t)
{
	bool from_dir = S_ISDIR(mode_of(state, t->ino)), to_dir = S_ISDIR(mode_of(state, t->ino2));

	inode_find_name(state_edit(state, t->dir), t->name)->ino = t->ino2;
	inode_find_name(state_edit(state, t->dir2), t->name2)->ino = t->ino;
	change_links(state, t->dir, to_dir - from_dir);
	change_links(state, t->dir2, from_dir - to_dir);
	if (from_dir)
		state_edit(state, t->ino)->parent = t->dir2;
	if (to_dir)
		state_edit(state, t->ino2)->parent = t->dir;
}

static void apply_rename(struct model_state *state, const struct model_target *t, inum_t ino)
{
	bool moves_dir = S_ISDIR(mode_of(state, t->ino));

	if (t->ino == t->ino2)
		return;
	if (t->op->flags & RENAME_EXCHANGE) {
		apply_exchange(state, t);
		return;
	}
	if (t->ino2)
		drop_name(state, t->dir2, t->name2, t->ino2);
	inode_remove_name(state_edit(state, t->dir), t->name);
	inode_add_name(state_edit(state, t->dir2), t->name2, t->ino);
	change_links(state, t->dir, -moves_dir);
	change_links(state, t->dir2, moves_dir);
	if (moves_dir)
		state_edit(state, t->ino)->parent = t->dir2;
	if (!(t->op->flags & RENAME_WHITEOUT))
		return;
	apply_new(state, t, ino, S_IFCHR);
	inode_add_name(state_edit(state, t->dir), t->name, ino);
}

/* --- attributes and content ----------------------------------------------------------------------------------------------- */

static void apply_setattr(struct model_state *state, const struct model_target *t)
{
	struct model_inode *inode = state_edit(state, t->ino);
	struct inode_record *record = &inode->record;
	unsigned set = t->op->flags;

	if (set & FS_SET_SIZE)
		inode_resize(inode, t->op->length);
	if (set & FS_SET_MODE)
		record->mode = (record->mode & S_IFMT) | (t->op->mode & 07777);
	if (set & FS_SET_UID)
		record->uid = t->op->uid;
	if (set & FS_SET_GID)
		record->gid = t->op->gid;
	if (set & FS_SET_MODE)
		inode_follow_mode(inode);
	if (set & (FS_SET_KILL_SUIDGID | FS_SET_UID | FS_SET_GID))
		inode_lose_privileges(inode);
}

static void apply_flags(struct model_state *state, const struct model_target *t)
{
	struct inode_record *record = &state_edit(state, t->ino)->record;

	if (t->op->flags & FS_SET_FLAGS)
		record->flags = t->op->mode;
	if (t->op->flags & FS_SET_PROJECT)
		record->project = t->op->mode;
}

static void apply_write(struct model_state *state, const struct model_target *t, uint8_t *buffer)
{
	struct model_inode *inode = state_edit(state, t->ino);
	uint64_t pos = t->op->kind == MODEL_APPEND ? inode->record.size_bytes : t->op->pos;

	model_fill(buffer, t->tag, pos, t->op->length);
	inode_write(inode, pos, buffer, t->op->length);
}

static void apply_copy(struct model_state *state, const struct model_target *t, uint8_t *buffer)
{
	uint64_t bytes = target_copy_bytes(state, t);

	inode_read(state_find(state, t->ino), t->op->pos, buffer, bytes);
	inode_write(state_edit(state, t->ino2), t->op->pos2, buffer, bytes);
}

static void apply_fallocate(struct model_state *state, const struct model_target *t)
{
	struct model_inode *inode = state_edit(state, t->ino);
	uint64_t end = t->op->pos + t->op->length, size = inode->record.size_bytes;

	if ((t->op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && t->op->pos < size)
		inode_write(inode, t->op->pos, NULL, min_u64(end, size) - t->op->pos);
	if (!(t->op->flags & FALLOC_FL_KEEP_SIZE) && end > size)
		inode_resize(inode, end);
}

void target_apply(struct model_state *state, const struct model_target *t, inum_t ino, uint8_t *buffer)
{
	switch (t->op->kind) {
	case MODEL_CREATE:
		return apply_create(state, t, ino);
	case MODEL_TMPFILE:
		return apply_tmpfile(state, t, ino);
	case MODEL_SYMLINK:
		return apply_symlink(state, t, ino);
	case MODEL_LINK:
		change_links(state, t->ino, 1);
		return inode_add_name(state_edit(state, t->dir2), t->name2, t->ino);
	case MODEL_UNLINK:
	case MODEL_RMDIR:
		return drop_name(state, t->dir, t->name, t->ino);
	case MODEL_RENAME:
		return apply_rename(state, t, ino);
	case MODEL_SETATTR:
		return apply_setattr(state, t);
	case MODEL_FLAGS:
		return apply_flags(state, t);
	case MODEL_WRITE:
	case MODEL_APPEND:
		return apply_write(state, t, buffer);
	case MODEL_COPY:
		return apply_copy(state, t, buffer);
	case MODEL_CLONE:
		return inode_share_blocks(state_edit(state, t->ino2), state_find(state, t->ino));
	case MODEL_FALLOCATE:
		return apply_fallocate(state, t);
	case MODEL_SETXATTR:
		return inode_set_xattr(state_edit(state, t->ino), t->op, t->tag, buffer);
	case MODEL_REMOVEXATTR:
		return inode_remove_xattr(state_edit(state, t->ino), t->op->path2);
	case MODEL_KILL:
		return inode_lose_privileges(state_edit(state, t->ino));
	case MODEL_LABEL:
		snprintf(state->label, sizeof(state->label), "%s", t->op->path);
		return;
	case MODEL_RESIZE:
		state->size_bytes += t->op->length;
		return;
	default:
		return;
	}
}

/* --- half done ------------------------------------------------------------------------------------------------------------ */

static void change_setattr(const struct model_state *before, const struct model_target *t, struct model_change *change)
{
	unsigned rest = t->op->flags & ~(unsigned)FS_SET_SIZE;

	if (!(t->op->flags & FS_SET_SIZE))
		return;
	if (rest)
		change->kind = CHANGE_SIZE_FIRST;
	else if (t->op->length > state_find(before, t->ino)->record.size_bytes)
		change->kind = CHANGE_SIZE;
}

void target_change(const struct model_state *before, const struct model_target *t, struct model_change *change)
{
	const struct model_op *op = t->op;

	*change = (struct model_change){.kind = CHANGE_ATOMIC, .ino = t->ino, .pos = op->pos, .end = op->pos + op->length};
	if (op->kind == MODEL_SETATTR)
		change_setattr(before, t, change);
	if (op->kind == MODEL_WRITE || op->kind == MODEL_APPEND || op->kind == MODEL_COPY)
		change->kind = CHANGE_PREFIX;
	if (op->kind == MODEL_APPEND) {
		change->pos = state_find(before, t->ino)->record.size_bytes;
		change->end = change->pos + op->length;
	}
	if (op->kind == MODEL_COPY)
		*change = (struct model_change){CHANGE_PREFIX, t->ino2, t->ino, op->pos2, op->pos2 + target_copy_bytes(before, t)};
	if (op->kind == MODEL_CLONE)
		*change = (struct model_change){CHANGE_FINISHED, t->ino2, t->ino, 0, MODEL_FILE_BYTES_MAX};
	if (op->kind == MODEL_DEDUPE)
		*change = (struct model_change){CHANGE_SIZE, t->ino2, t->ino, op->pos2, op->pos2 + op->length};
	if (op->kind == MODEL_FALLOCATE)
		change->kind = op->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) ? CHANGE_PUNCH : CHANGE_SIZE;
}
