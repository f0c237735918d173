#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fs/query.h"
#include "tests/crash/model_apply.h"
#include "tests/crash/model_observe.h"
#include "tests/crash/model_xattr.h"

/* --- life ----------------------------------------------------------------------------------------------------------------- */

struct model *model_create(void)
{
	struct model *model = calloc(1, sizeof(*model));

	if (!model)
		return NULL;
	model->observed = observed_create();
	model->buffer = malloc(MODEL_FILE_BYTES_MAX);
	if (model->observed && model->buffer)
		return model;
	model_destroy(model);
	return NULL;
}

static void model_drop_states(struct model *model)
{
	for (unsigned i = 0; i <= model->count; i++)
		state_fini(&model->states[i]);
	model->count = 0;
	model->next_tag = 1;
	memset(model->slots, 0, sizeof(model->slots));
}

void model_destroy(struct model *model)
{
	if (!model)
		return;
	model_drop_states(model);
	observed_destroy(model->observed);
	free(model->buffer);
	free(model);
}

void model_fill(void *buffer, unsigned tag, uint64_t pos, size_t size)
{
	uint8_t *bytes = buffer;

	for (size_t i = 0; i < size; i++) {
		uint64_t z = ((pos + i) >> 3) * 0x9e3779b97f4a7c15ull + tag * 0xbf58476d1ce4e5b9ull + 1;

		z ^= z >> 29;
		bytes[i] = (uint8_t)(z >> ((pos + i) % 8 * 8));
	}
}

unsigned model_count(const struct model *model)
{
	return model->count;
}

/* --- what is taken over from the filesystem ------------------------------------------------------------------------------- */

struct places {
	blkno_t *blocks;
	size_t count;
};

static int places_visit(void *arg, const struct fs_map_extent *extent)
{
	struct places *places = arg;
	size_t first = extent->pos / BLOCK_BYTES, blocks = round_up_u64(extent->length_bytes, BLOCK_BYTES) / BLOCK_BYTES;

	for (size_t i = 0; i < blocks && first + i < places->count && extent->written; i++)
		places->blocks[first + i] = extent->device_offset / BLOCK_BYTES + i;
	return 0;
}

static int take_places(struct model_state *state, struct fs *fs, struct model_inode **inode)
{
	struct places places = {.count = (*inode)->count_blocks};
	size_t bytes = places.count * sizeof(*places.blocks);
	int error = 0;

	if (!places.count)
		return 0;
	places.blocks = calloc(places.count, sizeof(*places.blocks));
	if (!places.blocks)
		return -ENOMEM;
	error = fs_map(fs, (*inode)->ino, 0, (*inode)->record.size_bytes, places_visit, &places);
	if (!error && memcmp(places.blocks, (*inode)->places, bytes)) {
		*inode = state_edit(state, (*inode)->ino);
		memcpy((*inode)->places, places.blocks, bytes);
	}
	free(places.blocks);
	return error;
}

static bool record_is_same(const struct inode_record *a, const struct inode_record *b)
{
	return TIME_NS(a->mtime) == TIME_NS(b->mtime) && TIME_NS(a->ctime) == TIME_NS(b->ctime) && TIME_NS(a->atime) == TIME_NS(b->atime) &&
	       TIME_NS(a->btime) == TIME_NS(b->btime) && a->count_blocks == b->count_blocks && a->generation == b->generation;
}

/* Did the operation name all that it wrote by transactions, and the times with it? */
static bool times_are_stored(const struct model *model, enum model_kind kind, const struct model_change *change, const struct model_inode *inode)
{
	size_t end = min_u64(round_up_u64(change->end, BLOCK_BYTES) / BLOCK_BYTES, inode->count_blocks);
	const struct model_inode *before;

	if (kind == MODEL_FSYNC || kind == MODEL_SYNCFS || change->ino != inode->ino)
		return true;
	before = state_find(&model->states[model->count - 1], inode->ino);
	if (kind == MODEL_FALLOCATE || kind == MODEL_DEDUPE)
		return false;
	if (kind != MODEL_WRITE && kind != MODEL_APPEND && kind != MODEL_COPY)
		return true;
	for (size_t i = change->pos / BLOCK_BYTES; i < end; i++)
		if (i < before->count_blocks && inode->places[i] && inode->places[i] == before->places[i])
			return false;
	return true;
}

static void take_record(struct model *model, struct model_inode *inode, const struct inode_record *live, bool stored)
{
	struct inode_record *record = &inode->record;

	record->mtime = live->mtime;
	record->ctime = live->ctime;
	record->atime = live->atime;
	record->btime = live->btime;
	record->count_blocks = live->count_blocks;
	record->generation = live->generation;
	if (stored) {
		inode->stored_mtime_ns = TIME_NS(live->mtime);
		inode->stored_ctime_ns = TIME_NS(live->ctime);
	}
}

static bool is_synced(enum model_kind kind, const struct model_change *change, const struct model_inode *inode)
{
	return kind == MODEL_SYNCFS || (kind == MODEL_FSYNC && change->ino == inode->ino);
}

static int take_inode(struct model *model, struct fs *fs, unsigned index, enum model_kind kind, const struct model_change *change)
{
	struct model_state *state = state_last(model);
	struct model_inode *inode = state->inodes[index];
	struct fs_attr attr;
	int error = fs_getattr(fs, inode->ino, &attr);

	if (!error && S_ISREG(inode->record.mode))
		error = take_places(state, fs, &inode);
	if (error)
		return error;
	if (!record_is_same(&inode->record, &attr.record) || is_synced(kind, change, inode)) {
		inode = state_edit(state, inode->ino);
		take_record(model, inode, &attr.record, times_are_stored(model, kind, change, inode));
	}
	return 0;
}

static int take_over(struct model *model, struct fs *fs, enum model_kind kind, const struct model_change *change, struct why *why)
{
	int error = 0;

	for (unsigned i = 0; i < state_last(model)->count_inodes && !error; i++)
		error = take_inode(model, fs, i, kind, change);
	return error ? why_set(why, -EUCLEAN, "an inode cannot be read: %s", strerror(-error)) : 0;
}

int model_agree(struct model *model, struct fs *fs, struct why *why)
{
	return judge_live(model, fs, why);
}

int model_prepare(struct model *model, struct fs *fs, struct why *why)
{
	struct model_inode *root;
	struct fs_attr attr;
	int error = fs_getattr(fs, FS_ROOT_INO, &attr);

	if (error)
		return why_set(why, error, "root: %s", strerror(-error));
	model_drop_states(model);
	model->preparing = true;
	root = state_add(&model->states[0], FS_ROOT_INO, attr.record.mode);
	snprintf(model->states[0].label, sizeof(model->states[0].label), "%s", fs_super(fs)->label);
	model->states[0].size_bytes = fs_super(fs)->size_bytes;
	root->record = attr.record;
	root->parent = FS_ROOT_INO;
	return model_agree(model, fs, why);
}

int model_prepared(struct model *model, struct fs *fs, struct why *why)
{
	struct model_change change = {.kind = CHANGE_ATOMIC};
	struct model_state *state = state_last(model);
	int error = fs_syncfs(fs);

	memset(model->slots, 0, sizeof(model->slots));
	for (unsigned i = 0; i < state->count_inodes; i++)
		if (!state->inodes[i]->record.nlink)
			state_remove(state, state->inodes[i--]->ino);
	if (!error)
		error = model_agree(model, fs, why);
	model->preparing = false;
	model->next_tag = 1000;
	return error ? error : take_over(model, fs, MODEL_SYNCFS, &change, why);
}

/* --- on the filesystem ---------------------------------------------------------------------------------------------------- */

struct attempt {
	struct model *model;
	struct fs *fs;
	struct model_target target;
	int expected, error;
	inum_t ino;	/* of a new inode */
	uint64_t done; /* bytes */
};

static void drop_reference(struct attempt *a, const struct fs_attr *attr)
{
	a->ino = attr->ino;
	if (!a->error && a->target.op->kind != MODEL_TMPFILE)
		fs_forget(a->fs, attr->ino, 1);
}

static int do_new(struct attempt *a)
{
	const struct model_target *t = &a->target;
	struct fs_who who = {.uid = t->op->uid, .gid = t->op->gid};
	struct fs_attr attr = {0};

	if (t->op->kind == MODEL_CREATE)
		a->error = fs_create(a->fs, &who, t->dir, t->name, t->op->mode, t->op->rdev, &attr);
	else if (t->op->kind == MODEL_TMPFILE)
		a->error = fs_tmpfile(a->fs, &who, t->ino, t->op->mode, &attr);
	else if (t->op->kind == MODEL_SYMLINK)
		a->error = fs_symlink(a->fs, &who, t->dir, t->name, t->op->path2, &attr);
	else
		a->error = fs_link(a->fs, t->ino, t->dir2, t->name2, &attr);
	drop_reference(a, &attr);
	return a->error;
}

static int do_setattr(struct attempt *a)
{
	const struct model_op *op = a->target.op;
	struct inode_record values = {.mode = op->mode, .uid = op->uid, .gid = op->gid, .size_bytes = op->length};
	struct fs_attr attr;

	values.mtime.sec = values.atime.sec = (int64_t)(op->pos / 1000000000u);
	values.mtime.nsec = values.atime.nsec = (uint32_t)(op->pos % 1000000000u);
	return fs_setattr(a->fs, a->target.ino, op->flags, &values, &attr);
}

static int do_flags(struct attempt *a)
{
	const struct model_op *op = a->target.op;
	const struct fs_who root = {0};
	struct inode_record values = {.flags = op->mode, .project = op->mode, .extent_hint = op->mode};

	return fs_set_flags(a->fs, &root, a->target.ino, op->flags, &values);
}

static int do_write(struct attempt *a)
{
	const struct model_target *t = &a->target;
	bool appends = t->op->kind == MODEL_APPEND;
	uint64_t pos = appends ? state_find(state_last(a->model), t->ino)->record.size_bytes : t->op->pos;
	size_t done = 0;
	int error;

	model_fill(a->model->buffer, t->tag, pos, t->op->length);
	error = appends ? fs_append(a->fs, t->ino, a->model->buffer, t->op->length, &done)
			: fs_write(a->fs, t->ino, pos, a->model->buffer, t->op->length, &done);
	a->done = done;
	return error;
}

static int do_xattr(struct attempt *a)
{
	static const struct fs_who who = {.uid = 0};
	const struct model_target *t = &a->target;
	size_t size;

	if (t->op->kind == MODEL_REMOVEXATTR)
		return fs_removexattr(a->fs, &who, t->ino, t->op->path2);
	size = xattr_value(t->op, t->tag, a->model->buffer);
	return fs_setxattr(a->fs, &who, t->ino, t->op->path2, a->model->buffer, size, 0);
}

/* A copy that ends short without an error ran out of something. */
static int do_copy(struct attempt *a)
{
	const struct model_target *t = &a->target;
	uint64_t bytes = target_copy_bytes(state_last(a->model), t);
	int error = fs_copy_range(a->fs, t->ino, t->op->pos, t->ino2, t->op->pos2, t->op->length, &a->done);

	return !error && a->done < bytes ? -ENOSPC : error;
}

/* What is the same is a matter of the model's too. */
static int do_dedupe(struct attempt *a)
{
	const struct model_target *t = &a->target;
	const struct model_op *op = t->op;
	struct fs_dedupe dedupe = {.from = t->ino, .to = t->ino2, .from_pos = op->pos, .to_pos = op->pos2, .length = op->length};
	bool same = !target_differs(state_last(a->model), t, a->model->buffer);
	int error = fs_dedupe(a->fs, &dedupe);

	a->done = dedupe.done;
	return error || dedupe.differs != same ? error : -EUCLEAN;
}

static int do_reference(struct attempt *a)
{
	const struct model_target *t = &a->target;
	struct fs_attr attr;
	inum_t *slot = &a->model->slots[t->op->slot];

	if (t->op->kind == MODEL_OPEN)
		return fs_lookup(a->fs, t->dir, t->name, &attr);
	fs_forget(a->fs, *slot, 1);
	*slot = 0;
	return 0;
}

/* What lies at the old name afterwards, if it is to be new. */
static int do_rename(struct attempt *a)
{
	const struct model_target *t = &a->target;
	struct fs_who who = {.uid = t->op->uid, .gid = t->op->gid};
	struct fs_attr attr;

	a->error = fs_rename(a->fs, &who, t->dir, t->name, t->dir2, t->name2, t->op->flags);
	if (!a->error && (t->op->flags & RENAME_WHITEOUT) && !fs_lookup(a->fs, t->dir, t->name, &attr))
		drop_reference(a, &attr);
	return a->error;
}

static int do_on_fs(struct attempt *a)
{
	const struct model_target *t = &a->target;
	struct why ignored;
	uint64_t trimmed;

	switch (t->op->kind) {
	case MODEL_UNLINK:
		return fs_unlink(a->fs, t->dir, t->name);
	case MODEL_RMDIR:
		return fs_rmdir(a->fs, t->dir, t->name);
	case MODEL_RENAME:
		return do_rename(a);
	case MODEL_SETATTR:
		return do_setattr(a);
	case MODEL_FLAGS:
		return do_flags(a);
	case MODEL_WRITE:
	case MODEL_APPEND:
		return do_write(a);
	case MODEL_COPY:
		return do_copy(a);
	case MODEL_CLONE:
		return fs_clone(a->fs, t->ino, t->ino2);
	case MODEL_DEDUPE:
		return do_dedupe(a);
	case MODEL_FALLOCATE:
		return fs_fallocate(a->fs, t->ino, (int)t->op->flags, t->op->pos, t->op->length);
	case MODEL_FSYNC:
		return fs_fsync(a->fs, t->ino);
	case MODEL_SYNCFS:
		return fs_syncfs(a->fs);
	case MODEL_TRIM:
		return fs_trim(a->fs, &(struct fs_trim_range){t->op->pos, t->op->length, t->op->flags}, NULL, NULL, &trimmed);
	case MODEL_SETXATTR:
	case MODEL_REMOVEXATTR:
		return do_xattr(a);
	case MODEL_KILL:
		return fs_kill_privileges(a->fs, t->ino, true, NULL);
	case MODEL_LABEL:
		return fs_set_label(a->fs, t->op->path, &ignored);
	case MODEL_RESIZE:
		return fs_resize(a->fs, fs_super(a->fs)->size_bytes + t->op->length, &ignored);
	case MODEL_OPEN:
	case MODEL_FORGET:
		return do_reference(a);
	default:
		return do_new(a);
	}
}

/* --- what an operation that failed in the middle has left ----------------------------------------------------------------- */

static int adopt_bytes(struct attempt *a, struct model_inode *now, const struct model_inode *wanted, bool zeros_too, struct why *why)
{
	uint8_t *live = a->model->buffer;
	struct fs_attr attr;
	size_t done = 0;
	int error = fs_getattr(a->fs, now->ino, &attr);

	if (!error && attr.record.size_bytes <= MODEL_FILE_BYTES_MAX)
		error = fs_read(a->fs, now->ino, 0, live, attr.record.size_bytes, &done);
	if (error || done != attr.record.size_bytes)
		return why_set(why, -EUCLEAN, "after -ENOSPC it cannot be read");
	for (size_t i = 0; i < done; i++) {
		uint8_t old = inode_block(now, i / BLOCK_BYTES)[i % BLOCK_BYTES], new = inode_block(wanted, i / BLOCK_BYTES)[i % BLOCK_BYTES];

		if (live[i] != old && live[i] != new && !(zeros_too && !live[i]))
			return why_set(why, -EUCLEAN, "after -ENOSPC byte %zu is neither old nor new", i);
	}
	inode_resize(now, 0);
	inode_write(now, 0, live, done);
	return 0;
}

static bool kind_changes_content(enum model_kind kind)
{
	return kind == MODEL_WRITE || kind == MODEL_APPEND || kind == MODEL_COPY || kind == MODEL_CLONE || kind == MODEL_FALLOCATE;
}

/* The last state is a copy of the one before; whatever content the filesystem has must be made of old and new bytes. */
static int adopt_failed(struct attempt *a, struct model_change *change, struct why *why)
{
	struct model_state *state = state_last(a->model), wanted;
	int error;

	if (!kind_changes_content(a->target.op->kind))
		return 0;
	change->kind = CHANGE_ANY;
	state_copy(&wanted, state);
	target_apply(&wanted, &a->target, 0, a->model->buffer);
	error = adopt_bytes(a, state_edit(state, change->ino), state_find(&wanted, change->ino), a->target.op->kind == MODEL_CLONE, why);
	state_fini(&wanted);
	return error;
}

/* --- one operation -------------------------------------------------------------------------------------------------------- */

static bool is_in_slot(const struct model *model, inum_t ino)
{
	for (unsigned i = 0; i < MODEL_SLOTS; i++)
		if (model->slots[i] == ino)
			return true;
	return false;
}

/* Without a name and without a user they are gone. */
static void reclaim(struct model *model)
{
	struct model_state *state = state_last(model);

	for (unsigned i = 0; i < state->count_inodes; i++)
		if (!state->inodes[i]->record.nlink && !is_in_slot(model, state->inodes[i]->ino))
			state_remove(state, state->inodes[i--]->ino);
}

static void model_step(struct attempt *a, struct model_change *change)
{
	struct model *model = a->model;

	target_change(state_last(model), &a->target, change);
	state_copy(&model->states[model->count + 1], state_last(model));
	model_op_text(a->target.op, model->texts[model->count], sizeof(model->texts[0]));
	model->count++;
	model->next_tag++;
	if (!a->error && a->target.op->kind == MODEL_TMPFILE)
		model->slots[a->target.op->slot] = a->ino;
	if (!a->error && a->target.op->kind == MODEL_OPEN)
		model->slots[a->target.op->slot] = a->target.ino;
}

static void model_forget_before(struct model *model)
{
	state_fini(&model->states[0]);
	model->states[0] = model->states[1];
	model->states[1].count_inodes = 0;
	model->count = 0;
}

static int model_follow(struct attempt *a, struct why *why)
{
	struct model *model = a->model;
	struct model_change *change = &model->changes[model->count];
	int error = 0;

	model_step(a, change);
	if (!a->error)
		target_apply(state_last(model), &a->target, a->ino, model->buffer);
	else if (a->error == -ENOSPC)
		error = adopt_failed(a, change, why);
	else
		change->kind = CHANGE_ATOMIC;
	reclaim(model);
	if (model->preparing)
		model_forget_before(model);
	if (error || model->preparing)
		return error;
	error = model_agree(model, a->fs, why);
	return error ? error : take_over(model, a->fs, a->target.op->kind, change, why);
}

static bool is_as_expected(const struct attempt *a)
{
	return a->error == a->expected || (!a->expected && a->error == -ENOSPC);
}

static int say_what_was_tried(const struct model_op *op, int wrong, struct why *why)
{
	struct why reason = *why;
	char text[96];

	return why_set(why, wrong, "%s: %.500s", model_op_text(op, text, sizeof(text)), reason.text);
}

int model_do(struct model *model, struct fs *fs, struct crash_run *run, const struct model_op *op, int *error, struct why *why)
{
	struct attempt a = {.model = model, .fs = fs};
	int refused = target_resolve(model, op, &a.target), wrong;

	if (error)
		*error = refused;
	if (refused)
		return 0;
	if (model->count == MODEL_OPERATIONS_MAX)
		return why_set(why, -EUCLEAN, "too many operations");
	a.expected = target_expect(state_last(model), &a.target);
	if (run)
		crash_begin(run);
	a.error = do_on_fs(&a);
	if (run)
		crash_end(run, a.error);
	if (run && !a.error && target_is_durable(state_last(model), &a.target))
		crash_durable(run);
	if (error)
		*error = a.error;
	wrong = is_as_expected(&a) ? model_follow(&a, why)
				   : why_set(why, -EUCLEAN, "answers %s, not %s", strerror(-a.error), strerror(-a.expected));
	return wrong ? say_what_was_tried(op, wrong, why) : 0;
}

/* --- words ---------------------------------------------------------------------------------------------------------------- */

const char *model_kind_name(enum model_kind kind)
{
	static const char *const names[MODEL_KINDS] = {
		"nothing", "create", "tmpfile", "symlink", "link", "unlink",    "rmdir", "rename", "setattr", "write",
		"append", "copy",    "clone",	"dedupe", "fallocate", "fsync", "syncfs", "open",   "forget", "label", "resize",
		"setxattr", "removexattr", "kill",
		"flags", "trim",
	};

	return names[kind];
}

const char *model_op_text(const struct model_op *op, char *text, size_t size)
{
	snprintf(text, size, "%s %.30s %.30s %llu+%llu %x", model_kind_name(op->kind), op->path ? op->path : "", op->path2 ? op->path2 : "",
		 (unsigned long long)op->pos, (unsigned long long)op->length, op->flags);
	return text;
}
