/* What mkfs prints about a filesystem that it has made, or would make. */
#ifndef MKFS_REPORT_H
#define MKFS_REPORT_H

#include "mkfs/build.h"

void report_text(const struct build *build);
int report_json(const struct build *build);

#endif
