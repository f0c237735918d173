#ifndef FUSE_TRIM_H
#define FUSE_TRIM_H

#include <linux/fs.h>

#include "fuse/ioctl.h"

int trim_ioctl(struct ioctl_call *call);

#endif
