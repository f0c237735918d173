#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/crash/model_observe.h"
#include "tests/crash/model_xattr.h"

#define WORD_BYTES 8 /* what a store to the medium is torn into */
#define VERSIONS_MAX (MODEL_OPERATIONS_MAX + 1)

struct judge {
	const struct model *model;
	struct observed *observed;
	unsigned begun; /* the last state that anything of can be there */
	bool window;	/* PAGE after the host's crash: overwrites in place by operations after the state that is compared may be there, by pages */
	size_t word_bytes; /* that an overwrite may have been torn into */
	bool live;	/* right after the operation: what is taken over from the filesystem (times, blocks, generation) is not compared */
	char reason[256];
};

/* One file between two states, or in one (then `after` is `before`). */
struct judged_file {
	const struct observed_inode *seen;
	const struct model_inode *before, *after;
	unsigned state; /* of `before` */
	const struct model_change *change;
};

static bool differs(struct judge *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool differs(struct judge *j, const char *format, ...)
{
	va_list list;

	va_start(list, format);
	vsnprintf(j->reason, sizeof(j->reason), format, list);
	va_end(list);
	return false;
}

/* --- blocks --------------------------------------------------------------------------------------------------------------- */

static size_t block_length(const struct observed_inode *seen, size_t index)
{
	return min_u64(BLOCK_BYTES, seen->record.size_bytes - (uint64_t)index * BLOCK_BYTES);
}

static bool block_equals(struct judge *j, const struct observed_inode *seen, size_t index, const struct model_inode *inode)
{
	struct observed_block *block = &j->observed->all_blocks[seen->first_block + index];
	struct model_block *want = index < inode->count_blocks ? inode->blocks[index] : NULL;
	size_t length = block_length(seen, index);

	if (want && block->matched == want)
		return true;
	if (memcmp(observed_bytes(j->observed, seen, index), inode_block(inode, index), length))
		return false;
	if (length == BLOCK_BYTES)
		block->matched = want;
	return true;
}

static bool word_is_of(const uint8_t *word, size_t length, size_t index, size_t at, const struct model_inode *const versions[], size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (!memcmp(word, inode_block(versions[i], index) + at, length))
			return true;
	return false;
}

/* Each word of any. */
static bool block_mixes(struct judge *j, const struct observed_inode *seen, size_t index, const struct model_inode *const versions[], size_t count)
{
	const uint8_t *bytes = observed_bytes(j->observed, seen, index);
	size_t length = block_length(seen, index);

	for (size_t at = 0; at < length; at += j->word_bytes)
		if (!word_is_of(bytes + at, min_u64(j->word_bytes, length - at), index, at, versions, count))
			return false;
	return true;
}

static blkno_t inode_place(const struct model_inode *inode, size_t index)
{
	return index < inode->count_blocks ? inode->places[index] : 0;
}

/*
 * The inode as later states have it, while the block lies where `inode` has it: what overwrites in place made of it. Any mix of them may be there, not only whole pages:
 * what a truncate cut off is still in the page, beside what was overwritten afterwards.
 */
static size_t later_versions(const struct judge *j, const struct model_inode *inode, unsigned state, size_t index,
			     const struct model_inode *versions[VERSIONS_MAX])
{
	blkno_t place = inode_place(inode, index);
	size_t count = 0;

	versions[count++] = inode;
	for (unsigned i = state + 1; i <= j->begun && j->window && place; i++) {
		const struct model_inode *later = state_find(&j->model->states[i], inode->ino);

		if (!later)
			break;
		if (later != versions[count - 1] && inode_place(later, index) == place)
			versions[count++] = later;
	}
	return count;
}

/* Is the block as in this state, or, after the crash of a host, as a later overwrite in place left it? */
static bool block_is_of(struct judge *j, const struct observed_inode *seen, size_t index, const struct model_inode *inode, unsigned state)
{
	const struct model_inode *versions[VERSIONS_MAX];
	size_t count;

	if (j->observed->all_blocks[seen->first_block + index].bad || block_equals(j, seen, index, inode))
		return true;
	count = later_versions(j, inode, state, index, versions);
	return count > 1 && block_mixes(j, seen, index, versions, count);
}

static bool content_is_of(struct judge *j, const struct observed_inode *seen, const struct model_inode *inode, unsigned state)
{
	for (size_t i = 0; i < seen->blocks; i++)
		if (!block_is_of(j, seen, i, inode, state))
			return differs(j, "inode %llu block %zu has other bytes", (unsigned long long)seen->ino, i);
	return true;
}

/* --- attributes ----------------------------------------------------------------------------------------------------------- */

#define SAME(field)                                                                                                    \
	if (seen->record.field != want->record.field)                                                                  \
		return differs(j, "inode %llu: " #field " is %llu, not %llu", (unsigned long long)seen->ino,           \
			       (unsigned long long)seen->record.field, (unsigned long long)want->record.field)
#define SAME_TIME(field)                                                                                               \
	if (TIME_NS(seen->record.field) != TIME_NS(want->record.field))                                                \
		return differs(j, "inode %llu: " #field " is another", (unsigned long long)seen->ino)

static bool is_between(uint64_t x, uint64_t a, uint64_t b)
{
	return x >= min_u64(a, b) && x <= max_u64(a, b);
}

static bool owner_is(struct judge *j, const struct observed_inode *seen, const struct model_inode *want)
{
	SAME(mode);
	SAME(uid);
	SAME(gid);
	if (seen->xattrs != inode_xattrs_sum(want))
		return differs(j, "inode %llu has other attributes", (unsigned long long)seen->ino);
	SAME(project);
	if ((seen->record.flags ^ want->record.flags) & INODE_FS_FLAGS)
		return differs(j, "inode %llu: its flags are %llx", (unsigned long long)seen->ino, (unsigned long long)seen->record.flags);
	return true;
}

static bool identity_is(struct judge *j, const struct observed_inode *seen, const struct model_inode *want)
{
	SAME(nlink);
	SAME(rdev);
	SAME(entries);
	if (j->live)
		return true;
	SAME(generation);
	SAME_TIME(btime);
	return true;
}

static bool times_are(struct judge *j, const struct observed_inode *seen, const struct model_inode *want)
{
	SAME_TIME(atime);
	if (!is_between(TIME_NS(seen->record.mtime), want->stored_mtime_ns, TIME_NS(want->record.mtime)))
		return differs(j, "inode %llu: mtime is another", (unsigned long long)seen->ino);
	if (!is_between(TIME_NS(seen->record.ctime), want->stored_ctime_ns, TIME_NS(want->record.ctime)))
		return differs(j, "inode %llu: ctime is another", (unsigned long long)seen->ino);
	return true;
}

/* Half way: from the oldest that may be stored to the newest. */
static bool times_are_between(struct judge *j, const struct judged_file *file)
{
	const struct inode_record *seen = &file->seen->record;

	if (!is_between(TIME_NS(seen->mtime), min_u64(file->before->stored_mtime_ns, TIME_NS(file->before->record.mtime)),
			TIME_NS(file->after->record.mtime)) ||
	    !is_between(TIME_NS(seen->ctime), min_u64(file->before->stored_ctime_ns, TIME_NS(file->before->record.ctime)),
			TIME_NS(file->after->record.ctime)))
		return differs(j, "inode %llu: times are not between", (unsigned long long)file->seen->ino);
	return true;
}

static bool names_are(struct judge *j, const struct observed_inode *seen, const struct model_inode *want)
{
	if (seen->count_names != want->count_names)
		return differs(j, "directory %llu has %zu names, not %u", (unsigned long long)seen->ino, seen->count_names, want->count_names);
	if (seen->dotdot != want->parent)
		return differs(j, "directory %llu: its parent is %llu", (unsigned long long)seen->ino, (unsigned long long)seen->dotdot);
	for (size_t i = 0; i < seen->count_names; i++) {
		const struct observed_name *entry = &j->observed->names[seen->first_name + i];
		const char *name = (const char *)j->observed->arena + entry->name;
		struct model_name *found = inode_find_name(want, name);

		if (!found || found->ino != entry->ino)
			return differs(j, "directory %llu: %.40s is %llu, not %llu", (unsigned long long)seen->ino, name,
				       (unsigned long long)entry->ino, found ? (unsigned long long)found->ino : 0ull);
	}
	return true;
}

static bool inode_is_of(struct judge *j, const struct observed_inode *seen, const struct model_inode *want, unsigned state)
{
	if (!owner_is(j, seen, want) || !identity_is(j, seen, want))
		return false;
	SAME(size_bytes);
	if (!j->live) {
		SAME(count_blocks);
		if (!times_are(j, seen, want))
			return false;
	}
	if (S_ISDIR(want->record.mode))
		return names_are(j, seen, want);
	if (S_ISLNK(want->record.mode) && strcmp((const char *)j->observed->arena + seen->target, want->target))
		return differs(j, "symlink %llu leads elsewhere", (unsigned long long)seen->ino);
	return !S_ISREG(want->record.mode) || content_is_of(j, seen, want, state);
}

/* --- half-done operations ------------------------------------------------------------------------------------------------- */

static bool in_place(const struct judged_file *file, size_t index)
{
	blkno_t place = inode_place(file->before, index);

	return place && place == inode_place(file->after, index);
}

static bool touches(const struct model_change *change, size_t index)
{
	uint64_t start = (uint64_t)index * BLOCK_BYTES;

	return change->pos < start + BLOCK_BYTES && change->end > start;
}

enum block_age { BLOCK_OTHER, BLOCK_SAME, BLOCK_OLD, BLOCK_NEW, BLOCK_MIXED };

static enum block_age block_age(struct judge *j, const struct judged_file *file, size_t index)
{
	bool old = block_is_of(j, file->seen, index, file->before, file->state);
	bool new = block_is_of(j, file->seen, index, file->after, file->state + 1);

	if (old && new)
		return BLOCK_SAME;
	if (old || new)
		return old ? BLOCK_OLD : BLOCK_NEW;
	if (in_place(file, index) && block_mixes(j, file->seen, index, (const struct model_inode *[]){file->before, file->after}, 2))
		return BLOCK_MIXED;
	return BLOCK_OTHER;
}

static bool size_is_of_either(struct judge *j, const struct judged_file *file)
{
	uint64_t size = file->seen->record.size_bytes;

	if (size == file->before->record.size_bytes || size == file->after->record.size_bytes)
		return true;
	return differs(j, "inode %llu has %llu bytes, as neither before nor after", (unsigned long long)file->seen->ino, (unsigned long long)size);
}

static bool block_is_wrong(struct judge *j, const struct judged_file *file, size_t index, const char *what)
{
	return differs(j, "inode %llu block %zu %s", (unsigned long long)file->seen->ino, index, what);
}

/*
 * New data are stored before the transaction that names them, and transactions follow each other: before a block that is new because its mapping is,
 * everything is new; and before the size.
 */
static bool prefix_blocks(struct judge *j, const struct judged_file *file)
{
	bool all_new = true, grew = file->seen->record.size_bytes > file->before->record.size_bytes;

	for (size_t i = 0; i < file->seen->blocks; i++) {
		enum block_age age = block_age(j, file, i);

		if (age == BLOCK_OTHER || (!touches(file->change, i) && age != BLOCK_SAME))
			return block_is_wrong(j, file, i, "is neither old nor new");
		if (age == BLOCK_NEW && !in_place(file, i) && !all_new)
			return block_is_wrong(j, file, i, "is new, but something before it is not");
		all_new = all_new && (age == BLOCK_NEW || age == BLOCK_SAME);
	}
	if (grew && !all_new)
		return block_is_wrong(j, file, file->seen->blocks, "is within the new size, but not everything is new");
	return true;
}

static bool prefix_size(struct judge *j, const struct judged_file *file)
{
	uint64_t size = file->seen->record.size_bytes;

	if (size > file->before->record.size_bytes && size < file->after->record.size_bytes && size % BLOCK_BYTES == 0 &&
	    size > file->change->pos)
		return true;
	return size_is_of_either(j, file);
}

static bool is_edge(const struct judged_file *file, size_t index)
{
	uint64_t start = (uint64_t)index * BLOCK_BYTES;
	bool cuts_tail = file->change->end < start + BLOCK_BYTES && file->change->end < file->before->record.size_bytes;

	return file->change->pos > start || cuts_tail;
}

static bool punch_blocks(struct judge *j, const struct judged_file *file)
{
	bool edges_new = true, middle_new = false, middle_old = false;

	for (size_t i = 0; i < file->seen->blocks; i++) {
		enum block_age age = block_age(j, file, i);

		if (age == BLOCK_OTHER || (!touches(file->change, i) && age != BLOCK_SAME))
			return block_is_wrong(j, file, i, "is neither old nor new");
		if (touches(file->change, i) && is_edge(file, i)) {
			edges_new = edges_new && age != BLOCK_OLD && age != BLOCK_MIXED;
			continue;
		}
		middle_new = middle_new || age == BLOCK_NEW;
		middle_old = middle_old || age == BLOCK_OLD || age == BLOCK_MIXED;
	}
	if (middle_new && (middle_old || !edges_new))
		return block_is_wrong(j, file, 0, "and others: only a part of the hole is there");
	if (file->seen->record.size_bytes > file->before->record.size_bytes && (middle_old || !edges_new))
		return block_is_wrong(j, file, 0, "and others: the size is new, the content is not");
	return true;
}

static bool size_blocks(struct judge *j, const struct judged_file *file)
{
	if (file->seen->record.size_bytes == file->after->record.size_bytes)
		return content_is_of(j, file->seen, file->after, file->state + 1);
	return content_is_of(j, file->seen, file->before, file->state);
}

static bool any_blocks(struct judge *j, const struct judged_file *file)
{
	const struct model_inode *source = state_find(&j->model->states[file->state], file->change->source);

	for (size_t i = 0; i < file->seen->blocks; i++)
		if (block_age(j, file, i) == BLOCK_OTHER && !(source && block_equals(j, file->seen, i, source)))
			return block_is_wrong(j, file, i, "is neither old nor new");
	return true;
}

static bool finished_is_of(struct judge *j, const struct judged_file *file)
{
	const struct inode_record *seen = &file->seen->record;

	if (TIME_NS(seen->mtime) < file->before->stored_mtime_ns || TIME_NS(seen->ctime) < file->before->stored_ctime_ns)
		return differs(j, "inode %llu: its times went back", (unsigned long long)file->seen->ino);
	if (seen->size_bytes != file->after->record.size_bytes || seen->count_blocks != file->after->record.count_blocks)
		return differs(j, "inode %llu: another size than when it is finished", (unsigned long long)file->seen->ino);
	return content_is_of(j, file->seen, file->after, file->state + 1);
}

static bool file_is_half_done(struct judge *j, const struct judged_file *file)
{
	if (!identity_is(j, file->seen, file->before) || !owner_is(j, file->seen, file->before))
		return false;
	if (file->change->kind == CHANGE_FINISHED)
		return finished_is_of(j, file);
	if (!times_are_between(j, file))
		return false;
	switch (file->change->kind) {
	case CHANGE_PREFIX:
		return prefix_size(j, file) && prefix_blocks(j, file);
	case CHANGE_PUNCH:
		return size_is_of_either(j, file) && punch_blocks(j, file);
	case CHANGE_SIZE:
	case CHANGE_SIZE_FIRST:
		return size_is_of_either(j, file) && size_blocks(j, file);
	case CHANGE_ANY:
		return any_blocks(j, file);
	default:
		return differs(j, "inode %llu: its operation cannot be half done", (unsigned long long)file->seen->ino);
	}
}

/* --- states --------------------------------------------------------------------------------------------------------------- */

static bool inode_is_visible(const struct model_inode *inode)
{
	return inode->record.nlink != 0;
}

static unsigned count_visible(const struct model_state *state)
{
	unsigned count = 0;

	for (unsigned i = 0; i < state->count_inodes; i++)
		count += inode_is_visible(state->inodes[i]);
	return count;
}

static bool inode_fits(struct judge *j, const struct observed_inode *seen, unsigned state, const struct model_change *change)
{
	const struct model_inode *inode = state_find(&j->model->states[state], seen->ino);
	struct judged_file file = {.seen = seen, .before = inode, .state = state, .change = change};

	if (!inode || !inode_is_visible(inode))
		return differs(j, "inode %llu must not be there", (unsigned long long)seen->ino);
	if (!change || change->ino != seen->ino)
		return inode_is_of(j, seen, inode, state);
	file.after = state_find(&j->model->states[state + 1], seen->ino);
	return file_is_half_done(j, &file);
}

/* With a change: the state with that operation half done. */
static bool state_fits(struct judge *j, unsigned state, const struct model_change *change)
{
	unsigned visible = count_visible(&j->model->states[state]);

	for (size_t i = 0; i < j->observed->count_inodes; i++)
		if (!inode_fits(j, &j->observed->inodes[i], state, change))
			return false;
	if (visible != j->observed->count_inodes)
		return differs(j, "%zu inodes, not %u", j->observed->count_inodes, visible);
	return true;
}

static const char *state_text(const struct judge *j, unsigned state)
{
	return state ? j->model->texts[state - 1] : "the start";
}

/* Not part of the order of transactions: durable when the call returns. */
static bool label_fits(const struct judge *j, struct fs *fs, unsigned done)
{
	const char *label = fs_super(fs)->label;

	return !strcmp(label, j->model->states[done].label) || !strcmp(label, j->model->states[j->begun].label);
}

static bool size_fits(const struct judge *j, struct fs *fs, unsigned done)
{
	uint64_t size = fs_super(fs)->size_bytes;

	return size == j->model->states[done].size_bytes || size == j->model->states[j->begun].size_bytes;
}

static int judge_fails(struct judge *j, const struct crash_point *point, struct why *why)
{
	unsigned last = j->begun, half = min_u64(point->durable, j->model->count - (j->model->count != 0));
	char newest[256], oldest[256];

	state_fits(j, last, NULL);
	memcpy(newest, j->reason, sizeof(newest));
	state_fits(j, point->durable, NULL);
	memcpy(oldest, j->reason, sizeof(oldest));
	j->reason[0] = 0;
	if (half < last && j->model->changes[half].kind != CHANGE_ATOMIC)
		state_fits(j, half, &j->model->changes[half]);
	return why_set(why, -EUCLEAN, "neither state %u after [%s]: %s; nor %u after [%s]: %s; half way: %s", last, state_text(j, last), newest,
		       point->durable, state_text(j, point->durable), oldest, j->reason[0] ? j->reason : "no");
}

int judge_live(struct model *model, struct fs *fs, struct why *why)
{
	struct judge j = {.model = model, .observed = model->observed, .begun = model->count, .live = true};
	int error = observe(model->observed, fs, false, why);

	if (error || state_fits(&j, model->count, NULL))
		return error;
	return why_set(why, -EUCLEAN, "%s", j.reason);
}

int model_judge(struct model *model, struct fs *fs, enum media_granularity granularity, const struct crash_point *point, struct why *why)
{
	struct judge j = {
		.model = model,
		.observed = model->observed,
		.begun = min_u64(point->begun, model->count),
		.window = granularity == MEDIA_PAGE && !point->same_boot,
		/* A daemon that is killed has copied any number of bytes to the page cache. */
		.word_bytes = granularity == MEDIA_PAGE ? 1 : WORD_BYTES,
	};
	struct crash_point clipped = *point;
	int error = observe(model->observed, fs, point->data_poisoned, why);

	if (error)
		return error;
	if (!label_fits(&j, fs, min_u64(point->done, j.begun)))
		return why_set(why, -EUCLEAN, "the label is %.32s", fs_super(fs)->label);
	if (!size_fits(&j, fs, min_u64(point->done, j.begun)))
		return why_set(why, -EUCLEAN, "the filesystem has %llu bytes", (unsigned long long)fs_super(fs)->size_bytes);
	clipped.durable = min_u64(point->durable, j.begun);
	for (unsigned state = j.begun; state + 1 > clipped.durable; state--) {
		if (state_fits(&j, state, NULL))
			return 0;
		if (state < j.begun && model->changes[state].kind != CHANGE_ATOMIC && state_fits(&j, state, &model->changes[state]))
			return 0;
		if (!state)
			break;
	}
	return judge_fails(&j, &clipped, why);
}
