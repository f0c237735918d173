/*
 * What mendctl can ask for, each implemented once: the daemon's server runs them on a mounted
 * filesystem, mendctl itself in-process on an unmounted one. Elements are streamed, so that memory
 * stays bounded however long the answer is.
 */
#ifndef CONTROL_COMMANDS_H
#define CONTROL_COMMANDS_H

#include "control/json.h"
#include "control/render.h"
#include "fs/query.h"

/* What only the front knows. Each may be NULL. */
#define CONTROL_HISTOGRAM_BUCKETS 40
struct control_opcode {
	const char *name; /* "READ", "WRITE", ... */
	uint64_t count;
	uint64_t total_ns;
	/* [i]: requests that took at least 2^i ns and less than 2^(i+1); 0 ns counts in [0],
	 * everything longer in the last. */
	uint64_t histogram[CONTROL_HISTOGRAM_BUCKETS];
};
typedef int control_opcode_fn(void *arg, const struct control_opcode *opcode);
struct control_hooks {
	/* Visit each opcode that was seen; stop at the first nonzero answer and return it. */
	int (*stats)(void *arg, control_opcode_fn *visit, void *visit_arg);
	/* This inode's size and content were changed by a command, not by the kernel: drop its
	 * pages and attributes there. May block on write-back; called by a control thread that
	 * holds no lock. */
	void (*changed)(void *arg, inum_t ino);
	/* fs_stop(), with what the kernel holds and knows. */
	int (*shut_down)(void *arg, enum fs_stop_mode mode);
};

struct command_context {
	struct fs *fs;
	struct render_place place;
	const struct control_hooks *hooks; /* NULL where there is no front */
	void *hooks_arg;
};

struct command_args {
	bool has_range; /* offset and length_bytes are given: of the device, or with has_file of the
			   file */
	uint64_t offset;
	uint64_t length_bytes;
	bool has_file;
	inum_t ino;       /* 0: path says which */
	const char *path; /* from the filesystem's root; any bytes but NUL */
	inum_t to_ino;    /* clone: the destination */
	int kind;         /* owners: enum fs_owner_kind, or -1 for all */
	bool all;         /* the whole device */
	bool latent;
	bool no_wait;  /* scrub: start it and answer */
	bool progress; /* the client wants to see how far a long command is */
	const char *text;    /* label, uuid: the new one; shutdown: the mode; scrub: the kind; NULL: none is given */
	uint64_t size_bytes; /* resize: 0 for all that there is */
};
#define COMMAND_ARGS_INIT ((struct command_args){.kind = -1})

/* Takes the element. 0 goes on; anything else stops the command, which returns it. */
typedef int command_emit_fn(void *arg, struct json_object *element);
struct command_sink {
	command_emit_fn *emit;
	/* Of a long command, every few milliseconds: false ends it with -ECANCELED. total 0: unknown. NULL: nobody looks. */
	bool (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
	struct json_object *extra; /* an object: further keys of the whole answer beside its array;
				      commands add to it */
};

typedef int command_fn(const struct command_context *context, const struct command_args *args,
		       struct command_sink *sink, struct why *why);

struct command {
	const char *name;
	const char *array; /* the key of its elements; NULL: none */
	command_fn *run; /* 0, or negative errno with one line in *why; NULL for monitor, which only
			    the server knows */
	bool on_unmounted; /* also in-process */
	bool changes;      /* needs a writable filesystem when in-process */
};

const struct command *command_find(const char *name); /* NULL: no such command */
/* command->run with a line in *why whenever the answer is negative. */
int command_run(const struct command *command, const struct command_context *context,
		const struct command_args *args, struct command_sink *sink, struct why *why);
int command_kind_parse(const char *name); /* enum fs_owner_kind or -EINVAL */
int command_stop_mode_parse(const char *name); /* enum fs_stop_mode or -EINVAL */

/*
 * Device ranges behind [offset, offset + length_bytes) of the arguments: of the file, or the
 * device's own. -ENXIO: a hole, or past the end; -ERANGE; each with *why.
 */
typedef int command_range_fn(void *arg, devoff_t offset, uint64_t length_bytes);
int command_ranges(struct fs *fs, const struct command_args *args, command_range_fn *visit,
		   void *arg, struct why *why);

#endif
